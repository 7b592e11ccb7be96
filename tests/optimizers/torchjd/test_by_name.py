"""TorchJD's aggregators by name: what they give is what TorchJD gives on the weighted Jacobian."""

import copy
import importlib
import sys
import warnings
from importlib.abc import MetaPathFinder
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from optimizers import JacobianAggregator, MultiTaskOptimizer
from optimizers.torchjd import torchjd_aggregator

aggregation = pytest.importorskip(
    "torchjd.aggregation", reason="TorchJD is not installed: pip install 'sde-mtl[peers]'"
)

TASKS = 6
WEIGHTS = torch.tensor([1.0, 0.3, 2.7, 0.9, 1.1, 0.7], dtype=torch.float64)
OPTIONS: dict[str, dict[str, Any]] = {
    "AlignedMTL": {}, "CAGrad": {"c": 0.5}, "ConFIG": {}, "Constant": {"weights": [1.0, 2.0, 0.5, 1.0, 3.0, 0.1]},
    "DualProj": {}, "ExcessMTL": {}, "FairGrad": {"alpha": 2.0}, "GradDrop": {}, "GradVac": {}, "IMTLG": {},
    "Krum": {"n_byzantine": 1}, "MGDA": {}, "Mean": {}, "NashMTL": {"n_tasks": TASKS}, "PCD": {}, "PCGrad": {},
    "Random": {}, "Sum": {}, "TrimmedMean": {"trim_number": 1}, "UPGrad": {},
}  # fmt: skip
MATRIX = ("ConFIG", "ExcessMTL", "GradDrop", "TrimmedMean")
STATEFUL = ("ExcessMTL", "GradVac", "NashMTL", "PCD")
DRAWING = ("GradDrop", "GradVac", "PCGrad", "Random")
TOLERANCE = {"CAGrad": 1e-8, "FairGrad": 1e-6, "NashMTL": 1e-6}
"""Iterative solvers, which stop at about these; all others are 1e-12, rounding of a float64 Gramian."""


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """TorchJD's NashMTL, called directly, makes cvxpy complain."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are solving a parameterized problem that is not DPP", UserWarning)
        yield


def theirs(name: str) -> Any:
    tensors = {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v for k, v in OPTIONS[name].items()}
    return getattr(aggregation, name)(**tensors)


def update(aggregator: Any, G: Tensor, weights: Tensor = WEIGHTS) -> Tensor:
    """By the coefficients where there are some, otherwise by the gradients."""
    if isinstance(aggregator, JacobianAggregator):
        return aggregator.combine(G, weights)
    return aggregator(G @ G.T, weights) @ G


def matrices(kind: str, count: int = 10) -> list[Tensor]:
    return [torch.from_numpy(zoo.sample(kind, TASKS, seed)) for seed in range(count)]


def test_every_method_of_torchjd_is_covered() -> None:
    with pytest.raises(ValueError, match="'Adam' is no aggregator of TorchJD; it has ") as error:
        torchjd_aggregator("Adam")
    assert str(error.value).split("it has ")[1].split(", ") == sorted(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_updates_are_those_of_torchjd_on_the_weighted_jacobian(name: str, scale: float) -> None:
    """Their Jacobian interface and ours, with the same draws, over five calls so that states count."""
    own, ours = theirs(name), torchjd_aggregator(name, seed=None, **OPTIONS[name])
    assert isinstance(ours, JacobianAggregator) == (name in MATRIX)
    for seed, G in enumerate(matrices("independent", 5)):
        torch.manual_seed(seed)
        expected = own(WEIGHTS[:, None] * (scale * G))
        torch.manual_seed(seed)
        found = update(ours, scale * G)
        assert (found - expected).norm() <= TOLERANCE.get(name, 1e-12) * expected.norm()


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"FairGrad", "NashMTL", "Krum"}))
@pytest.mark.parametrize("kind", ["low_rank", "opposite", "duplicated", "collinear", "zero_row", "badly_scaled"])
def test_degenerate_gradients_agree_as_far_as_torchjd_agrees_with_itself(name: str, kind: str) -> None:
    """Its own answer to the rotated Jacobian J Q, rotated back, says how far rounding decides.

    GradDrop, TrimmedMean and ExcessMTL work by coordinates, so no rotation leaves them alone: they get the matrix.
    """
    for seed, G in enumerate(matrices(kind, 3)):
        J = WEIGHTS[:, None] * G
        Q = torch.from_numpy(np.linalg.qr(np.random.default_rng(seed).normal(size=(G.shape[1],) * 2))[0])
        answers = []
        for matrix, back in ((J, None), (J @ Q, Q.T)):
            torch.manual_seed(seed)
            answer = theirs(name)(matrix)
            answers.append(answer if back is None else answer @ back)
        torch.manual_seed(seed)
        found = update(torchjd_aggregator(name, seed=None, **OPTIONS[name]), G)
        size = max(answers[0].norm().item(), 1e-12 * J.norm().item())
        spread = 0.0 if name in MATRIX else (answers[0] - answers[1]).norm().item()
        assert (found - answers[0]).norm() <= TOLERANCE.get(name, 1e-12) * size + 100 * spread


def test_the_comparison_can_fail() -> None:
    """Negative control: other methods are told apart, and other weights but by NashMTL, which divides them out."""
    G = matrices("opposite", 1)[0] + 0.1 * matrices("independent", 1)[0]
    ends = {}
    for name in sorted(set(OPTIONS) - {"Constant"}):
        ends[name] = update(torchjd_aggregator(name, **OPTIONS[name]), G)
        other = update(torchjd_aggregator(name, **OPTIONS[name]), G, WEIGHTS.flip(0))
        assert ((other - ends[name]).norm() > 1e-4 * ends[name].norm()) == (name != "NashMTL"), name
    names = list(ends)
    for i, a in enumerate(names):
        for b in names[:i]:
            assert (ends[a] - ends[b]).norm() > 1e-4 * ends[a].norm(), (a, b)


@pytest.mark.parametrize("name", DRAWING)
def test_seeds_decide_the_draws_and_the_global_stream_is_left_alone(name: str) -> None:
    G = matrices("independent", 1)[0]

    def run(seed: int | None) -> list[Tensor]:
        aggregator = torchjd_aggregator(name, seed=seed, **OPTIONS[name])
        return [update(aggregator, G) for _ in range(4)]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, run(0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, run(1), strict=True))
    assert not all(torch.equal(a, first[0]) for a in first), "the draws go on"
    torch.manual_seed(1)
    unseeded = run(None)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(unseeded, run(None), strict=True))


@pytest.mark.parametrize("name", OPTIONS)
def test_reset_starts_anew(name: str) -> None:
    aggregator = torchjd_aggregator(name, **OPTIONS[name])
    calls = matrices("independent", 3)
    first = [update(aggregator, G) for G in calls]
    again = [update(aggregator, G) for G in calls]
    aggregator.reset()
    assert all(torch.equal(a, update(aggregator, G)) for a, G in zip(first, calls, strict=True))
    changed = not all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert changed or name not in (*STATEFUL, *DRAWING)


def test_a_resumed_run_continues_the_draws(model: nn.Module, x: Tensor) -> None:
    def build(model: nn.Module, seed: int) -> MultiTaskOptimizer:
        return MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), torchjd_aggregator("Random", seed=seed))

    optimizer = build(model, 0)
    for _ in range(3):
        optimizer.step(model.losses(x))
    twin = copy.deepcopy(model)
    resumed = build(twin, 1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(model.losses(x))
        resumed.step(twin.losses(x))
    assert torch.equal(parameters_to_vector(model.parameters()), parameters_to_vector(twin.parameters()))


def test_a_batch_is_a_loop() -> None:
    G = torch.stack(matrices("independent", 6)).view(2, 3, TASKS, -1)
    M = G @ G.mT
    aggregator = torchjd_aggregator("UPGrad")
    together = aggregator(M, WEIGHTS)
    assert together.shape == (2, 3, TASKS)
    assert torch.equal(together[1, 2], aggregator(M[1, 2], WEIGHTS))
    assert aggregator(torch.eye(2).expand(0, 2, 2)).shape == (0, 2)
    with pytest.raises(
        ValueError, match=r"PCD.*keeps a state between calls and takes one \(K, K\) Gramian, got \(2, 3\)"
    ):
        torchjd_aggregator("PCD")(G @ G.mT)


@pytest.mark.parametrize("name", ["CAGrad", "UPGrad", "DualProj"])
def test_short_gradients_are_zero_to_some_methods(name: str) -> None:
    """As the documentation warns: with a trace below 1e-4 CAGrad stops, the others average."""
    weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
    G = torch.tensor([[1.0, 0.0], [-3.0, 1.0]], dtype=torch.float64)
    options = OPTIONS[name]

    def of_trace(trace: float) -> Tensor:
        M = G @ G.T
        return torchjd_aggregator(name, **options)(M * trace / (weights**2 @ M.diagonal()), weights)

    expected = 0.0 * weights if name == "CAGrad" else weights / 2
    assert torch.allclose(of_trace(0.99e-4), expected)
    assert not torch.allclose(of_trace(1.01e-4), expected)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("CAGrad", {}, TypeError, "CAGrad requires the option 'c'; its options: c, norm_eps"),
        ("UPGrad", {"rho": 0.5}, TypeError, "UPGrad has no option 'rho'; its options: pref_vector"),
        ("Mean", {"c": 1}, TypeError, "its options: none"),
        ("CAGrad", {"c": -1.0}, ValueError, "c must be non-negative"),
        ("Aggregator", {}, ValueError, "no aggregator of TorchJD"),
        ("UPGradWeighting", {}, ValueError, "no aggregator of TorchJD"),
    ],
)
def test_bad_names_and_options_are_refused(name: str, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        torchjd_aggregator(name, **options)


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="was made for 3 tasks, the Gramian has 2; pass n_tasks"):
        torchjd_aggregator("NashMTL", n_tasks=3)(torch.eye(2))
    with pytest.raises(ValueError, match=r"task_weights\[0\] = -1.0"):
        torchjd_aggregator("UPGrad")(torch.eye(2), [-1.0, 1.0])
    with pytest.raises(ValueError, match="not finite"):
        torchjd_aggregator("UPGrad")(torch.full((2, 2), torch.nan))
    drop = torchjd_aggregator("GradDrop")
    with pytest.raises(ValueError, match=r"jacobian must have shape \(K, P\), got \(1, 2, 3\)"):
        drop.combine(torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match="each of the 2 tasks"):
        drop.combine(torch.ones(2, 3), [1.0])
    with pytest.raises(ValueError, match="at least 3 rows"):
        torchjd_aggregator("TrimmedMean", trim_number=1).combine(torch.ones(2, 3))
    infinite = torchjd_aggregator("Constant", weights=[torch.inf, 1.0])
    with pytest.raises(RuntimeError, match=r"gave \[inf, 1.0\] for finite gradients; this is an error of TorchJD's"):
        infinite(torch.eye(2))


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"NashMTL"}))
def test_vanishing_gradients_give_a_vanishing_update(name: str) -> None:
    assert update(torchjd_aggregator(name, **OPTIONS[name]), torch.zeros(TASKS, 5).double()).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MATRIX)
def test_matrix_methods_keep_dtype_and_input(name: str, dtype: torch.dtype) -> None:
    options = OPTIONS[name] | ({"pref_vector": [1.0, 2.0, 1.0, 1.0, 1.0, 1.0]} if name == "ConFIG" else {})
    G = matrices("independent", 1)[0].to(dtype)
    before = G.clone()
    for weights in (None, WEIGHTS):
        assert torchjd_aggregator(name, **options).combine(G, weights).dtype == dtype
        assert torch.equal(G, before)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_method_trains(name: str) -> None:
    """Six quadratic losses with one minimum all fall to a fraction."""
    minimum, position = torch.randn(4), nn.Parameter(torch.zeros(4))
    factors = torch.randn(TASKS, 7, 4)
    optimizer = MultiTaskOptimizer(torch.optim.Adam([position], lr=0.05), torchjd_aggregator(name, **OPTIONS[name]))

    def losses() -> list[Tensor]:
        return list((factors @ (position - minimum)).square().mean(-1))

    before = [loss.item() for loss in losses()]
    for _ in range(60):
        optimizer.step(losses())
    assert all(b.item() < 0.3 * a for a, b in zip(before, losses(), strict=True))


def test_without_torchjd_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(MetaPathFinder):
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "torchjd":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for module in [m for m in sys.modules if m.split(".")[0] == "torchjd"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(ImportError, match=r"TorchJD is not installed; pip install 'sde-mtl\[peers\]'"):
        torchjd_aggregator("UPGrad")


def test_without_a_solver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("torchjd._mixins")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"CAGrad.* requires .*'cvxpy'.*; or, for all methods: pip install 'sde-mtl"):
        torchjd_aggregator("CAGrad", c=0.5)


def test_a_broken_torchjd_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ModuleNotFoundError("No module named 'typeguard'", name="typeguard")

    monkeypatch.setattr("optimizers.torchjd.importlib.import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="typeguard"):
        torchjd_aggregator("UPGrad")
