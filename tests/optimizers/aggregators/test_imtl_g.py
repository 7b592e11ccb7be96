"""IMTL-G against rational arithmetic, and what it does where its equation has no solution."""

import numpy as np
import pytest
import sympy
import torch
import zoo
from hypothesis import assume, given
from hypothesis import strategies as st

from optimizers.aggregators._imtl_g import imtl_g

WHOLE = [
    [[3, 4, 0], [0, 3, 4], [1, 2, 2]],
    [[3, 4, 0], [0, -3, 4], [1, 2, 2]],
    [[2, 1, 2, 0], [0, 3, 0, 4], [4, 0, -3, 0], [1, -1, 1, 1]],
]
"""Independent gradients with whole norms: 5, 5, 3; …; 3, 5, 5, 2."""


def exact(G: list[list[int]]) -> list[float]:
    """The paper's equations u^T(u_1 − u_i) = 0 and Σα = 1, solved for α by sympy in rational numbers."""
    rows = [sympy.Matrix(row) for row in G]
    units = [row / sympy.sqrt(row.dot(row)) for row in rows]
    assert all(x.is_rational for unit in units for x in unit)
    alpha = sympy.symbols(f"a:{len(G)}")
    u = sum((a * g for a, g in zip(alpha, rows, strict=True)), sympy.zeros(len(G[0]), 1))
    equations = [u.dot(units[0] - unit) for unit in units[1:]]
    solution = sympy.solve([*equations, sum(alpha) - 1], alpha, dict=True)[0]
    return [float(solution[a]) for a in alpha]


@pytest.mark.parametrize("G", WHOLE)
def test_golden_values(G: list[list[int]]) -> None:
    rows = torch.tensor(G).double()
    assert imtl_g(rows @ rows.T).tolist() == pytest.approx(exact(G), rel=1e-13)


def test_golden_values_by_hand() -> None:
    """Orthogonal: α_i ∝ 1/‖g_i‖. Two tasks: the same, whatever their angle. Weights: α_iω_i with α_i ∝ 1/(ω_i‖g_i‖)."""
    assert imtl_g(torch.diag(torch.tensor([1.0, 4.0, 16.0]))).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    for cross in (-8.0, 0.0, 8.0):
        M = torch.tensor([[25.0, cross], [cross, 4.0]])
        assert imtl_g(M).tolist() == pytest.approx([2 / 7, 5 / 7])
        assert imtl_g(M, [2.0, 1.0]).tolist() == pytest.approx([2 / 6, 5 / 6])


@given(
    G=zoo.gradients(kinds=("independent", "badly_scaled", "zero_row"), max_tasks=8),
    seed=zoo.seeds,
    exponent=zoo.exponents,
)
def test_projections_are_equal_and_the_shares_add_up_to_one(G: zoo.Matrix, seed: int, exponent: int) -> None:
    weights = np.random.default_rng(seed).uniform(0.1, 4, size=len(G))
    G = G * 10.0**exponent
    c = imtl_g(torch.from_numpy(G @ G.T), torch.from_numpy(weights)).numpy()
    norms = np.linalg.norm(G, axis=1)
    assume((norms > 0).any() and np.abs(c).max() < 1e6)
    units = G[norms > 0] / norms[norms > 0, None]
    projections = units @ (c @ G)
    assert (c / weights).sum() == pytest.approx(1, abs=1e-9)
    size = np.abs(c) @ norms
    assert np.ptp(projections) <= 1e-11 * size * np.linalg.cond(units @ units.T) ** 0.5


@given(seed=zoo.seeds, tasks=st.integers(2, 6), factors=st.lists(st.floats(0.01, 100), min_size=6, max_size=6))
def test_the_direction_does_not_depend_on_the_length_of_any_gradient(
    seed: int, tasks: int, factors: list[float]
) -> None:
    G = zoo.sample("independent", tasks, seed)
    scaled = G * np.array(factors[:tasks])[:, None]
    directions = []
    for rows in (G, scaled):
        u = imtl_g(torch.from_numpy(rows @ rows.T)).numpy() @ rows
        directions.append(u / np.linalg.norm(u))
    assert abs(directions[0] @ directions[1]) == pytest.approx(1, abs=1e-9)


def test_singular_gramians() -> None:
    """Duplicates share; where the units' affine hull holds 0 only 0 is left; a zero row takes no part."""
    cases: list[tuple[list[list[float]], list[float]]] = [
        ([[1, 0], [1, 0]], [0.5, 0.5]),
        ([[1, 0], [2, 0]], [2 / 3, 1 / 3]),
        ([[1, 0], [0, 1], [0, 1]], [0.5, 0.25, 0.25]),
        ([[1, 0], [-2, 0]], [0, 0]),
        ([[1, 0], [0, 1], [-1, 0]], [0, 0, 0]),
        ([[3, 0], [0, 0]], [1, 0]),
        ([[0, 0], [0, 0]], [0, 0]),
    ]
    for rows, coefficients in cases:
        G = torch.tensor(rows).double()
        assert imtl_g(G @ G.T).tolist() == pytest.approx(coefficients, abs=1e-12), rows


def test_nearly_parallel_gradients_tend_to_what_parallel_ones_give() -> None:
    """The least ‖β‖ among the solutions is the limit; TorchJD's pseudo-inverse of M gives (1/3, 2/3) instead."""
    for angle in (1e-2, 1e-4, 1e-6):
        G = torch.tensor([[1.0, 0.0], [2 * np.cos(angle), 2 * np.sin(angle)]]).double()
        assert imtl_g(G @ G.T).tolist() == pytest.approx([2 / 3, 1 / 3], rel=1e-9)


def test_it_turns_against_all_tasks_where_the_paper_does() -> None:
    """Σβ_j/‖g_j‖ < 0 for a short gradient that β counts negative; with all norms equal the sum is positive."""
    G = torch.tensor([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1], [0.8, 0.8, 0.3]]).double()
    G = G / G.norm(dim=1, keepdim=True)
    assert (G @ (imtl_g(G @ G.T) @ G) > 0).all()
    G[2] *= 0.2
    assert (G @ (imtl_g(G @ G.T) @ G) < 0).all()


def test_no_solution_gives_zero() -> None:
    """Norms for which Σβ_j/‖g_j‖ vanishes: coefficients 0 rather than inf; a little beside it they are large."""
    G = torch.tensor([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1], [0.8, 0.8, 0.3]]).double()
    G = G / G.norm(dim=1, keepdim=True)
    beta = torch.linalg.solve(G @ G.T, torch.ones(3).double())
    G[2] *= -beta[2] / (beta[0] + beta[1])
    assert imtl_g(G @ G.T).tolist() == [0, 0, 0]
    G[2] *= 1 + 1e-6
    assert imtl_g(G @ G.T).abs().max() > 1e4
