"""Aggregators by name, with their options checked before any work is done."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optimizers import (
    aligned_mtl,
    cagrad,
    came_grad_coefficients,
    gramian,
    imtl_g,
    linear,
    mgda,
    nash_mtl,
    pcgrad,
)

Aggregator = Callable[[Tensor, Tensor], Tensor]
"""Gramian (..., K, K) and task weights (K,) to coefficients (..., K) of the update."""


def equal(gramian: Tensor, task_weights: Tensor) -> Tensor:
    """Linear scalarization with equal weights of the same sum: the control that theory T6 asks for.

    Example:
        >>> equal(torch.eye(2).double(), torch.tensor([1.0, 4.0]).double())
        tensor([2.5000, 2.5000], dtype=torch.float64)
    """
    weights = torch.as_tensor(task_weights, dtype=torch.float64)
    return linear(gramian, weights.mean(-1, keepdim=True).expand(weights.shape))


AGGREGATORS: dict[str, Callable[..., Tensor]] = {
    "linear": linear,
    "equal": equal,
    "mgda": mgda,
    "pcgrad": pcgrad,
    "cagrad": cagrad,
    "imtl-g": imtl_g,
    "aligned-mtl": aligned_mtl,
    "nash-mtl": nash_mtl,
    "came-grad": came_grad_coefficients,
}


def aggregator(name: str, **options: Any) -> Aggregator:
    """An aggregator with its options bound.

    Args:
        name: a key of :data:`AGGREGATORS`.
        options: of that aggregator, such as ``kappa`` and ``nu`` for "came-grad", ``c`` for "cagrad".

    Raises:
        ValueError: for an unknown name or option, or an option out of its range.

    Example:
        >>> aggregator("came-grad", nu=1.0, kappa=1.0)(torch.eye(2).double(), torch.tensor([1.0, 4.0]).double())
        tensor([1., 4.], dtype=torch.float64)
        >>> aggregator("adam")
        Traceback (most recent call last):
        ValueError: unknown aggregator 'adam'; there are linear, equal, mgda, pcgrad, cagrad, imtl-g, aligned-mtl,
        nash-mtl, came-grad
    """
    if name not in AGGREGATORS:
        raise ValueError(f"unknown aggregator {name!r}; there are {', '.join(AGGREGATORS)}")
    known = list(inspect.signature(AGGREGATORS[name]).parameters)[2:]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    bound = partial(AGGREGATORS[name], **options)
    bound(torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    return bound


def aggregate(function: Aggregator, gradients: Tensor, task_weights: Tensor) -> Tensor:
    """F(G), the aggregated gradients: (n, K, d) → (n, d); coefficients are computed in float64.

    Example:
        >>> aggregate(linear, torch.eye(2).double()[None], torch.tensor([1.0, 4.0]).double())
        tensor([[1., 4.]], dtype=torch.float64)
    """
    coefficients = function(gramian(gradients), task_weights.to(gradients.device))
    return torch.einsum("nk,nkd->nd", coefficients.to(gradients), gradients)
