"""Aggregators of ours as TorchJD's ``Weighting`` and ``Aggregator``."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchjd.aggregation import GramianWeightedAggregator, Weighting
from torchjd.linalg import Matrix, PSDMatrix

from optimizers.aggregators.base import Aggregator, JacobianAggregator, check_aggregator
from optimizers.gradients._gramian import gramian

TaskWeights = Tensor | Sequence[float] | None


class FunctionWeighting(Weighting[PSDMatrix]):
    """``aggregator(gramian, task_weights)`` as TorchJD's ``Weighting``; made by :func:`as_weighting`.

    Not differentiable: no graph is built through it.
    """

    def __init__(self, aggregator: Aggregator, task_weights: TaskWeights = None) -> None:
        super().__init__()
        check_aggregator(aggregator)
        if isinstance(aggregator, JacobianAggregator) and not callable(aggregator):
            raise TypeError(
                f"{aggregator!r} needs the gradients themselves, and a weighting sees their Gramian only; "
                "pass a function (gramian, task_weights) -> coefficients such as optimizers.mgda"
            )
        self.aggregator = aggregator
        self.task_weights = task_weights

    @torch.no_grad()
    def forward(self, gramian: Tensor, /) -> Tensor:
        """(K, K) Gramian → (K,) coefficients of its dtype, on its device; solved in float64."""
        return self.coefficients(gramian).to(gramian.dtype)

    def coefficients(self, gramian: Tensor) -> Tensor:
        """(K,) float64."""
        return self.aggregator(gramian, self.task_weights)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """What is wrapped."""
        name = getattr(self.aggregator, "__name__", repr(self.aggregator))
        return name if self.task_weights is None else f"{name}, task_weights={self.task_weights}"


class FunctionAggregator(GramianWeightedAggregator):
    """A weighting of ours as TorchJD's ``GramianWeightedAggregator``; made by :func:`as_aggregator`.

    The Gramian of a float32 matrix is accumulated in float64. TorchJD's own Gramian, which
    ``jac_to_grad(…, optimize_gramian_computation=True)`` and the autogram engine compute, has the matrix's precision.
    """

    def __init__(self, weighting: FunctionWeighting) -> None:
        super().__init__(weighting)
        self.weighting = _OnMatrix(weighting)

    @torch.no_grad()
    def forward(self, matrix: Tensor, /) -> Tensor:
        """(K, d) matrix → (d,) update of its dtype, on its device."""
        return super().forward(matrix)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.gramian_weighting.extra_repr()})"


class _OnMatrix(Weighting[Matrix]):
    def __init__(self, weighting: FunctionWeighting) -> None:
        super().__init__()
        self.weighting = weighting

    def forward(self, matrix: Tensor, /) -> Tensor:
        return self.weighting(gramian(matrix)).to(matrix.dtype)


def as_weighting(aggregator: Aggregator, task_weights: TaskWeights = None) -> FunctionWeighting:
    """Any aggregator of ours as TorchJD's ``Weighting`` of a Gramian, for its autogram engine.

    Args:
        aggregator: a function ``(gramian, task_weights) -> coefficients`` such as :func:`optimizers.mgda`; bind its
            options with :func:`functools.partial`.
        task_weights: K numbers ≥ 0, not all zero, that every call passes on; ones by default.

    Raises:
        TypeError: for what is no such function, as an aggregator that needs the gradients themselves.

    Example:
        >>> from optimizers import mgda
        >>> as_weighting(mgda)(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.8000, 0.2000])
    """
    return FunctionWeighting(aggregator, task_weights)


def as_aggregator(aggregator: Aggregator, task_weights: TaskWeights = None) -> FunctionAggregator:
    """Any aggregator of ours as TorchJD's ``Aggregator`` of a Jacobian, for ``torchjd.autojac``.

    Args and errors as :func:`as_weighting`.

    Example:
        >>> from optimizers import mgda
        >>> as_aggregator(mgda)(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        tensor([0.8000, 0.4000])
    """
    return FunctionAggregator(FunctionWeighting(aggregator, task_weights))
