"""TorchJD's test properties, over its kinds of matrices and scales, for CAME-Grad as TorchJD's aggregator.

The kinds: any matrix with more and fewer rows than columns, of full and of lower rank, zero, strongly stationary,
weakly but not strongly stationary, not stationary. The scales: 0, 1e-10, 1e3, 1e5, 1e10, 1e15.
"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("torchjd", reason="TorchJD is not installed: pip install 'sde-mtl[peers]'")

from optimizers.testing import strategies
from optimizers.torchjd import CAMEGrad

SCALES = (0.0, 1e-10, 1.0, 1e3, 1e5, 1e10, 1e15)
TYPICAL = (
    "integer_matrices", "rank_deficient", "with_zero_rows", "strongly_stationary", "weakly_stationary",
    "non_stationary", "real_matrices",
)  # fmt: skip
NOT_STRONG = ("weakly_stationary", "non_stationary")
VARIANTS: list[dict[str, Any]] = [
    {}, {"center": "weighted"}, {"nu": 0.0}, {"nu": 0.8, "fusion": "adaptive"}, {"rho": 0.9, "kappa": 3.0, "nu": 0.6},
]  # fmt: skip


def tensors(*kinds: str) -> Any:
    return strategies.gradients(kinds or TYPICAL, tasks=(1, 7)).map(torch.from_numpy)


def size(G: Tensor) -> float:
    return float(torch.linalg.vector_norm(G, dim=1).max())


def resolved(G: Tensor, *vectors: Tensor) -> bool:
    """Whether a float64 Gramian can say something of each vector."""
    return all(float(v.norm()) > 1e-5 * size(G) for v in vectors)


@pytest.mark.parametrize("options", VARIANTS)
@given(G=tensors(), scale=st.sampled_from(SCALES), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_expected_structure(options: dict, G: Tensor, scale: float, dtype: torch.dtype) -> None:
    update = CAMEGrad(**options)((scale * G).to(dtype))
    assert update.shape == G.shape[1:]
    assert update.dtype == dtype
    assert update.isfinite().all()


@pytest.mark.parametrize("options", [{"nu": 0.0}, {"nu": 0.8, "fusion": "adaptive"}])
@given(G=tensors(), scale=st.sampled_from(SCALES))
def test_non_conflicting_where_the_certificate_says_so(options: dict, G: Tensor, scale: float) -> None:
    """TorchJD's property J·A(J) ≥ 0, exactly where ``last.valid``: u* harms nobody, and adaptive fusion keeps it so."""
    aggregator = CAMEGrad(**options)
    G = scale * G
    update = aggregator(G)
    last = aggregator.gramian_weighting.last
    rectified = last.rectified @ G
    assume(scale == 0 or resolved(G, G.mean(0)))
    rounding = 1e-9 * size(G)
    assert bool(last.valid) == bool((G @ rectified >= -rounding * rectified.norm()).all())
    if last.valid:
        assert (G @ update >= -rounding * update.norm()).all()


@pytest.mark.parametrize(
    ("options", "G"),
    [
        ({"nu": 0.0}, [[1.0], [-10.0]]),
        ({"fusion": "adaptive"}, [[1.0], [-10.0]]),
        ({"rho": 0.25, "kappa": 1.0, "nu": 0.9, "task_weights": [0.8, 0.2]}, [[-2.0, -2.0], [-1.0, 2.0]]),
    ],
)
def test_non_conflicting_is_not_claimed_elsewhere(options: dict, G: list) -> None:
    """Without a certificate (theory T5), or with fixed fusion despite one, a task is harmed."""
    J = torch.tensor(G, dtype=torch.float64)
    aggregator = CAMEGrad(**options)
    assert (J @ aggregator(J) < -0.1).any()
    assert bool(aggregator.gramian_weighting.last.valid) == (len(J[0]) == 2)


@pytest.mark.parametrize("options", VARIANTS)
@given(G=tensors(*strategies.EXACT), seed=st.integers(0, 99), scale=st.sampled_from(SCALES))
def test_permutation_invariant(options: dict, G: Tensor, seed: int, scale: float) -> None:
    weights = torch.arange(1.0, len(G) + 1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(G)))
    plain = CAMEGrad(**options, task_weights=weights)(scale * G)
    permuted = CAMEGrad(**options, task_weights=weights[order])(scale * G[order])
    joint = scale * weights.double() @ G
    assume(not G.any() or scale == 0 or (resolved(G, G.mean(0)) and float(joint.norm()) > 1e-5 * scale * size(G)))
    assert (plain - permuted).norm() <= 1e-6 * max(float(plain.norm()), scale * size(G))


@pytest.mark.parametrize("options", VARIANTS)
@given(G=tensors(), exponent=st.integers(-40, 40))
def test_positively_homogeneous(options: dict, G: Tensor, exponent: int) -> None:
    """A(cJ) = cA(J) for c > 0, to the last bit where c is a power of two."""
    aggregator = CAMEGrad(**options)
    assert torch.equal(aggregator(2.0**exponent * G), 2.0**exponent * aggregator(G))


def scaled(options: dict, G: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """TorchJD's property: A(diag(αc1 + βc2)J) and αA(diag(c1)J) + βA(diag(c2)J)."""
    rng = torch.Generator().manual_seed(seed)
    c1, c2 = torch.rand(2, len(G), 1, generator=rng, dtype=torch.float64)
    a, b = torch.rand(2, generator=rng, dtype=torch.float64)
    aggregator = CAMEGrad(**options)
    return aggregator((a * c1 + b * c2) * G), a * aggregator(c1 * G) + b * aggregator(c2 * G)


@given(G=tensors(), seed=st.integers(0, 99), scale=st.sampled_from(SCALES))
def test_linear_under_scaling_where_nothing_but_the_joint_gradient_is_left(G: Tensor, seed: int, scale: float) -> None:
    together, apart = scaled({"nu": 1.0}, scale * G, seed)
    assert (together - apart).norm() <= 1e-12 * scale * size(G) * len(G)


@pytest.mark.parametrize("options", VARIANTS)
def test_linear_under_scaling_is_not_claimed_elsewhere(options: dict) -> None:
    together, apart = scaled(options, torch.eye(3, dtype=torch.float64), 0)
    assert (together - apart).norm() > 1e-3 * together.norm()


@pytest.mark.parametrize("options", VARIANTS)
@given(G=tensors(*NOT_STRONG))
def test_strongly_stationary(options: dict, G: Tensor) -> None:
    """A(J) = 0 only where some w > 0 has wᵀJ = 0: here, where there is none, the update is no rounding error."""
    assert CAMEGrad(**options)(G).norm() > 5e-3


@pytest.mark.parametrize(
    ("options", "G"),
    [
        ({"task_weights": [1.0, 1.0, 0.0]}, [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]),
        ({"nu": 0.5, "task_weights": [1.0, 9.0], "rho": 0.0}, [[-3.0], [1.0]]),
    ],
)
def test_strong_stationarity_needs_what_the_docstring_says(options: dict, G: list) -> None:
    """A weight of zero, or ν = ½ with unequal weights: A vanishes, in the second case far from g_J = 0."""
    J = torch.tensor(G, dtype=torch.float64)
    assert CAMEGrad(**options)(J).norm() < 1e-12


def test_stateless() -> None:
    aggregator, J = CAMEGrad(), torch.randn(3, 5, dtype=torch.float64)
    first = aggregator(J)
    aggregator(torch.ones(2, 2))
    assert torch.equal(aggregator(J), first)
    assert not hasattr(aggregator, "reset")
