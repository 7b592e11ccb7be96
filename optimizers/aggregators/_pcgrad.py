"""PCGrad: project each gradient off those it conflicts with (Yu et al., NeurIPS 2020, arXiv:2001.06782)."""

from collections.abc import Sequence
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor

from optimizers.aggregators.base import scaled

MOST_TASKS = 8
"""For order="expectation": (K−1)! orders a task, 5,040 at 8 tasks."""
CHUNK = 1 << 20
Order = Literal["tasks", "reversed", "expectation"] | Sequence[int]


def pcgrad(
    gramian: Tensor,
    task_weights: Tensor | Sequence[float] | None = None,
    *,
    order: Order = "tasks",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Coefficients of the sum of the mutually projected gradients ω_ig_i.

    Algorithm 1 of Yu et al.: each task starts with :math:`g = ω_ig_i`, visits the other tasks j and, where
    :math:`g^⊤g_j < 0`, replaces g by :math:`g - (g^⊤g_j/‖g_j‖²)g_j`; the update is the sum of the results. The paper
    draws a new order for each task and step.

    * Weights: the method sees ω_i g_i. A task j of weight zero contributes nothing and is not projected on.
    * No assumption on G. For K = 2 the order plays no part and the update harms no task; for K > 2 a later projection
      can bring back a conflict with an earlier task, and the update may harm one.
    * Zero where two gradients are opposite and nothing else acts. Other Pareto-stationary points are not recognized.
    * A zero gradient is skipped. Duplicates are projected alike and count twice. A singular Gramian is no special case.
    * The coefficients do not change when all gradients are scaled: F is homogeneous of degree one, and continuous where
      no gradient vanishes.
    * Equivariant under permutations of the tasks with ``order="expectation"``, and for K = 2.
    * Cost: O(K³); with "expectation" (K−1)! times as much, hence K ≤ 8 only. For more tasks average calls with a
      ``generator``: the error of n of them falls as 1/√n.

    Args:
        gramian: (..., K, K) float32 or float64; computed in float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.
        order: in which a task visits the others: that of the "tasks", which makes the result a function of the
            Gramian, "reversed", any permutation of 0 … K−1, or the "expectation" over all orders, drawn for each
            task independently, which is the mean of the paper's random update.
        generator: on the CPU; draws the order for each task anew, as in the paper, the same for the whole batch.

    Returns:
        (..., K) float64.

    Raises:
        ValueError: for a matrix that is no Gramian, bad weights, an order that is no permutation, an order beside a
            generator, or the expectation for more than 8 tasks.

    Example:
        Orthogonal gradients stay; opposite ones cancel:

        >>> pcgrad(torch.eye(2))
        tensor([1., 1.], dtype=torch.float64)
        >>> M = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> pcgrad(M) @ M.double() @ pcgrad(M)
        tensor(0., dtype=torch.float64)
    """
    problem = scaled(gramian, task_weights)
    M = problem.weighted_gramian()
    tasks = M.shape[-1]
    orders = _orders(order, tasks, generator).to(M.device)
    starts = torch.arange(tasks, device=M.device)[:, None].expand(orders.shape[:2]).flatten()
    total = torch.zeros_like(problem.weights)
    width = max(1, CHUNK // max(1, total.numel()))
    for start, visits in zip(starts.split(width), orders.flatten(0, 1).split(width), strict=True):
        total += _projected(M, start, visits).sum(-2)
    return total / orders.shape[1] * problem.weights * problem.unit


def _projected(M: Tensor, start: Tensor, visits: Tensor) -> Tensor:
    """Coefficients (..., n, K) of the gradients of the tasks ``start``, (n,), after their ``visits``, (n, K−1)."""
    tasks = M.shape[-1]
    coefficients = torch.nn.functional.one_hot(start, tasks).to(M.dtype).expand(*M.shape[:-2], -1, -1)
    squares = M.diagonal(dim1=-2, dim2=-1)
    for other in visits.unbind(-1):
        product = (coefficients * M[..., other, :]).sum(-1)
        square = squares[..., other]
        conflict = (product < 0) & (square > 0)
        removed = torch.where(conflict, product / torch.where(square > 0, square, 1.0), 0.0)
        index = other[:, None].expand(*removed.shape, 1)
        coefficients = coefficients.scatter_add(-1, index, -removed[..., None])
    return coefficients


def _orders(order: Order, tasks: int, generator: torch.Generator | None) -> Tensor:
    """(K, n, K−1), the n orders in which each task visits the others."""
    if not isinstance(order, str):
        order = [int(i) for i in order]
    if generator is not None:
        if order != "tasks":
            raise ValueError(f"order = {order!r} and a generator were given; the generator draws the order, pass one")
        return _without_own([torch.randperm(tasks, generator=generator).tolist() for _ in range(tasks)])
    if order == "expectation":
        if tasks > MOST_TASKS:
            raise ValueError(
                f"order = 'expectation' takes {MOST_TASKS} tasks at most, got {tasks}: each has (K-1)! orders; "
                "average several calls with a generator instead"
            )
        others = [[i for i in range(tasks) if i != task] for task in range(tasks)]
        return torch.tensor([list(permutations(rest)) for rest in others], dtype=torch.int64)
    if isinstance(order, str):
        if order not in ("tasks", "reversed"):
            raise ValueError(f"order = {order!r} must be 'tasks', 'reversed', 'expectation' or a permutation")
        visits = list(range(tasks))[:: 1 if order == "tasks" else -1]
    elif sorted(order) == list(range(tasks)):
        visits = list(order)
    else:
        raise ValueError(f"order = {order} must be a permutation of 0 … {tasks - 1}")
    return _without_own([visits] * tasks)


def _without_own(orders: list[list[int]]) -> Tensor:
    """One order a task, that task left out: (K, 1, K−1)."""
    rest = [[[i for i in order if i != task]] for task, order in enumerate(orders)]
    return torch.tensor(rest, dtype=torch.int64)
