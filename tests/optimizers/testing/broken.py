"""Aggregators that lack one property each, on purpose: every check must be able to fail."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optimizers import linear


class Counting:
    """Another answer at every call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, matrix: Tensor) -> Tensor:
        self.calls += 1
        return self.calls * matrix.sum(0)

    def reset(self) -> None:
        self.calls = 0


def dividing(matrix: Tensor) -> Tensor:
    return matrix.sum(0) / matrix.norm()


def of_another_shape(matrix: Tensor) -> Tensor:
    return matrix.sum(1)


def in_float32(matrix: Tensor) -> Tensor:
    return matrix.float().sum(0)


def in_place(matrix: Tensor) -> Tensor:
    return matrix.mul_(2.0).sum(0) / 2


def first_of_the_batch(gramian: Tensor, task_weights: Tensor) -> Tensor:
    return (gramian / gramian.diagonal(dim1=-2, dim2=-1).sum().clamp_min(1e-9)).sum(-1) * task_weights


def first_task(matrix: Tensor) -> Tensor:
    return matrix[0].clone()


def cubic(matrix: Tensor) -> Tensor:
    return matrix.sum(0) * matrix.square().sum()


def clipped(matrix: Tensor) -> Tensor:
    return matrix.sum(0).clamp(-0.1, 0.1)


def signed(matrix: Tensor) -> Tensor:
    return matrix.sign().sum(0) * matrix.abs().max()


def ascending(matrix: Tensor) -> Tensor:
    return -matrix.sum(0)


def unweighted(gramian: Tensor, task_weights: Tensor) -> Tensor:
    return torch.ones_like(task_weights)


def never_zero(matrix: Tensor) -> Tensor:
    return matrix.sum(0) + matrix.abs().max()


def zero(matrix: Tensor) -> Tensor:
    return 0 * matrix.sum(0)


BROKEN: dict[str, Callable[..., Any]] = {
    "finite": dividing,
    "expected_shape": of_another_shape,
    "keeps_dtype_and_device": in_float32,
    "input_unmodified": in_place,
    "deterministic": Counting(),
    "batch_equals_loop": first_of_the_batch,
    "permutation_invariant": first_task,
    "positively_homogeneous": cubic,
    "scale_invariant_direction": clipped,
    "linear_under_scaling": signed,
    "rotation_equivariant": signed,
    "non_conflicting": linear,
    "weakly_non_conflicting": ascending,
    "no_loss_without_conflict": ascending,
    "descends_mean": first_task,
    "descends_weighted_sum": unweighted,
    "vanishes_at_strong_stationarity": never_zero,
    "strongly_stationary": zero,
}
