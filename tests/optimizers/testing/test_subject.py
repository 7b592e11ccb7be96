"""Aggregators of every kind behind one interface."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers import came_grad_coefficients, linear, mgda
from optimizers.testing import conformance, load, subject
from optimizers.testing._subject import Subject

G = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
ONES = torch.ones(2, dtype=torch.float64)


class Combining:
    def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
        return task_weights @ jacobian


class Doubling:
    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def __call__(self, matrix: Tensor) -> Tensor:
        return self.factor * matrix.sum(0)


def plain(gramian: Tensor) -> Tensor:
    return torch.ones(len(gramian), dtype=torch.float64)


def of_gradients(gradients: Tensor, task_weights: Tensor | None = None) -> Tensor:
    return gradients.sum(0)


@pytest.mark.parametrize(
    ("target", "takes", "gives", "weighted"),
    [
        (linear, "gramian", "coefficients", True), (came_grad_coefficients, "gramian", "coefficients", True),
        (lambda M, weights: M.sum(0), "gramian", "coefficients", True), (plain, "gramian", "coefficients", False),
        (lambda matrix: matrix.sum(0), "matrix", "update", False), (lambda x, c=1.0: x[0], "matrix", "update", False),
        (of_gradients, "matrix", "update", True), (Combining(), "matrix", "update", True),
        (Doubling, "matrix", "update", False), (Doubling(3.0), "matrix", "update", False),
    ],
)  # fmt: skip
def test_signatures_say_what_is_taken(target: Any, takes: str, gives: str, weighted: bool) -> None:
    one = subject(target)
    assert (one.takes, one.gives, one.weighted) == (takes, gives, weighted)
    assert one.update(G).shape == (3,)


def test_takes_overrides_the_signature() -> None:
    assert subject(lambda x: x.diagonal(), takes="gramian").gives == "coefficients"
    with pytest.raises(ValueError, match="takes = 'tensor'"):
        subject(linear, takes="tensor")  # type: ignore[arg-type]


def test_weights_reach_the_aggregator() -> None:
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    for target in (linear, Combining()):
        assert torch.equal(subject(target).update(G, weights), weights @ G)
        assert torch.equal(subject(target).update(G), ONES @ G)


def test_torchjd() -> None:
    """Classes and instances of aggregators and weightings, and one that needs the number of tasks."""
    aggregation = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")
    expected = aggregation.UPGrad()(G)
    for target in (
        aggregation.UPGrad,
        aggregation.UPGrad(),
        aggregation.UPGradWeighting,
        aggregation.UPGradWeighting(),
    ):
        assert torch.allclose(subject(target).update(G), expected)
    assert subject(aggregation.UPGradWeighting).takes == "gramian"
    assert subject(aggregation.ExcessMTLWeighting).takes == "matrix"
    assert subject(aggregation.ExcessMTLWeighting).update(G).shape == (3,)
    assert load("torchjd.aggregation:NashMTL(n_tasks=K)").build(4).n_tasks == 4
    ours = load("optimizers.torchjd:CAMEGrad(task_weights=[1.0, 4.0])")
    assert torch.allclose(ours.update(G), came_grad_coefficients(G @ G.T, [1.0, 4.0]) @ G)


def test_torchjd_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torchjd.aggregation", raising=False)
    assert subject(mgda).takes == "gramian"


def test_states_are_reset_and_streams_seeded_before_each_call() -> None:
    class Remembering:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, matrix: Tensor) -> Tensor:
            self.calls += 1
            return self.calls * matrix.sum(0)

        def reset(self) -> None:
            self.calls = 0

    one = subject(Remembering)
    assert torch.equal(one.update(G), one.update(G))
    assert not torch.equal(one.update(G), one.update(G, fresh=False))
    drawing = subject(lambda matrix: torch.rand(len(matrix)).to(matrix) @ matrix)
    assert torch.equal(drawing.update(G), drawing.update(G))
    assert not torch.equal(drawing.update(G), drawing.update(G, fresh=False))
    outcomes = {v.property: v.outcome for v in conformance(drawing, ["deterministic", "finite"], examples=20)}
    assert outcomes == {"deterministic": "fails", "finite": "holds"}


def test_load_looks_into_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "class A:\n    class B:\n        def __call__(self, matrix):\n            return matrix[0]\n"
    (tmp_path / "my_method.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert torch.equal(load("my_method:A.B").update(G), G[0])


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("optimizers", ValueError, "must be module:name or module:name"),
        (":linear", ValueError, "must be module:name"),
        ("optimizers:1 + 1", ValueError, "must be module:name"),
        ("optimizers:linear(", ValueError, "must be module:name"),
        ("optimizers:nothing", ValueError, "'optimizers' has no 'nothing'"),
        ("no_such_module:x", ImportError, "no_such_module"),
        ("optimizers.torchjd:torchjd_aggregator(name)", ValueError, "must be Python literals"),
        ("optimizers.training.coefficients:check_coefficients", TypeError, "neither"),
        ("torch:add", TypeError, "no signature"),
        ("optimizers.gradients._gramian:CHUNK", TypeError, "cannot be called"),
    ],
)
def test_bad_specifications_are_refused(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load(spec)


def test_wrong_results_are_named() -> None:
    with pytest.raises(TypeError, match="gives list, not a tensor"):
        subject(lambda matrix: [1.0]).update(G)
    with pytest.raises(ValueError, match=r"gives coefficients of shape \(3,\) for 2 tasks"):
        Subject("x", lambda tasks: lambda M: torch.ones(3), "gramian", "coefficients", False).update(G)
