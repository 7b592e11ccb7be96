"""The training step: per-task backward, the aggregate into ``.grad``, then the wrapped torch optimizer's step."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from optimizers.aggregators.base import Aggregator, JacobianAggregator
from optimizers.errors import NonFiniteError, OnSolverFailure
from optimizers.gradients._task_gradients import PartialGradients, any_reached, refuse_reentrant_checkpoints
from optimizers.training.coefficients import CoefficientReuse, GramianAverage, Solver
from optimizers.training.diagnostics import GradientMemory, StepDiagnostics, gradient_memory, stale_diagnostics
from optimizers.training.distributed import average_gradients, averaged, refuse_sharded, world_size
from optimizers.training.joint_update import (
    Observer,
    Update,
    joint_update,
    reused_update,
    update_through_features,
)
from optimizers.training.micro_batches import GradientSum, MicroBatch, micro_batch
from optimizers.training.options import OnNonFinite, check_optimizer, check_state, check_step_options
from optimizers.training.tracking import GradientTracking
from optimizers.training.trainable import add_to_gradients, among, clip, trainable

TaskWeights = Tensor | Sequence[float] | None
Features = Tensor | Sequence[Tensor] | None


class MultiTaskOptimizer:
    """Wraps a torch optimizer so that it steps along an aggregate of per-task gradients.

    Either ``backward`` (which adds the aggregate to ``.grad``, as ``Tensor.backward`` does), then whatever the caller
    does to gradients, then ``step()`` and ``zero_grad()``; or ``step(losses)``, which zeroes, goes backward and steps.

    A parameter that a task does not reach has gradient zero for it. One that no task reaches keeps its ``.grad``,
    usually None, so that the wrapped optimizer leaves it alone, as after ``Tensor.backward``.

    **Mixed precision.** ``backward(scaler.scale(losses), scale=scaler.get_scale())`` with
    ``on_nonfinite="propagate"`` ("skip" would leave the scaler nothing to find), then ``scaler.unscale_(optimizer)``,
    clipping, ``scaler.step(optimizer)`` and ``scaler.update()``; ``unscale_`` and ``step`` must be given the same
    object, this one or its ``.optimizer``.

    **Many processes.** Under ``torch.distributed`` every process takes the step of the joint batch, with or without
    DistributedDataParallel (:mod:`optimizers.training.distributed`).

    **Threads.** Optimizers without a common parameter may step at the same time, each in a thread; one optimizer, or
    several of the same parameters, must be used by one thread at a time.

    **The model.** Activation checkpointing needs ``use_reentrant=False``. A compiled model may need
    ``torch._functorch.config.donated_buffer = False``, as the tasks share one graph; torch's error says so.

    Args:
        optimizer: any torch optimizer that needs no closure; its parameters that require a gradient are differentiated.
        aggregator: maps a (K, K) Gramian and (K,) task weights to (K,) coefficients, such as
            :func:`optimizers.linear`; or a :class:`JacobianAggregator`, at the memory of one more K×P matrix; or a
            :class:`ScheduledScalarization`, which needs one backward pass (K where there is an ``observer``).
        shared: the parameters on which conflicts are resolved; None takes all. The others (task heads) get the
            gradient of the weighted sum, Σ ω_i g_i.
        refresh_every: N solves on every N-th step; the steps between go backward once, through Σ c_i L_i with the
            last coefficients c (twice if some parameters are not ``shared``), without the aggregator's guarantees.
            Other task weights than before are solved for at once.
        ema: β solves for the average of the Gramians with the weights β^age. Coefficients get steadier; what the
            aggregator guarantees then holds on average over the steps only
            (:class:`optimizers.training.coefficients.GramianAverage`).
        track: β solves for the moving averages of the task gradients of the steps before, with the weights β^age: an
            aggregator then decides without the step's own noise, at K×P more numbers
            (:class:`optimizers.training.tracking.GradientTracking`).
        clip_norm, clip_value: clip ``.grad``, by its norm over all parameters or entry by entry, in :meth:`step`.
        process_group: over which gradients are averaged; None is the default one.
        observer: called with the per-task gradients of the shared parameters (K lists of one tensor a parameter; of
            ``features`` if given) and their Gramian before they are combined, on fresh steps. It must not change them.
        on_nonfinite: "raise" a :class:`NonFiniteError`, "skip" the step and count it in ``skipped``, or "propagate":
            fill ``.grad`` with NaN, for a GradScaler to find; ``step(losses)``, in which none could, raises.
        on_solver_failure: where the aggregator reports that it did not reach its tolerance, "warn" and use its best
            answer, "raise" a :class:`SolverError`, or take the step of "linear" scalarization; counted in ``unsolved``.

    Attributes:
        last: :class:`StepDiagnostics` of the last successful backward, or None.
        skipped: steps skipped for non-finite losses or gradients.

    Raises:
        TypeError: for an optimizer that is none, needs a closure (LBFGS) or has sharded parameters; or no aggregator.
        ValueError: for an option outside its domain or that excludes another, ``shared`` parameters that the optimizer
            does not have, or a ``process_group`` without this process.

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
        ema: float | None = None,
        track: float | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        process_group: Any = None,
        observer: Observer | None = None,
        on_nonfinite: OnNonFinite = "raise",
        on_solver_failure: OnSolverFailure = "warn",
    ) -> None:
        check_optimizer(optimizer)
        check_step_options(
            aggregator,
            refresh_every=refresh_every,
            ema=ema,
            track=track,
            clip_norm=clip_norm,
            clip_value=clip_value,
            on_nonfinite=on_nonfinite,
            on_solver_failure=on_solver_failure,
        )
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        refuse_sharded(parameters)
        world_size(process_group)
        self.optimizer = optimizer
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.observer = observer
        self.on_nonfinite = on_nonfinite
        self.last: StepDiagnostics | None = None
        self.skipped = 0
        self._shared = None if shared is None else among(shared, parameters)
        self._solver = Solver(aggregator, on_solver_failure, process_group)
        self._average = GramianAverage(self._solver, ema)
        self._reuse = CoefficientReuse(self._average, refresh_every)
        self._tracking = GradientTracking(track)
        self._pending: GradientSum | None = None
        self._unreached: list[int] = []
        self._skip_next = False

    def accumulate(self, losses: Sequence[Tensor], task_weights: TaskWeights = None, *, scale: float = 1.0) -> None:
        """Add the task gradients of one micro-batch, on this process alone; the next :meth:`backward` includes them.

        The aggregate is then that of the joint batch, at no more memory than without. Divide every loss by the number
        of micro-batches. (Calling :meth:`backward` for each micro-batch instead sums their aggregates.)

        Args:
            losses, task_weights, scale: as for :meth:`backward`; non-finite numbers are found there.

        Raises:
            ValueError: as :meth:`backward`, or for other tasks, task weights or trainable parameters than before.
            RuntimeError: after an error that left a micro-batch half added, until :meth:`zero_grad`.
        """
        batch = self._micro_batch(losses, task_weights, scale)
        if self._pending is None:
            total = GradientSum.zero(batch)
        else:
            total = self._pending
            total.check(batch)
        total.add(batch)
        self._pending = total
        self._check_unreached(total.unreached(), batch)

    def backward(
        self,
        losses: Sequence[Tensor],
        task_weights: TaskWeights = None,
        *,
        scale: float = 1.0,
        features: Features = None,
    ) -> None:
        """Add the aggregate of the task gradients to ``.grad`` of every parameter that a task reaches.

        The graph of the losses is freed, as by ``Tensor.backward``.

        Args:
            losses: K scalar tensors.
            task_weights: K weights ≥ 0, not all zero; ones by default.
            scale: what the losses were multiplied by, ``GradScaler.get_scale()``. ``.grad`` keeps it, for
                ``GradScaler.unscale_``; diagnostics and the observer see true units.
            features: the representation z that all losses are computed from. The Gramian is then that of ∂L_i/∂z, by K
                backwards through the heads only; one backward takes Σ c_i ∂L_i/∂z through what computed z, and what
                is behind z gets Σ ω_i g_i. Exact only where ∂z/∂θ preserves angles
                (:mod:`optimizers.training.features`).

        Raises:
            ValueError: for no losses, a loss that is not a scalar or has no gradient, bad weights or scale, sparse
                or complex gradients, or losses that reach no parameter; the message names the task. For features that
                are detached or bypassed, or come with ``shared``, a :class:`JacobianAggregator` or micro-batches.
            SolverError: if the coefficients were not solved for and ``on_solver_failure`` is "raise".
            NonFiniteError: for a non-finite loss or gradient on any process, unless ``on_nonfinite`` says otherwise.
                Accumulated micro-batches are dropped.
        """
        self._backward(self._micro_batch(losses, task_weights, scale, features), within_step=False)

    def step(
        self, losses: Sequence[Tensor] | None = None, task_weights: TaskWeights = None, *, features: Features = None
    ) -> None:
        """Step the wrapped optimizer; with ``losses`` zero the gradients and go backward first.

        Accumulated micro-batches are part of that backward. After a backward that was skipped for non-finite numbers
        this does nothing but count.

        Args:
            losses, task_weights, features: as for :meth:`backward`.

        Raises:
            ValueError, NonFiniteError, SolverError: as :meth:`backward`, before anything is changed.
            TypeError: if ``task_weights`` or ``features`` come without ``losses``.
            RuntimeError: if accumulated micro-batches still wait for a backward.
        """
        if losses is not None:
            self._skip_next = False
            self._backward(self._micro_batch(losses, task_weights, 1.0, features), within_step=True)
        elif task_weights is not None or features is not None:
            raise TypeError("step() takes task_weights and features only together with losses")
        if self._skip_next:
            self._skip_next = False
            self.skipped += 1
            return
        if self._pending is not None:
            raise RuntimeError(
                "accumulated micro-batches wait for a backward: call backward() instead of accumulate() for the last "
                "micro-batch of a step, or zero_grad() to drop them"
            )
        clip(self.param_groups, self.clip_norm, self.clip_value)
        self.optimizer.step()

    def memory(self, tasks: int) -> GradientMemory:
        """Memory of the gradients of K ``tasks``, to be printed; see :class:`GradientMemory`."""
        return gradient_memory(tasks, trainable(self.param_groups, self._shared).parameters)

    @property
    def aggregator(self) -> Any:
        """What the optimizer was constructed with, or has been given since."""
        return self._solver.aggregator

    @aggregator.setter
    def aggregator(self, aggregator: Aggregator | JacobianAggregator) -> None:
        self._solver.aggregator = aggregator

    @property
    def unsolved(self) -> int:
        """Steps on which the aggregator did not reach its tolerance."""
        return self._solver.unsolved

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
        """State of the wrapped optimizer and of the aggregator if it has one; options, coefficients, average, counts.

        Micro-batches that wait for a backward are not part of it: save between steps.
        """
        return {
            "optimizer": self.optimizer.state_dict(),
            "options": self._options(),
            "aggregator": self.aggregator.state_dict() if hasattr(self.aggregator, "state_dict") else None,
            "skipped": self.skipped,
            "unsolved": self.unsolved,
            "reuse": self._reuse.state_dict(),
            "average": self._average.state_dict(),
            "tracking": self._tracking.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            ValueError: if it is not such a state, or was saved with other aggregator options; nothing is loaded then.
        """
        check_state(state_dict, self._options(), type(self).__name__)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        if hasattr(self.aggregator, "load_state_dict") and state_dict["aggregator"] is not None:
            self.aggregator.load_state_dict(state_dict["aggregator"])
        self.skipped = state_dict["skipped"]
        self._solver.unsolved = state_dict["unsolved"]
        self._reuse.load_state_dict(state_dict["reuse"])
        self._average.load_state_dict(state_dict["average"])
        self._tracking.load_state_dict(state_dict.get("tracking"))
        self._pending = None
        self._skip_next = False

    def _options(self) -> dict[str, Any]:
        return {}

    def _micro_batch(
        self, losses: Sequence[Tensor], task_weights: TaskWeights, scale: float, features: Features = None
    ) -> MicroBatch:
        if features is not None and self._shared is not None:
            raise ValueError("features decide which parameters are shared; construct the optimizer without shared=")
        if features is not None and self._tracking.decay is not None:
            raise ValueError("features differ from step to step and cannot be tracked; construct without track=")
        batch = micro_batch(losses, task_weights, scale, trainable(self.param_groups, self._shared), features)
        scheduled = self._solver.schedule is not None
        return replace(batch, reused=None if scheduled and self.observer else self._reuse.for_step(batch.weights))

    def _backward(self, batch: MicroBatch, *, within_step: bool) -> None:
        try:
            update, self.last = self._update(batch, self.optimizer.zero_grad if within_step else lambda: None)
        except NonFiniteError as error:
            self._pending = None
            self._nonfinite(error, batch.trainable.parameters, within_step)
            return
        if within_step:
            self.zero_grad()
        add_to_gradients(batch.trainable.parameters, update)

    def _update(self, batch: MicroBatch, release: Callable[[], object]) -> tuple[Update, StepDiagnostics]:
        """The update of the micro-batches that wait and a last one, and what to report of it."""
        aggregate = self.aggregator if isinstance(self.aggregator, JacobianAggregator) else self._reuse
        group, observer = self._solver.process_group, self.observer
        losses = self._joint_losses(batch)
        if batch.features and batch.reused is None:
            return update_through_features(batch, losses, aggregate, group, observer, self._check_unreached)
        gradients = self._joint_gradients(batch)
        if batch.reused is None:
            return joint_update(gradients, batch, losses, aggregate, self._tracking, group, observer, release)
        update = reused_update(gradients, batch, release)
        self._reuse.count()
        return update, stale_diagnostics(losses, batch.reused, self.last)

    def _joint_losses(self, batch: MicroBatch) -> Tensor:
        """(K,) losses of the joint batch over all micro-batches and processes."""
        if self._pending is not None:
            self._pending.check(batch)
        losses = batch.values if self._pending is None else self._pending.losses + batch.values
        losses = averaged(losses, self._solver.process_group, batch.device)
        if not losses.isfinite().all():
            task = int((~losses.isfinite()).nonzero()[0])
            raise NonFiniteError(f"loss of task {task} is {losses[task].item()}")
        return losses

    def _joint_gradients(self, batch: MicroBatch) -> PartialGradients:
        """Task gradients of the joint batch; no micro-batch waits any longer."""
        if self._pending is None:
            total = GradientSum.of(batch)
        else:
            total = self._pending
            total.add(batch)
        self._pending = None
        self._check_unreached(total.unreached(), batch)
        average_gradients(total.gradients, total.parameters, self._solver.process_group)
        if not any(any_reached(of_task) for of_task in total.gradients):
            raise ValueError(
                "the losses reach no parameter of the optimizer: was the model replaced, or sharded, after the "
                "optimizer was built?"
            )
        return total.gradients

    def _check_unreached(self, unreached: list[int], batch: MicroBatch) -> None:
        """Look for checkpoints that hide parameters where others than in the step before are not reached."""
        if unreached and unreached != self._unreached:
            refuse_reentrant_checkpoints(batch.losses)
        self._unreached = unreached

    def _nonfinite(self, error: NonFiniteError, parameters: Sequence[Tensor], within_step: bool) -> None:
        if self.on_nonfinite == "skip":
            self._skip_next = True
        elif self.on_nonfinite == "propagate" and not within_step:
            for parameter in parameters:
                parameter.grad = torch.full_like(parameter, torch.nan)
        else:
            advice = 'Lower the learning rate or look at this batch, or pass on_nonfinite="skip" to skip such steps'
            raise NonFiniteError(f"{error}; nothing was changed. {advice}") from None
