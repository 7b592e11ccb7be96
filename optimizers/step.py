"""The training step: per-task backward passes, an aggregator, and the wrapped torch optimizer.

Cost of a step with K tasks and P parameters: K backward passes, one K×K Gramian, one weighted sum, and
K + 1 sets of P gradients in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from optimizers.came_grad import Center, Fusion, came_grad_coefficients, came_grad_stages, check_options
from optimizers.gramian import check_gramian, check_task_weights, gramian_of_parameters

Aggregator = Callable[[Tensor, Tensor], Tensor]
TaskGradients = list[list[Tensor]]
Observer = Callable[[TaskGradients, Tensor], None]


class NonFiniteError(ValueError):
    """A loss or a gradient is NaN or infinite. Parameters, gradients and optimizer state are untouched."""


@dataclass(frozen=True)
class StepDiagnostics:
    """What the last backward saw and decided; CPU tensors, float64 unless said otherwise.

    Attributes:
        losses: (K,).
        gramian: (K, K) inner products of the task gradients.
        norms: (K,) norms of the task gradients.
        cosines: (K, K) cosines between them; 0 where a gradient is zero.
        coefficients: (K,), the update is Gᵀ·coefficients.
        alpha: (K,) on the simplex, or None for aggregators without a dual.
        dual_value: f(α*), or None.
        valid: whether every task improves along stage 1's direction (theory T5), or None.
    """

    losses: Tensor
    gramian: Tensor
    norms: Tensor
    cosines: Tensor
    coefficients: Tensor
    alpha: Tensor | None = None
    dual_value: float | None = None
    valid: bool | None = None


class MultiTaskOptimizer:
    """Wraps a torch optimizer so that it steps along an aggregate of per-task gradients.

    Either ``backward`` (which adds the aggregate to ``.grad``, as ``Tensor.backward`` does), then whatever
    the caller does to gradients, then ``step()`` and ``zero_grad()``; or ``step(losses)``, which zeroes,
    goes backward and steps.

    Args:
        optimizer: any torch optimizer that needs no closure; its parameters that require a gradient are
            the ones differentiated. A parameter that a task does not reach has gradient zero for it.
        aggregator: maps a (K, K) Gramian and (K,) task weights to (K,) coefficients, such as
            :func:`optimizers.linear`.
        observer: called with the per-task gradients (K lists of one tensor a parameter) and their Gramian
            before they are combined; for gradient logs. It must not change them.
        on_nonfinite: "raise" a :class:`NonFiniteError`, or "skip" the step and count it in ``skipped``.

    Attributes:
        last: :class:`StepDiagnostics` of the last successful backward, or None.
        skipped: number of steps skipped for non-finite losses or gradients.

    Raises:
        TypeError: if ``optimizer`` is no torch optimizer or needs a closure (LBFGS).
        ValueError: if ``on_nonfinite`` is neither "raise" nor "skip".

    Example:
        >>> from optimizers import linear
        >>> x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = MultiTaskOptimizer(torch.optim.SGD([x], lr=0.1), linear)
        >>> optimizer.step([x[0] ** 2, x.sum()], task_weights=[1.0, 4.0])
        >>> x.data
        tensor([0.4000, 1.6000])
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        aggregator: Aggregator,
        *,
        observer: Observer | None = None,
        on_nonfinite: Literal["raise", "skip"] = "raise",
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise TypeError(
                "LBFGS re-evaluates one loss in a closure and cannot follow an aggregate of several; "
                "use a first-order optimizer such as AdamW or SGD"
            )
        if on_nonfinite not in ("raise", "skip"):
            raise ValueError(f"on_nonfinite = {on_nonfinite!r} must be 'raise' or 'skip'")
        self.optimizer = optimizer
        self.aggregator = aggregator
        self.observer = observer
        self.on_nonfinite = on_nonfinite
        self.last: StepDiagnostics | None = None
        self.skipped = 0
        self._skip_next = False

    def backward(self, losses: Sequence[Tensor], task_weights: Tensor | Sequence[float] | None = None) -> None:
        """Add the aggregate of the task gradients to ``.grad`` of every trainable parameter.

        The graph of the losses is freed, as by ``Tensor.backward``.

        Args:
            losses: K scalar tensors.
            task_weights: K weights ≥ 0, not all zero; ones by default.

        Raises:
            ValueError: for no losses, a loss that is not a scalar or has no gradient, bad weights, sparse
                or complex gradients; the message names the task.
            NonFiniteError: for a non-finite loss or gradient, unless ``on_nonfinite="skip"``.
        """
        self._backward(losses, task_weights, accumulate=True)

    def step(
        self,
        losses: Sequence[Tensor] | None = None,
        task_weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        """Step the wrapped optimizer; with ``losses`` zero the gradients and go backward first.

        After a backward that was skipped for non-finite numbers this does nothing but count.

        Args:
            losses, task_weights: as for :meth:`backward`.

        Raises:
            ValueError, NonFiniteError: as :meth:`backward`, before anything is changed.
            TypeError: if ``task_weights`` come without ``losses``.
        """
        if losses is not None:
            self._skip_next = False
            self._backward(losses, task_weights, accumulate=False)
        elif task_weights is not None:
            raise TypeError("step() takes task_weights only together with losses")
        if self._skip_next:
            self._skip_next = False
            self.skipped += 1
            return
        self.optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, as ``torch.optim.Optimizer.zero_grad``, and forget a skipped backward."""
        self._skip_next = False
        self.optimizer.zero_grad(set_to_none)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's parameter groups, for learning-rate schedules to read and write."""
        return self.optimizer.param_groups

    @property
    def state(self) -> dict[Tensor, Any]:
        """The wrapped optimizer's state."""
        return self.optimizer.state

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapped optimizer, the aggregator's options and the count of skipped steps."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "options": self._options(),
            "skipped": self.skipped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            ValueError: if it is not such a state, or was saved with other aggregator options; nothing is
                loaded then.
        """
        expected = {"optimizer", "options", "skipped"}
        if not isinstance(state_dict, dict) or set(state_dict) != expected:
            raise ValueError(
                f"not a state of {type(self).__name__}: expected the keys {sorted(expected)}; a plain "
                "torch optimizer's state belongs to .optimizer.load_state_dict"
            )
        if state_dict["options"] != self._options():
            raise ValueError(
                f"the state was saved with {state_dict['options']}, this optimizer has {self._options()}; "
                "construct it with the saved options"
            )
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.skipped = state_dict["skipped"]

    def _options(self) -> dict[str, Any]:
        return {}

    def _aggregate(self, M: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return self.aggregator(M, weights), {}

    def _backward(
        self,
        losses: Sequence[Tensor],
        task_weights: Tensor | Sequence[float] | None,
        *,
        accumulate: bool,
    ) -> None:
        values = _check_losses(losses)
        weights = check_task_weights(task_weights, torch.empty(len(values), len(values)))
        if not values.isfinite().all():
            task = int((~values.isfinite()).nonzero()[0])
            self._nonfinite(f"loss of task {task} is {values[task].item()}")
            return
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        gradients = task_gradients(losses, parameters)
        M = gramian_of_parameters(gradients)
        try:
            check_gramian(M)
        except ValueError as error:
            self._nonfinite(str(error))
            return
        coefficients, extra = self._aggregate(M, weights)
        if self.observer is not None:
            self.observer(gradients, M)
        with torch.no_grad():
            if not accumulate:
                self.zero_grad()
            for parameter, *parts in zip(parameters, *gradients, strict=True):
                total = parts[0] * coefficients[0].item()
                for part, coefficient in zip(parts[1:], coefficients[1:], strict=True):
                    total.add_(part, alpha=coefficient.item())
                parameter.grad = total if parameter.grad is None else parameter.grad + total
        norms = M.diagonal().sqrt()
        outer = norms[:, None] * norms
        cosines = torch.where(outer > 0, M / torch.where(outer > 0, outer, 1.0), 0.0)
        self.last = StepDiagnostics(values, M, norms, cosines, coefficients, **extra)

    def _nonfinite(self, message: str) -> None:
        if self.on_nonfinite == "skip":
            self._skip_next = True
            return
        raise NonFiniteError(
            f"{message}; nothing was changed. Lower the learning rate or look at this batch, or pass "
            'on_nonfinite="skip" to skip and count such steps'
        )


class CAMEGrad(MultiTaskOptimizer):
    r"""CAME-Grad around any torch optimizer (arXiv:2605.22635, eq. 8–14); see :func:`optimizers.came_grad`.

    Args:
        optimizer: a torch optimizer, such as AdamW.
        rho: relative trust-region radius ρ in [0, 1).
        kappa: magnitude enhancement κ ≥ 1. With SGD it multiplies the learning rate; with Adam it nearly
            cancels (theory T8).
        nu: share ν in [0, 1] of the joint gradient.
        center, fusion: as in :func:`optimizers.came_grad`.
        observer, on_nonfinite: as in :class:`MultiTaskOptimizer`.

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
        observer: Observer | None = None,
        on_nonfinite: Literal["raise", "skip"] = "raise",
    ) -> None:
        check_options(rho=rho, kappa=kappa, nu=nu, center=center, fusion=fusion)
        self.rho, self.kappa, self.nu = rho, kappa, nu
        self.center: Center = center
        self.fusion: Fusion = fusion
        super().__init__(
            optimizer,
            partial(came_grad_coefficients, **self._options()),
            observer=observer,
            on_nonfinite=on_nonfinite,
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


def task_gradients(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> TaskGradients:
    """Gradients of each loss with respect to each parameter; frees the graph on the last loss.

    Args:
        losses: K scalar tensors that may share a graph.
        parameters: P tensors that require a gradient.

    Returns:
        K lists of P tensors; zeros where a loss does not reach a parameter.

    Raises:
        ValueError: for sparse or complex gradients, naming the task and the parameter's index.

    Example:
        >>> x, y = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
        >>> task_gradients([x * y, y**2], [x, y])
        [[tensor(3.), tensor(2.)], [tensor(0.), tensor(6.)]]
    """
    gradients = []
    for task, loss in enumerate(losses):
        last = task == len(losses) - 1
        found = torch.autograd.grad(loss, parameters, retain_graph=not last, allow_unused=True)
        for index, gradient in enumerate(found):
            if gradient is not None and (gradient.layout != torch.strided or gradient.is_complex()):
                kind = "complex" if gradient.is_complex() else "sparse"
                raise ValueError(
                    f"gradient of task {task} for parameter {index} is {kind}; only dense real "
                    "gradients can be combined (use sparse=False in embeddings)"
                )
        gradients.append(
            [
                torch.zeros_like(parameter) if gradient is None else gradient
                for gradient, parameter in zip(found, parameters, strict=True)
            ]
        )
    return gradients


def _check_losses(losses: Sequence[Tensor]) -> Tensor:
    """The losses as a float64 CPU tensor, after checking that each can be differentiated."""
    if isinstance(losses, Tensor) or len(losses) == 0:
        raise ValueError(
            "losses must be a non-empty sequence of scalar tensors, one a task, got "
            + (f"one tensor of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else "none")
        )
    values = []
    for task, loss in enumerate(losses):
        if not isinstance(loss, Tensor):
            raise ValueError(f"loss of task {task} must be a tensor, got {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(f"loss of task {task} must be a scalar, got shape {tuple(loss.shape)}")
        if not loss.requires_grad:
            raise ValueError(f"loss of task {task} has no gradient: it was computed without grad or detached")
        values.append(float(loss.detach()))
    return torch.tensor(values, dtype=torch.float64)
