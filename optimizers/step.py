"""The training step: per-task backward, the aggregate into ``.grad``, then the wrapped torch optimizer's step."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from optimizers.diagnostics import NonFiniteError, StepDiagnostics
from optimizers.distributed import average_, averaged, refuse_sharded, world_size
from optimizers.gramian import check_gramian, check_task_weights, gramian_of_parameters
from optimizers.task_gradients import TaskGradients, gradient, loss_values, task_gradients

Aggregator = Callable[[Tensor, Tensor], Tensor]
Observer = Callable[[TaskGradients, Tensor], None]
OnNonFinite = Literal["raise", "skip", "propagate"]


class JacobianAggregator(Protocol):
    """An aggregator that needs the gradients themselves, not only their Gramian."""

    def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
        """(K, P) gradients and (K,) weights → (P,) update."""
        ...


@dataclass
class _Pending:
    """Sum over the micro-batches of one step."""

    losses: Tensor
    gradients: TaskGradients
    """One list a task, or a single one where coefficients are reused."""
    reused: bool

    def add(self, other: "_Pending") -> None:
        self.losses = self.losses + other.losses
        for mine, theirs in zip(self.gradients, other.gradients, strict=True):
            torch._foreach_add_(mine, theirs)


class MultiTaskOptimizer:
    """Wraps a torch optimizer so that it steps along an aggregate of per-task gradients.

    Either ``backward`` (which adds the aggregate to ``.grad``, as ``Tensor.backward`` does), then whatever
    the caller does to gradients, then ``step()`` and ``zero_grad()``; or ``step(losses)``, which zeroes,
    goes backward and steps.

    Under ``torch.distributed`` the task gradients are averaged over the processes before they are aggregated, so
    that every process takes the step of the joint batch; every process must then make the same calls. A model wrapped
    in DistributedDataParallel works with or without ``find_unused_parameters`` and ``no_sync``.

    Args:
        optimizer: any torch optimizer that needs no closure; its parameters that require a gradient are
            the ones differentiated. A parameter that a task does not reach has gradient zero for it.
        aggregator: maps a (K, K) Gramian and (K,) task weights to (K,) coefficients, such as
            :func:`optimizers.linear`; or a :class:`JacobianAggregator`, at the memory of one more K×P matrix.
        shared: the parameters on which conflicts are resolved; None takes all. The others (task heads) get the
            gradient of the weighted sum, Σ ω_i g_i.
        refresh_every: N solves on every N-th step; the steps between go backward once, through Σ c_i L_i with the
            last coefficients c. That gives up the aggregator's guarantees on these steps.
        process_group: over which gradients are averaged; None is the default group. A group of this
            process alone averages nothing.
        observer: called with the per-task gradients of the shared parameters (K lists of one tensor a parameter) and
            their Gramian before they are combined, on fresh steps; for gradient logs. It must not change them.
        on_nonfinite: "raise" a :class:`NonFiniteError`, "skip" the step and count it in ``skipped``, or "propagate":
            fill ``.grad`` with NaN, for a GradScaler to find.

    Attributes:
        last: :class:`StepDiagnostics` of the last successful backward, or None.
        skipped: number of steps skipped for non-finite losses or gradients.

    Raises:
        TypeError: if ``optimizer`` is no torch optimizer, needs a closure (LBFGS) or has sharded parameters (FSDP2).
        ValueError: for an unknown ``on_nonfinite``, a ``refresh_every`` below 1 or above 1 with a
            :class:`JacobianAggregator`, or ``shared`` parameters that the optimizer does not have.

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
        aggregator: Aggregator | JacobianAggregator,
        *,
        shared: Iterable[Tensor] | None = None,
        refresh_every: int = 1,
        process_group: Any = None,
        observer: Observer | None = None,
        on_nonfinite: OnNonFinite = "raise",
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise TypeError(
                "LBFGS re-evaluates one loss in a closure and cannot follow an aggregate of several; "
                "use a first-order optimizer such as AdamW or SGD"
            )
        if on_nonfinite not in ("raise", "skip", "propagate"):
            raise ValueError(f"on_nonfinite = {on_nonfinite!r} must be 'raise', 'skip' or 'propagate'")
        if refresh_every < 1:
            raise ValueError(f"refresh_every = {refresh_every} must be >= 1; 1 solves on every step")
        if refresh_every > 1 and hasattr(aggregator, "combine"):
            raise ValueError(
                f"refresh_every = {refresh_every} needs coefficients to reuse, which {type(aggregator).__name__} "
                "does not have; use 1"
            )
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        refuse_sharded(parameters)
        self.optimizer = optimizer
        self.aggregator = aggregator
        self.refresh_every = refresh_every
        self.process_group = process_group
        self.observer = observer
        self.on_nonfinite = on_nonfinite
        self.last: StepDiagnostics | None = None
        self.skipped = 0
        self._shared = None if shared is None else _identities(shared, parameters)
        self._pending: _Pending | None = None
        self._reuse: tuple[Tensor, Tensor] | None = None
        self._age = 0
        self._skip_next = False

    def accumulate(
        self, losses: Sequence[Tensor], task_weights: Tensor | Sequence[float] | None = None, *, scale: float = 1.0
    ) -> None:
        """Add the task gradients of one micro-batch, on this process alone; the next :meth:`backward` includes them.

        The aggregate is then that of the joint batch, at the memory of one more set of K gradients. Divide every
        loss by the number of micro-batches. (Calling :meth:`backward` for each micro-batch instead sums their
        aggregates.)

        Args:
            losses, task_weights, scale: as for :meth:`backward`; non-finite numbers are found there.

        Raises:
            ValueError: as :meth:`backward`, or for another number of losses than before.
        """
        values = loss_values(losses)
        weights = check_task_weights(task_weights, torch.empty(len(values), len(values)))
        self._collect(values, losses, weights, scale)

    def backward(
        self, losses: Sequence[Tensor], task_weights: Tensor | Sequence[float] | None = None, *, scale: float = 1.0
    ) -> None:
        """Add the aggregate of the task gradients to ``.grad`` of every trainable parameter.

        The graph of the losses is freed, as by ``Tensor.backward``.

        Args:
            losses: K scalar tensors.
            task_weights: K weights ≥ 0, not all zero; ones by default.
            scale: what the losses were multiplied by, ``GradScaler.get_scale()``. ``.grad`` keeps it, for
                ``GradScaler.unscale_(optimizer.optimizer)``; diagnostics and the observer see true units.

        Raises:
            ValueError: for no losses, a loss that is not a scalar or has no gradient, bad weights, sparse
                or complex gradients; the message names the task.
            NonFiniteError: for a non-finite loss or gradient on any process, unless ``on_nonfinite`` says otherwise.
                Accumulated micro-batches are dropped.
        """
        self._backward(losses, task_weights, accumulate=True, scale=scale)

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
            self._backward(losses, task_weights, accumulate=False, scale=1.0)
        elif task_weights is not None:
            raise TypeError("step() takes task_weights only together with losses")
        if self._skip_next:
            self._skip_next = False
            self.skipped += 1
            return
        self.optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients as ``torch.optim.Optimizer.zero_grad``; forget micro-batches and a skipped backward."""
        self._skip_next = False
        self._pending = None
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
        """State of the wrapped optimizer, the aggregator's options, reused coefficients, count of skipped steps."""
        reuse = None
        if self._reuse is not None:
            reuse = {"coefficients": self._reuse[0], "task_weights": self._reuse[1], "age": self._age}
        return {
            "optimizer": self.optimizer.state_dict(),
            "options": self._options(),
            "skipped": self.skipped,
            "reuse": reuse,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            ValueError: if it is not such a state, or was saved with other aggregator options; nothing is
                loaded then.
        """
        expected = {"optimizer", "options", "skipped", "reuse"}
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
        reuse = state_dict["reuse"]
        self._reuse = None if reuse is None else (reuse["coefficients"], reuse["task_weights"])
        self._age = 0 if reuse is None else reuse["age"]

    def _options(self) -> dict[str, Any]:
        return {}

    def _aggregate(self, M: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Any]]:
        assert callable(self.aggregator)
        return self.aggregator(M, weights), {}

    def _trainable(self) -> tuple[list[Tensor], list[int], list[int]]:
        """Parameters, and the positions among them of the shared ones and of the others."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        shared: list[int] = []
        others: list[int] = []
        for index, parameter in enumerate(parameters):
            (shared if self._shared is None or id(parameter) in self._shared else others).append(index)
        return parameters, shared, others

    def _collect(self, values: Tensor, losses: Sequence[Tensor], weights: Tensor, scale: float) -> None:
        """Gradients of one micro-batch in true units, added to those of the step."""
        parameters, shared, others = self._trainable()
        reused = self._reuse is not None and 0 < self._age < self.refresh_every and bool(weights.equal(self._reuse[1]))
        if reused:
            assert self._reuse is not None
            gradients = [self._weighted(losses, parameters, shared, others, *self._reuse)]
        else:
            gradients = task_gradients(losses, parameters)
        if scale != 1.0:
            for of_task in gradients:
                torch._foreach_mul_(of_task, 1 / scale)
        micro_batch = _Pending(values / scale, gradients, reused)
        if self._pending is None:
            self._pending = micro_batch
        elif len(values) != len(self._pending.losses) or reused != self._pending.reused:
            raise ValueError("the micro-batches of one step must have the same tasks and task_weights")
        else:
            self._pending.add(micro_batch)

    @staticmethod
    def _weighted(
        losses: Sequence[Tensor],
        parameters: list[Tensor],
        shared: list[int],
        others: list[int],
        coefficients: Tensor,
        weights: Tensor,
    ) -> list[Tensor]:
        """One backward through Σ c_i L_i for the shared parameters, and through Σ ω_i L_i for any others."""
        result = [torch.empty(0)] * len(parameters)
        for indices, factors, keep in ((shared, coefficients, bool(others)), (others, weights, False)):
            if indices:
                total = torch.stack([loss.reshape(()) * c for loss, c in zip(losses, factors.tolist(), strict=True)])
                parts = gradient(total.sum(), [parameters[i] for i in indices], keep=keep, name="the weighted sum")
                for index, part in zip(indices, parts, strict=True):
                    result[index] = part
        return result

    def _backward(
        self,
        losses: Sequence[Tensor],
        task_weights: Tensor | Sequence[float] | None,
        *,
        accumulate: bool,
        scale: float,
    ) -> None:
        values = loss_values(losses)
        weights = check_task_weights(task_weights, torch.empty(len(values), len(values)))
        total = values if self._pending is None else values + self._pending.losses * scale
        parameters, shared, others = self._trainable()
        total = averaged(total, self.process_group, parameters[0].device)
        if not total.isfinite().all():
            task = int((~total.isfinite()).nonzero()[0])
            self._nonfinite(f"loss of task {task} is {total[task].item()}", parameters)
            return
        self._collect(values, losses, weights, scale)
        assert self._pending is not None
        collected, self._pending = self._pending, None
        if world_size(self.process_group) > 1:
            for of_task in collected.gradients:
                average_(of_task, self.process_group)
        if collected.reused:
            update, last = self._reused(collected.gradients[0])
        else:
            update, last = self._fresh(collected.gradients, weights, shared, others)
        if update is None:
            self._nonfinite(last, parameters)
            return
        self.last = StepDiagnostics(losses=total / scale, **last)
        with torch.no_grad():
            if not accumulate:
                self.zero_grad()
            if scale != 1.0:
                torch._foreach_mul_(update, scale)
            for parameter, part in zip(parameters, update, strict=True):
                parameter.grad = part if parameter.grad is None else parameter.grad + part

    def _fresh(
        self, gradients: TaskGradients, weights: Tensor, shared: list[int], others: list[int]
    ) -> tuple[list[Tensor] | None, Any]:
        """The update and its diagnostics; None and what is not finite."""
        resolved = [[of_task[i] for i in shared] for of_task in gradients] if others else gradients
        M = gramian_of_parameters(resolved)
        try:
            check_gramian(M)
        except ValueError as error:
            return None, str(error)
        coefficients: Tensor | None = None
        extra: dict[str, Any] = {}
        if not hasattr(self.aggregator, "combine"):
            coefficients, extra = self._aggregate(M, weights)
            self._reuse, self._age = (coefficients, weights), 1
        if self.observer is not None:
            self.observer(resolved, M)
        with torch.no_grad():
            combined = self._combined(resolved, weights) if coefficients is None else _sum(resolved, coefficients)
            update = combined
            if others:
                by_index = dict(zip(shared, combined, strict=True))
                rest = _sum([[of_task[i] for i in others] for of_task in gradients], weights)
                by_index |= dict(zip(others, rest, strict=True))
                update = [by_index[i] for i in range(len(by_index))]
        norms = M.diagonal().sqrt()
        outer = norms[:, None] * norms
        cosines = torch.where(outer > 0, M / torch.where(outer > 0, outer, 1.0), 0.0)
        return update, {"gramian": M, "norms": norms, "cosines": cosines, "coefficients": coefficients, **extra}

    def _reused(self, update: list[Tensor]) -> tuple[list[Tensor] | None, Any]:
        if not all(bool(part.isfinite().all()) for part in update):
            return None, "a gradient of the weighted sum is not finite"
        self._age += 1
        fields = {} if self.last is None else {k: v for k, v in vars(self.last).items() if k != "losses"}
        if not fields:  # resumed between two solutions
            assert self._reuse is not None
            unknown = torch.full((len(self._reuse[0]),) * 2, torch.nan, dtype=torch.float64)
            fields = {"gramian": unknown, "norms": unknown[0], "cosines": unknown, "coefficients": self._reuse[0]}
        return update, {**fields, "fresh": False}

    def _combined(self, gradients: TaskGradients, weights: Tensor) -> list[Tensor]:
        jacobian = torch.stack([torch.cat([part.reshape(-1) for part in of_task]) for of_task in gradients])
        update = self.aggregator.combine(jacobian, weights.to(jacobian))  # type: ignore[union-attr]
        sizes = [part.numel() for part in gradients[0]]
        return [u.reshape(g.shape).to(g.dtype) for u, g in zip(update.split(sizes), gradients[0], strict=True)]

    def _nonfinite(self, message: str, parameters: Sequence[Tensor]) -> None:
        self._pending = None
        if self.on_nonfinite == "skip":
            self._skip_next = True
            return
        if self.on_nonfinite == "propagate":
            for parameter in parameters:
                parameter.grad = torch.full_like(parameter, torch.nan)
            return
        raise NonFiniteError(
            f"{message}; nothing was changed. Lower the learning rate or look at this batch, or pass "
            'on_nonfinite="skip" to skip and count such steps'
        )


def _sum(gradients: TaskGradients, factors: Tensor) -> list[Tensor]:
    first, *rest = factors.tolist()
    total = list(torch._foreach_mul(gradients[0], first))
    for of_task, factor in zip(gradients[1:], rest, strict=True):
        torch._foreach_add_(total, of_task, alpha=factor)
    return total


def _identities(shared: Iterable[Tensor], parameters: Sequence[Tensor]) -> set[int]:
    known = {id(p) for p in parameters}
    found = {id(p) for p in shared}
    if not found:
        raise ValueError("shared holds no parameter; None resolves conflicts on all of them")
    if found - known:
        raise ValueError(f"{len(found - known)} of the {len(found)} shared parameters are not in the optimizer")
    return found
