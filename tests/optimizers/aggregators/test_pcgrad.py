"""PCGrad against the published algorithm in rational arithmetic, in every order that can be chosen."""

import importlib
from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st

from optimizers import gramian, pcgrad

INTEGERS = [
    [[3, 1, 0, -2], [-1, 2, 1, 1], [-2, -1, 1, 0]],
    [[1, 0, 0, 0], [-1, 1, 0, 0], [0, -1, 1, 0], [0, 0, -1, 1]],
    [[2, -1, 1, 0], [-2, 0, 1, 3], [1, 1, -4, 1], [0, 0, 0, 0]],
]
"""Gradients that conflict often enough for every order to give another update."""


def published(G: Sequence[Sequence[int]], orders: Sequence[Sequence[int]]) -> list[Fraction]:
    """Algorithm 1 on vectors, task i visiting the others in ``orders[i]``, exactly."""
    rows = [[Fraction(x) for x in row] for row in G]
    total = [Fraction(0)] * len(rows[0])
    for i, order in enumerate(orders):
        g = rows[i]
        for j in order:
            product = sum((a * b for a, b in zip(g, rows[j], strict=True)), Fraction(0))
            if j != i and product < 0:
                square = sum(b * b for b in rows[j])
                g = [a - product / square * b for a, b in zip(g, rows[j], strict=True)]
        total = [a + b for a, b in zip(total, g, strict=True)]
    return total


def expected(G: Sequence[Sequence[int]]) -> list[Fraction]:
    """The mean of the published algorithm over all orders, the same for all tasks: a sum of means, one a task."""
    orders = list(permutations(range(len(G))))
    updates = [published(G, [order] * len(G)) for order in orders]
    return [sum(column, Fraction(0)) / len(orders) for column in zip(*updates, strict=True)]


def update(G: Sequence[Sequence[int]], **options: object) -> list[float]:
    rows = torch.tensor(G).double()
    return (pcgrad(rows @ rows.T, **options) @ rows).tolist()  # type: ignore[arg-type]


def test_two_tasks_by_hand() -> None:
    """g₁ = (1,0), g₂ = (−1,1): g₁ + ½g₂ and g₂ + g₁; with ω = (2,1): 2g₁ + g₂ and g₂ + g₁."""
    M = torch.tensor([[1.0, -1.0], [-1.0, 2.0]])
    assert pcgrad(M).tolist() == [2.0, 1.5]
    assert pcgrad(M, [2.0, 1.0]).tolist() == [3.0, 2.0]


@pytest.mark.parametrize("G", INTEGERS)
def test_every_order_is_the_published_algorithm(G: list[list[int]]) -> None:
    tasks = len(G)
    assert update(G) == pytest.approx([float(x) for x in published(G, [range(tasks)] * tasks)], rel=1e-14, abs=1e-14)
    backwards = range(tasks)[::-1]
    exact = [float(x) for x in published(G, [backwards] * tasks)]
    assert update(G, order="reversed") == pytest.approx(exact, rel=1e-14, abs=1e-14)
    for order in permutations(range(tasks)):
        exact = [float(x) for x in published(G, [order] * tasks)]
        assert update(G, order=order) == pytest.approx(exact, rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("G", INTEGERS)
def test_the_expectation_is_the_mean_over_all_orders(G: list[list[int]]) -> None:
    exact = [float(x) for x in expected(G)]
    assert update(G, order="expectation") == pytest.approx(exact, rel=1e-13, abs=1e-14)
    assert update(G) != pytest.approx(exact, rel=1e-3), "negative control: one order is not the mean"


def test_random_orders_average_to_the_expectation() -> None:
    """4,000 draws within 5 standard errors; the tasks' order is further away."""
    G = torch.tensor(INTEGERS[0]).double()
    M = G @ G.T
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([pcgrad(M, generator=generator) for _ in range(4000)])
    mean, error = draws.mean(0), draws.std(0) / len(draws) ** 0.5
    assert ((mean - pcgrad(M, order="expectation")).abs() <= 5 * error + 1e-12).all()
    assert ((mean - pcgrad(M)).abs() > 5 * error).any()


@given(seed=zoo.seeds)
def test_three_tasks_have_two_orders_each(seed: int) -> None:
    """So the expectation is the mean of the tasks' order and its reverse."""
    G = zoo.sample("independent", 3, seed)
    M = torch.from_numpy(G @ G.T)
    both = (pcgrad(M) + pcgrad(M, order="reversed")) / 2
    assert torch.allclose(pcgrad(M, order="expectation"), both, rtol=1e-12, atol=1e-12)


@given(G=zoo.gradients(max_tasks=6), seed=zoo.seeds)
def test_permuting_the_tasks_permutes_the_order(G: zoo.Matrix, seed: int) -> None:
    """And the expectation depends on no order at all."""
    place = np.random.default_rng(seed).permutation(len(G))
    M = torch.from_numpy(G @ G.T)
    permuted = M[place][:, place]
    size = np.abs(G).max()
    for order, other in (("expectation", "expectation"), (range(len(G)), np.argsort(place).tolist())):
        plain = pcgrad(M, order=order)[place] @ torch.from_numpy(G[place])  # type: ignore[arg-type]
        again = pcgrad(permuted, order=other) @ torch.from_numpy(G[place])  # type: ignore[arg-type]
        assert (plain - again).norm() <= 1e-8 * size * len(G)


@given(G=zoo.gradients(max_tasks=2), weights=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)))
def test_two_tasks_are_not_harmed(G: zoo.Matrix, weights: tuple[float, float]) -> None:
    c = pcgrad(torch.from_numpy(G @ G.T), weights[: len(G)]).numpy()
    size = np.linalg.norm(G, axis=1).max() ** 2 * max(weights)
    assert (G @ (c @ G)).min() >= -1e-12 * size


def test_three_tasks_may_be_harmed() -> None:
    """Why nothing is claimed for more: the second projection brings the first conflict back."""
    G = torch.tensor([[1.0, 0.0], [-1.0, 0.2], [-0.2, -1.0]]).double()
    harmed = []
    for order in ("tasks", "reversed", "expectation"):
        harmed.append(float((G @ (pcgrad(G @ G.T, order=order) @ G)).min()))  # type: ignore[arg-type]
    assert min(harmed) < -0.1


def test_large_batches_are_taken_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    G = torch.randn(7, 5, 6, dtype=torch.float64)
    whole = pcgrad(gramian(G), order="expectation")
    monkeypatch.setattr(importlib.import_module("optimizers.aggregators._pcgrad"), "CHUNK", 100)
    assert torch.allclose(pcgrad(gramian(G), order="expectation"), whole, rtol=1e-12, atol=1e-12)


def test_bad_orders_are_named() -> None:
    M = torch.eye(3)
    with pytest.raises(ValueError, match=r"order = \[0, 0, 1\] must be a permutation of 0 … 2"):
        pcgrad(M, order=[0, 0, 1])
    with pytest.raises(ValueError, match="order = 'random' must be 'tasks', 'reversed', 'expectation'"):
        pcgrad(M, order="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes 8 tasks at most, got 9"):
        pcgrad(torch.eye(9), order="expectation")
    with pytest.raises(ValueError, match="pass one"):
        pcgrad(M, order="reversed", generator=torch.Generator())
