"""CAME-Grad as a drop-in optimizer."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from optimizers.aggregators._came_grad import (
    DEFAULTS,
    CAMEGradOptions,
    Center,
    Fusion,
    came_grad_coefficients,
    came_grad_stages,
)
from optimizers.errors import OnSolverFailure
from optimizers.training.joint_update import Observer
from optimizers.training.options import OnNonFinite
from optimizers.training.step import MultiTaskOptimizer


@dataclass
class CAMEGradAggregator:
    """CAME-Grad's coefficients, with what its first stage says of them.

    Args:
        options: of CAME-Grad; others may be assigned between steps.

    Example:
        >>> linear = CAMEGradAggregator(CAMEGradOptions(nu=1.0, kappa=1.0))
        >>> coefficients, diagnostics = linear.solve(torch.eye(2), torch.ones(2))
        >>> coefficients, diagnostics["valid"]
        (tensor([1., 1.], dtype=torch.float64), True)
    """

    options: CAMEGradOptions = DEFAULTS

    def __call__(self, gramian: Tensor, task_weights: Tensor) -> Tensor:
        """(K,) coefficients of a (K, K) Gramian and (K,) task weights."""
        return came_grad_coefficients(gramian, task_weights, **vars(self.options))

    def solve(self, gramian: Tensor, task_weights: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The coefficients, and α, f(α*) and validity of stage 1."""
        stages = came_grad_stages(gramian, task_weights, **vars(self.options))
        return stages.coefficients, {
            "alpha": stages.dual.alpha,
            "dual_value": stages.dual.value.item(),
            "valid": bool(stages.valid),
        }


class _Option:
    """An option of the aggregator, read and written through the optimizer."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Any, owner: type | None = None) -> Any:
        return self if optimizer is None else getattr(optimizer.aggregator.options, self.name)

    def __set__(self, optimizer: Any, value: Any) -> None:
        optimizer.aggregator.options = replace(optimizer.aggregator.options, **{self.name: value})


class CAMEGrad(MultiTaskOptimizer):
    r"""CAME-Grad around any torch optimizer (arXiv:2605.22635, eq. 8–14); see :func:`optimizers.came_grad`.

    Args:
        optimizer: a torch optimizer, such as AdamW.
        rho: relative trust-region radius ρ in [0, 1).
        kappa: magnitude enhancement κ ≥ 1. With SGD it multiplies the learning rate; with Adam it nearly
            cancels (theory T8).
        nu: share ν in [0, 1] of the joint gradient.
        center, fusion: as in :func:`optimizers.came_grad`.
        shared, refresh_every, ema, track, clip_norm, clip_value: as in :class:`MultiTaskOptimizer`.
        process_group, observer, on_nonfinite, on_solver_failure: as there.

    Raises:
        ValueError: for options outside their domain, naming the value.
        TypeError: as :class:`MultiTaskOptimizer`.

    Example:
        The three calls that trainers of report generators make:

        >>> from optimizers import CAMEGrad as CAME_Grad
        >>> model = torch.nn.Linear(3, 2)
        >>> came = CAME_Grad(torch.optim.AdamW(model.parameters()), rho=0.5, kappa=1.5, nu=0.2)
        >>> loss_lm, loss_cls = model(torch.ones(3)).square()
        >>> came.step([loss_lm, loss_cls], task_weights=[1.0, 4.0])
        >>> came.param_groups[0]["lr"]
        0.001
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: float = DEFAULTS.rho,
        kappa: float = DEFAULTS.kappa,
        nu: float = DEFAULTS.nu,
        *,
        center: Center = DEFAULTS.center,
        fusion: Fusion = DEFAULTS.fusion,
        shared: Iterable[Tensor] | None = None,
        refresh_every: int = 1,
        ema: float | None = None,
        track: float | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        process_group: Any = None,
        observer: Observer | None = None,
        on_nonfinite: OnNonFinite = "raise",
        on_solver_failure: OnSolverFailure = "warn",
    ) -> None:
        super().__init__(
            optimizer,
            CAMEGradAggregator(CAMEGradOptions(rho, kappa, nu, center, fusion)),
            shared=shared,
            refresh_every=refresh_every,
            ema=ema,
            track=track,
            clip_norm=clip_norm,
            clip_value=clip_value,
            process_group=process_group,
            observer=observer,
            on_nonfinite=on_nonfinite,
            on_solver_failure=on_solver_failure,
        )

    rho, kappa, nu, center, fusion = (_Option() for _ in range(5))

    def _options(self) -> dict[str, Any]:
        return dict(vars(self.aggregator.options))
