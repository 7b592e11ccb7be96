"""CAME-Grad as TorchJD's ``Aggregator`` and ``Weighting``."""

import inspect
from typing import Any

import torch
from torch import Tensor

from optimizers.aggregators._came_grad import (
    DEFAULTS,
    CAMEGradCoefficients,
    CAMEGradOptions,
    Center,
    Fusion,
    came_grad_coefficients,
    came_grad_stages,
)
from optimizers.gradients.checks import check_task_weights
from optimizers.torchjd.weighting import FunctionAggregator, FunctionWeighting, TaskWeights

OPTIONS = tuple(vars(DEFAULTS))


class CAMEGradWeighting(FunctionWeighting):
    """CAME-Grad's coefficients of a Gramian, for ``torchjd.autogram.Engine`` (arXiv:2605.22635, eq. 8–14).

    Args:
        rho, kappa, nu, center, fusion, task_weights: as :func:`optimizers.came_grad`. All are attributes that may be
            assigned between calls; the next call checks them.

    Attributes:
        last: :class:`optimizers.aggregators._came_grad.CAMEGradCoefficients` of the last call, whose ``valid``
            is the certificate that every task improves along the rectified direction (theory T5); None before the
            first.

    Raises:
        ValueError: for options outside their domain; when called, for what is no Gramian (naming the task whose
            gradient is not finite) or for task weights of another number.

    Example:
        >>> weighting = CAMEGradWeighting(rho=0.5, task_weights=[1.0, 4.0])
        >>> weighting(torch.eye(2))
        tensor([3.7986, 4.6986])
        >>> weighting.last.valid
        tensor(True)
    """

    def __init__(
        self,
        *,
        rho: float = DEFAULTS.rho,
        kappa: float = DEFAULTS.kappa,
        nu: float = DEFAULTS.nu,
        center: Center = DEFAULTS.center,
        fusion: Fusion = DEFAULTS.fusion,
        task_weights: TaskWeights = None,
    ) -> None:
        super().__init__(came_grad_coefficients, task_weights)
        CAMEGradOptions(rho, kappa, nu, center, fusion)
        if task_weights is not None:
            check_task_weights(task_weights, torch.empty(len(task_weights), len(task_weights)))
        self.rho = rho
        self.kappa = kappa
        self.nu = nu
        self.center: Center = center
        self.fusion: Fusion = fusion
        self.last: CAMEGradCoefficients | None = None

    def coefficients(self, gramian: Tensor) -> Tensor:
        """(K,) float64."""
        options = {name: getattr(self, name) for name in OPTIONS}
        self.last = came_grad_stages(gramian, self.task_weights, **options)
        return self.last.coefficients

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in (*OPTIONS, "task_weights"))


class CAMEGrad(FunctionAggregator):
    r"""CAME-Grad for ``torchjd.autojac``: an aggregator of the (K, d) Jacobian of K losses.

    Its ``gramian_weighting`` is a :class:`CAMEGradWeighting`, with the options and ``last``. It is positively
    homogeneous, permutation invariant and strongly stationary in TorchJD's sense for ν ≠ ½ or equal task weights, as
    long as no task weight is zero. It is *not* linear under scaling but for ν = 1, and not non-conflicting: with
    ``nu=0``, or with ``fusion="adaptive"``, no task is harmed exactly where ``gramian_weighting.last.valid``.

    TorchJD's ``mtl_backward`` sums the gradients of task-specific parameters unweighted, where
    :class:`optimizers.CAMEGrad` weights them by ω_i. With ``center="weighted"`` give the weights to
    ``mtl_backward(…, grad_tensors=…)`` instead: that weights both, and stage 1 runs on ω_i g_i anyway.

    Args and errors as :class:`CAMEGradWeighting`; the weights are in the order of the losses.

    Example:
        >>> from torchjd.autojac import backward, jac_to_grad
        >>> parameter = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> backward([parameter[0], parameter.square().sum()])
        >>> aggregator = CAMEGrad(rho=0.5, task_weights=[1.0, 4.0])
        >>> coefficients = jac_to_grad([parameter], aggregator)
        >>> parameter.grad
        tensor([20.5157, 17.7569])
    """

    gramian_weighting: CAMEGradWeighting

    __signature__ = inspect.signature(CAMEGradWeighting)

    def __init__(self, **options: Any) -> None:
        super().__init__(CAMEGradWeighting(**options))
