import cvxpy
import numpy as np
import pytest
import torch
import zoo
from hypothesis import given

from optimizers import cagrad, came_grad, gramian, mgda, oracle, pcgrad


@given(G=zoo.gradients(max_tasks=10))
def test_mgda_harms_no_task_and_is_the_nearest_point(G: zoo.Matrix) -> None:
    """Optimality of the minimum-norm point v: g_iᵀv ≥ ‖v‖² for every i."""
    alpha = mgda(torch.from_numpy(G @ G.T)).numpy()
    v = alpha @ G
    largest = np.linalg.norm(G, axis=1).max()
    assert alpha.sum() == pytest.approx(1)
    assert (alpha >= 0).all()
    assert (G @ v).min() >= v @ v - 1e-7 * largest**2


def test_mgda_agrees_with_cvxpy() -> None:
    for seed in range(20):
        G = zoo.sample("independent", 5, seed)
        alpha = cvxpy.Variable(5, nonneg=True)
        cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(G.T @ alpha)), [cvxpy.sum(alpha) == 1]).solve(cvxpy.CLARABEL)
        assert mgda(torch.from_numpy(G @ G.T)).numpy() @ G == pytest.approx(alpha.value @ G, abs=1e-4)


def test_cagrad_is_the_first_stage_of_came_grad() -> None:
    """Against the cone program, and against came_grad with equal weights."""
    for seed in range(20):
        G = zoo.sample("independent", 4, seed)
        direction = cagrad(torch.from_numpy(G @ G.T), c=0.4).numpy() @ G
        assert direction == pytest.approx(oracle.primal(G, 0.4)[0], abs=5e-5)
        assert direction == pytest.approx(came_grad(torch.from_numpy(G), rho=0.4).rectified.numpy(), abs=1e-12)


def published_pcgrad(G: zoo.Matrix) -> zoo.Matrix:
    """The algorithm as published, on vectors, in the tasks' order."""
    total = np.zeros(G.shape[1])
    for i in range(len(G)):
        g = G[i].copy()
        for j in range(len(G)):
            if i != j and g @ G[j] < 0:
                g = g - (g @ G[j]) / (G[j] @ G[j]) * G[j]
        total += g
    return total


def test_pcgrad_is_the_published_algorithm() -> None:
    G = np.stack([zoo.sample("independent", 5, seed) for seed in range(50)])
    M = gramian(torch.from_numpy(G))
    updates = np.einsum("nk,nkd->nd", pcgrad(M).numpy(), G)
    assert updates == pytest.approx(np.stack([published_pcgrad(g) for g in G]), rel=1e-9)
    shuffled = pcgrad(M, generator=torch.Generator().manual_seed(0)).numpy()
    assert not np.allclose(shuffled, pcgrad(M).numpy()), "the order matters for K > 2"


@pytest.mark.parametrize("aggregator", [mgda, pcgrad, cagrad])
def test_all_share_one_signature(aggregator) -> None:
    M = gramian(torch.randn(3, 2, 4, 6))
    assert aggregator(M, [1.0, 2.0, 0.5, 1.0]).shape == (3, 2, 4)
    assert torch.allclose(aggregator(M)[1, 0], aggregator(M[1, 0]), atol=1e-9)
    scaled = aggregator(M, torch.full((4,), 3.0).double())
    factor = 3.0
    assert torch.allclose(scaled, factor * aggregator(M), atol=1e-9)
    with pytest.raises(ValueError, match=r"task_weights\[1\] = -1.0"):
        aggregator(M, [1.0, -1.0, 1.0, 1.0])
