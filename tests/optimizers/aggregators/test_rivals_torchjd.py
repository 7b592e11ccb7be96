"""Agreement with TorchJD's implementation of the same methods; where they differ, their epsilons say by how much."""

import warnings
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from optimizers import cagrad, mgda, pcgrad
from optimizers.aggregators._aligned_mtl import aligned_mtl
from optimizers.aggregators._imtl_g import imtl_g
from optimizers.aggregators._nash_mtl import nash_mtl

aggregation = pytest.importorskip(
    "torchjd.aggregation", reason="TorchJD is not installed: pip install 'sde-mtl[peers]'"
)
TASKS = range(2, 9)


def jacobians(scale: float = 1.0) -> list[Tensor]:
    return [scale * torch.from_numpy(zoo.sample("independent", tasks, seed)) for tasks in TASKS for seed in range(4)]


def theirs(method: Any, M: Tensor) -> Tensor:
    return method.gramian_weighting(M)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_imtl_g(scale: float) -> None:
    """The pseudo-inverse of an independent set's Gramian is its inverse."""
    for J in jacobians(scale):
        M = J @ J.T
        condition = float(torch.linalg.cond(M))
        assert torch.allclose(imtl_g(M), theirs(aggregation.IMTLG(), M), rtol=1e-14 * condition, atol=1e-14 * condition)


def test_imtl_g_of_torchjd_stops_at_large_gradients() -> None:
    """It takes |Σv| < 1e-12, v = M⁺d ~ 1/‖g‖, for zero."""
    J = jacobians(1e13)[0]
    M = J @ J.T
    assert (theirs(aggregation.IMTLG(), M) == 0).all()
    assert torch.allclose(imtl_g(M), imtl_g(M * 1e-26), rtol=1e-12)


@pytest.mark.parametrize("mode", ["min", "median", "rmse"])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_aligned_mtl(mode: Any, scale: float) -> None:
    """Their preference vector is our task weights; without one they take 1/K, we take ones."""
    for J in jacobians(scale):
        M = J @ J.T
        weights = torch.arange(1.0, len(M) + 1).double()
        method = aggregation.AlignedMTL(pref_vector=weights, scale_mode=mode)
        assert torch.allclose(aligned_mtl(M, weights, scale=mode), theirs(method, M), rtol=1e-10, atol=1e-10)
        default = theirs(aggregation.AlignedMTL(scale_mode=mode), M)
        assert torch.allclose(aligned_mtl(M, scale=mode), len(M) * default, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["independent", "low_rank", "opposite", "stationary"])
def test_pcgrad(kind: str) -> None:
    """With the same stream of random orders the coefficients are the same, for singular Gramians too."""
    for tasks in TASKS:
        for seed in range(4):
            J = torch.from_numpy(zoo.sample(kind, tasks, seed))
            M = J @ J.T
            torch.manual_seed(seed)
            expected = theirs(aggregation.PCGrad(), M) @ J
            found = pcgrad(M, generator=torch.Generator().manual_seed(seed)) @ J
            assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["independent", "low_rank", "duplicated", "badly_scaled"])
def test_mgda_is_within_the_gap_of_their_frank_wolfe(kind: str) -> None:
    """For any α on the simplex ‖v_α − v*‖² ≤ ‖v_α‖² − min_i g_iᵀv_α: theirs stops 1e-3 before; ours does not."""
    further = 0
    for tasks in TASKS:
        J = torch.from_numpy(zoo.sample(kind, tasks, 0))
        M = J @ J.T
        alpha, ours = theirs(aggregation.MGDA(), M), mgda(M)
        gap = alpha @ M @ alpha - (M @ alpha).min()
        distance = (alpha - ours) @ M @ (alpha - ours)
        rounding = 1e-13 * M.diagonal().max()
        assert distance <= gap + rounding
        assert ours @ M @ ours <= alpha @ M @ alpha + rounding
        further += int(gap > 1e-6 * M.diagonal().max())
    assert further > 0 or kind == "badly_scaled", "their answer is not exact"


def test_cagrad() -> None:
    """Their interior-point solver reaches 1e-8 of the objective, 1e-4 of its argument."""
    for J in jacobians():
        M = J @ J.T
        expected, found = theirs(aggregation.CAGrad(c=0.4), M) @ J, cagrad(M, c=0.4) @ J
        assert (found - expected).norm() <= 2e-4 * expected.norm()
        assert (J @ found).min() >= (J @ expected).min() - 1e-7 * M.diagonal().max()


def test_cagrad_of_torchjd_stops_at_small_gradients() -> None:
    """A Gramian with trace < norm_eps = 1e-4 counts as zero; ours is homogeneous."""
    J = jacobians(1e-4)[0]
    M = J @ J.T
    assert (theirs(aggregation.CAGrad(c=0.4), M) == 0).all()
    assert torch.allclose(cagrad(M, c=0.4), cagrad(M * 1e8, c=0.4), rtol=1e-9)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_nash_mtl(tasks: int) -> None:
    """Their steps stop before rounding does, and far before near singular Gramians.

    a ↦ Ma − 1/a is strongly monotone with λ_min(M) + min 1/(α_iα'_i), so that their residual bounds the difference.
    """
    pytest.importorskip("ecos")
    for seed in range(2):
        J = torch.from_numpy(zoo.sample("independent", tasks, seed))
        M = J @ J.T
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are solving a parameterized problem that is not DPP", UserWarning)
            alpha = aggregation.NashMTL(n_tasks=tasks, max_norm=0.0).weighting(J).double()
        ours = nash_mtl(M)
        residual = (M @ alpha - 1 / alpha).norm()
        modulus = torch.linalg.eigvalsh(M)[0] + (1 / (alpha * ours)).min()
        assert (alpha - ours).norm() <= residual / modulus + 1e-12
        assert residual < 1e-3
        assert (M @ ours - 1 / ours).norm() < 1e-12 < residual
