"""Aligned-MTL against values by hand, and what alignment means."""

from typing import Literal

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given

from optimizers.aggregators._aligned_mtl import aligned_mtl

Mode = Literal["min", "median", "rmse"]
MODES: tuple[Mode, ...] = ("min", "median", "rmse")


@pytest.mark.parametrize(("mode", "square"), [("min", 1.0), ("median", 4.0), ("rmse", 14 / 3)])
def test_orthogonal_gradients_get_the_same_length(mode: Mode, square: float) -> None:
    """M = diag(1, 4, 9): c_i = σω_i/‖g_i‖ with σ² the least, middle and mean eigenvalue."""
    found = aligned_mtl(torch.diag(torch.tensor([1.0, 4.0, 9.0])), [1.0, 2.0, 3.0], scale=mode)
    assert found.tolist() == pytest.approx([square**0.5 * w / n for w, n in ((1, 1), (2, 2), (3, 3))])


@pytest.mark.parametrize(("mode", "square"), [("min", 1.0), ("median", 1.0), ("rmse", 5.0)])
def test_two_correlated_gradients_by_hand(mode: Mode, square: float) -> None:
    """M = ((5,4),(4,5)) has eigenvalues 9 and 1 on (1,1) and (1,−1): M^(−½) = ((2,−1),(−1,2))/3."""
    M = torch.tensor([[5.0, 4.0], [4.0, 5.0]])
    expected = [square**0.5 * (2 * 1 - 4) / 3, square**0.5 * (-1 + 2 * 4) / 3]
    assert aligned_mtl(M, [1.0, 4.0], scale=mode).tolist() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("mode", MODES)
@given(G=zoo.gradients(kinds=("independent", "low_rank", "duplicated", "zero_row", "opposite"), max_tasks=8))
def test_aligned_gradients_have_condition_number_one(mode: Mode, G: zoo.Matrix) -> None:
    """B M B is σ² times the projection on the range of M; B's columns are the answers for one task's weight."""
    M = torch.from_numpy(G @ G.T)
    tasks = len(G)
    B = aligned_mtl(M.expand(tasks, tasks, tasks), torch.eye(tasks), scale=mode)
    eigenvalues = torch.linalg.eigvalsh(M)
    kept = eigenvalues[eigenvalues > 1e-10 * eigenvalues[-1]]
    if not len(kept):
        return
    square = {"min": kept[0], "median": kept.median(), "rmse": kept.mean()}[mode]
    found = torch.linalg.eigvalsh(B @ M @ B.T) / square
    expected = torch.cat([torch.zeros(tasks - len(kept)), torch.ones(len(kept))]).double()
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-7)


@given(G=zoo.gradients(kinds=("independent", "low_rank", "duplicated", "zero_row", "badly_scaled")), seed=zoo.seeds)
def test_the_weighted_loss_descends(G: zoo.Matrix, seed: int) -> None:
    weights = np.random.default_rng(seed).uniform(0, 4, size=len(G))
    u = aligned_mtl(torch.from_numpy(G @ G.T), torch.from_numpy(weights)).numpy() @ G
    joint = weights @ G
    assert joint @ u >= -1e-12 * np.linalg.norm(joint) * np.linalg.norm(G, axis=1).max()


def test_a_task_may_be_harmed() -> None:
    """Why non-conflict is not claimed: ω = (1, 4) on the example above gives g₁ᵀu = (M c)₁ < 0 for (5, −4)."""
    M = torch.tensor([[5.0, -4.0], [-4.0, 5.0]]).double()
    assert (M @ aligned_mtl(M, [1.0, 4.0]))[0] < 0


def test_degenerate_gradients() -> None:
    """Duplicates share and count once more each; opposite ones cancel; a zero one keeps 0; no gradient at all: ω."""
    for rows, coefficients in (
        ([[1, 0], [1, 0]], [1, 1]),
        ([[1, 0], [-1, 0]], [0, 0]),
        ([[3, 0], [0, 0]], [1, 0]),
        ([[0, 0], [0, 0]], [1, 1]),
    ):
        G = torch.tensor(rows).double()
        assert aligned_mtl(G @ G.T).tolist() == pytest.approx(coefficients, abs=1e-12), rows


def test_the_length_jumps_with_the_rank() -> None:
    """As stated: an angle of 1e-5 between two unit gradients, resolved, gives σ ≈ 7e-6; none gives √2."""

    def length(angle: float) -> float:
        G = torch.tensor([[1.0, 0.0], [np.cos(angle), np.sin(angle)]]).double()
        return float((aligned_mtl(G @ G.T) @ G).norm())

    assert length(1e-5) == pytest.approx(1e-5, rel=1e-5)
    assert length(0.0) == pytest.approx(2.0)


def test_unknown_scale_is_named() -> None:
    with pytest.raises(ValueError, match="scale = 'max' must be 'min', 'median' or 'rmse'"):
        aligned_mtl(torch.eye(2), scale="max")  # type: ignore[arg-type]
