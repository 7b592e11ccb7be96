"""CAME-Grad as a drop-in optimizer."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optimizers.aggregators._came_grad import Center, Fusion, came_grad_coefficients, came_grad_stages, check_options
from optimizers.errors import OnSolverFailure
from optimizers.training.joint_update import Observer
from optimizers.training.options import OnNonFinite
from optimizers.training.step import MultiTaskOptimizer


class CAMEGrad(MultiTaskOptimizer):
    r"""CAME-Grad around any torch optimizer (arXiv:2605.22635, eq. 8–14); see :func:`optimizers.came_grad`.

    Args:
        optimizer: a torch optimizer, such as AdamW.
        rho: relative trust-region radius ρ in [0, 1).
        kappa: magnitude enhancement κ ≥ 1. With SGD it multiplies the learning rate; with Adam it nearly
            cancels (theory T8).
        nu: share ν in [0, 1] of the joint gradient.
        center, fusion: as in :func:`optimizers.came_grad`.
        shared, refresh_every, ema, clip_norm, clip_value, process_group, observer, on_nonfinite, on_solver_failure:
            as in :class:`MultiTaskOptimizer`.

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
        rho: float = 0.5,
        kappa: float = 1.5,
        nu: float = 0.2,
        *,
        center: Center = "mean",
        fusion: Fusion = "fixed",
        shared: Iterable[Tensor] | None = None,
        refresh_every: int = 1,
        ema: float | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        process_group: Any = None,
        observer: Observer | None = None,
        on_nonfinite: OnNonFinite = "raise",
        on_solver_failure: OnSolverFailure = "warn",
    ) -> None:
        check_options(rho=rho, kappa=kappa, nu=nu, center=center, fusion=fusion)
        self.rho, self.kappa, self.nu = rho, kappa, nu
        self.center: Center = center
        self.fusion: Fusion = fusion
        super().__init__(
            optimizer,
            partial(came_grad_coefficients, **self._options()),
            shared=shared,
            refresh_every=refresh_every,
            ema=ema,
            clip_norm=clip_norm,
            clip_value=clip_value,
            process_group=process_group,
            observer=observer,
            on_nonfinite=on_nonfinite,
            on_solver_failure=on_solver_failure,
        )

    def _options(self) -> dict[str, Any]:
        return {
            "rho": self.rho,
            "kappa": self.kappa,
            "nu": self.nu,
            "center": self.center,
            "fusion": self.fusion,
        }

    def _aggregate(self, M: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Any]]:
        stages = came_grad_stages(M, weights, **self._options())
        return stages.coefficients, {
            "alpha": stages.dual.alpha,
            "dual_value": stages.dual.value.item(),
            "valid": bool(stages.valid),
        }
