"""CAME-Grad in TorchJD's functions gives the update of optimizers.CAMEGrad on the same model."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimizers import CAMEGrad, MultiTaskOptimizer, linear, mgda, pcgrad
from optimizers.aggregators._came_grad import CAMEGradCoefficients

pytest.importorskip("torchjd", reason="TorchJD is not installed: pip install 'sde-mtl[peers]'")

from torchjd.aggregation import GramianWeightedAggregator, UPGrad, Weighting
from torchjd.autogram import Engine
from torchjd.autojac import backward, jac_to_grad, mtl_backward

from optimizers.torchjd import CAMEGrad as Aggregator
from optimizers.torchjd import CAMEGradWeighting, as_aggregator, as_weighting, torchjd_aggregator

WEIGHTS = [1.0, 4.0]
OPTIONS: list[dict[str, Any]] = [
    {}, {"rho": 0.9, "kappa": 2.0, "nu": 0.5}, {"center": "weighted"}, {"nu": 0.8, "fusion": "adaptive"},
]  # fmt: skip


def flat(parameters: Any) -> Tensor:
    return torch.cat([p.grad.reshape(-1) for p in parameters])


def expected(model: nn.Module, x: Tensor, shared: Any = None, weights: Any = WEIGHTS, **options: Any) -> nn.Module:
    twin = copy.deepcopy(model)
    names = None if shared is None else {n for n, p in model.named_parameters() if any(p is q for q in shared)}
    own = None if names is None else [p for n, p in twin.named_parameters() if n in names]
    CAMEGrad(torch.optim.SGD(twin.parameters(), lr=0.1), shared=own, **options).backward(twin.losses(x), weights)
    return twin


def close(a: Tensor, b: Tensor, tolerance: float = 2e-6) -> bool:
    return bool((a - b).norm() <= tolerance * b.norm())


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("skip", [False, True])
def test_autojac(model: nn.Module, x: Tensor, options: dict, skip: bool) -> None:
    """backward and jac_to_grad, with the Jacobian and with the sum of Gramians; the coefficients come back too."""
    twin = expected(model, x, **options)
    aggregator = Aggregator(**options, task_weights=WEIGHTS)
    backward(model.losses(x), inputs=model.parameters())
    coefficients = jac_to_grad(model.parameters(), aggregator, optimize_gramian_computation=skip)
    assert close(flat(model.parameters()), flat(twin.parameters()))
    last = aggregator.gramian_weighting.last
    assert isinstance(last, CAMEGradCoefficients)
    assert torch.equal(coefficients, last.coefficients.float())


@pytest.mark.parametrize("options", OPTIONS)
def test_the_comparison_can_fail(model: nn.Module, x: Tensor, options: dict) -> None:
    """Negative control: other weights, and other options, give another update."""
    twin = expected(model, x, **options)
    for other in ({"task_weights": [4.0, 1.0]}, {"kappa": 3.0}, {"rho": 0.1}):
        aggregator = Aggregator(**({"task_weights": WEIGHTS} | options | other))
        model.zero_grad()
        backward(model.losses(x), inputs=model.parameters())
        jac_to_grad(model.parameters(), aggregator)
        assert not close(flat(model.parameters()), flat(twin.parameters()), 1e-4), other


@pytest.mark.parametrize("options", OPTIONS)
def test_mtl_backward(model: nn.Module, x: Tensor, options: dict) -> None:
    """Shared parameters are aggregated, heads get their own gradients."""
    trunk = list(model.trunk.parameters())
    heads = [list(model.report.parameters()), list(model.disease.parameters())]
    twin = expected(model, x, shared=trunk, **options)
    features = model.trunk(x).tanh()
    losses = [model.report(features).square().mean(), (model.disease(features) - 1).square().mean()]
    mtl_backward(losses, features=features, tasks_params=heads, shared_params=trunk)
    jac_to_grad(trunk, Aggregator(**options, task_weights=WEIGHTS))
    assert close(flat(trunk), flat(twin.trunk.parameters()))
    for head, reference, weight in zip(heads, (twin.report, twin.disease), WEIGHTS, strict=True):
        assert close(flat(head) * weight, flat(reference.parameters()))


def test_weights_by_mtl_backward_are_those_of_the_weighted_centre(model: nn.Module, x: Tensor) -> None:
    """As the docstring says: grad_tensors=ω weights trunk and heads, and is center="weighted", not "mean"."""
    trunk = list(model.trunk.parameters())
    for center, agrees in (("weighted", True), ("mean", False)):
        twin = expected(model, x, shared=trunk, center=center)
        model.zero_grad()
        features = model.trunk(x).tanh()
        losses = [model.report(features).square().mean(), (model.disease(features) - 1).square().mean()]
        mtl_backward(losses, features=features, grad_tensors=list(torch.tensor(WEIGHTS)))
        jac_to_grad(trunk, Aggregator())
        assert close(flat(trunk), flat(twin.trunk.parameters())) == agrees
        assert close(flat(model.report.parameters()), flat(twin.report.parameters()))
        assert close(flat(model.disease.parameters()), flat(twin.disease.parameters()))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("of_samples", [False, True])
def test_autogram(model: nn.Module, x: Tensor, options: dict, of_samples: bool) -> None:
    """The engine's Gramian of two task losses, or of the losses of six samples."""
    twin = copy.deepcopy(model)

    def losses(model: nn.Module) -> Tensor:
        if not of_samples:
            return torch.stack(model.losses(x))
        return model.report(model.trunk(x).tanh()).square().mean(-1)

    used = [p for n, p in model.named_parameters() if not (of_samples and "disease" in n)]
    modules = [model.trunk, model.report] if of_samples else [model]
    weights = [1.0, 2.0, 3.0, 1.0, 0.5, 4.0] if of_samples else WEIGHTS
    inner = CAMEGrad(torch.optim.SGD(twin.parameters(), lr=0.1), **options)
    inner.backward(list(losses(twin)), weights)
    engine = Engine(*modules, batch_dim=0 if of_samples else None)
    found = losses(model)
    weighting = CAMEGradWeighting(**options, task_weights=weights)
    found.backward(weighting(engine.compute_gramian(found)))
    reference = torch.cat([p.grad.reshape(-1) for p in twin.parameters() if p.grad is not None and p.grad.any()])
    assert close(flat(used), reference, 1e-4 if of_samples else 2e-6)


@pytest.mark.parametrize("method", [linear, mgda, pcgrad])
def test_any_aggregator_of_ours(model: nn.Module, x: Tensor, method: Any) -> None:
    twin = copy.deepcopy(model)
    MultiTaskOptimizer(torch.optim.SGD(twin.parameters(), lr=0.1), method).backward(twin.losses(x), WEIGHTS)
    backward(model.losses(x), inputs=model.parameters())
    jac_to_grad(model.parameters(), as_aggregator(method, WEIGHTS), retain_jac=True)
    assert close(flat(model.parameters()), flat(twin.parameters()))
    M = torch.randn(2, 5) @ torch.randn(5, 2) * 0 + torch.tensor([[2.0, -1.0], [-1.0, 3.0]])
    assert torch.equal(as_weighting(method, WEIGHTS)(M), method(M, WEIGHTS).float())


def test_there_and_back_again() -> None:
    """TorchJD's aggregator as ours as TorchJD's again."""
    J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(as_aggregator(torchjd_aggregator("UPGrad"))(J), UPGrad()(J), rtol=1e-12)


def test_base_classes_dtype_device_and_graph() -> None:
    aggregator = Aggregator(rho=0.25, task_weights=[1.0, 2.0])
    assert isinstance(aggregator, GramianWeightedAggregator)
    assert isinstance(aggregator.gramian_weighting, Weighting)
    for dtype in (torch.float32, torch.float64):
        J = torch.ones(2, 3, dtype=dtype, requires_grad=True)
        update = aggregator(J)
        assert update.dtype == dtype
        assert not update.requires_grad
        assert aggregator.gramian_weighting(torch.eye(2, dtype=dtype)).dtype == dtype


def test_the_gramian_of_a_float32_matrix_is_accumulated_in_float64() -> None:
    """1e-30 squares to zero in float32; the coefficients of the matrix know better than those of its own Gramian."""
    J = torch.tensor([[3e-30, 0.0], [-1e-30, 1e-30]])
    aggregator = Aggregator()
    assert close(aggregator(J).double() * 2.0**90, aggregator(J.double() * 2.0**90))
    assert not close(aggregator.gramian_weighting(J @ J.T) @ J * 2.0**90, aggregator(J * 2.0**90), 0.1)


def test_hooks_of_the_weighting_are_run() -> None:
    aggregator = Aggregator()
    aggregator.gramian_weighting.register_forward_hook(lambda module, inputs, output: output * 0)
    assert not aggregator(torch.ones(2, 3)).any()


def test_options_are_shown_and_may_be_assigned() -> None:
    aggregator = Aggregator(nu=0.5)
    shown = "rho=0.5, kappa=1.5, nu=0.5, center='mean', fusion='fixed', task_weights=None"
    assert repr(aggregator) == f"CAMEGrad({shown})"
    assert repr(as_weighting(mgda, [1.0, 2.0])) == "FunctionWeighting(mgda, task_weights=[1.0, 2.0])"
    J = torch.tensor([[1.0, 0.0], [-0.5, 1.0]])
    aggregator.gramian_weighting.nu = 0.2
    assert torch.equal(aggregator(J), Aggregator(nu=0.2)(J))
    aggregator.gramian_weighting.rho = 1.0
    with pytest.raises(ValueError, match=r"rho"):
        aggregator(J)


def test_copies_and_pickles() -> None:
    aggregator, J = Aggregator(task_weights=[1.0, 4.0]), torch.tensor([[1.0, 0.0], [-0.5, 1.0]])
    before = aggregator(J)
    for twin in (copy.deepcopy(aggregator), pickle.loads(pickle.dumps(aggregator))):
        assert torch.equal(twin(J), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 1.0}, "rho"), ({"kappa": 0.5}, "kappa = 0.5"), ({"nu": 2.0}, "nu = 2.0"),
        ({"center": "median"}, "center = 'median'"), ({"fusion": "none"}, "fusion = 'none'"),
        ({"task_weights": [1.0, -1.0]}, r"task_weights\[1\] = -1.0"), ({"task_weights": [0.0]}, "all zero"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Aggregator, CAMEGradWeighting])
def test_bad_options_are_refused_at_once(kind: Any, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="each of the 3 tasks"):
        Aggregator(task_weights=[1.0, 2.0])(torch.ones(3, 2))
    with pytest.raises(ValueError, match="gradient of task 1 is not finite"):
        Aggregator()(torch.tensor([[1.0], [torch.nan]]))
    with pytest.raises(ValueError, match="dimension 2"):
        Aggregator()(torch.ones(3))
    with pytest.raises(ValueError, match=r"\(\.\.\., K, K\)"):
        CAMEGradWeighting()(torch.ones(2, 3))
    with pytest.raises(TypeError, match="needs the gradients themselves"):
        as_weighting(torchjd_aggregator("GradDrop"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="aggregator must be a function"):
        as_aggregator(3)  # type: ignore[arg-type]


def test_it_trains_by_autojac(model: nn.Module, x: Tensor) -> None:
    optimizer, aggregator = torch.optim.Adam(model.parameters(), lr=0.01), Aggregator(task_weights=WEIGHTS)
    before = [loss.item() for loss in model.losses(x)]
    for _ in range(60):
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            backward(model.losses(x), inputs=model.parameters())
            jac_to_grad(model.parameters(), aggregator)
        optimizer.step()
    assert all(loss.item() < 0.5 * start for start, loss in zip(before, model.losses(x), strict=True))
