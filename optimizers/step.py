"""The training step: per-task backward, the aggregate into ``.grad``, then the wrapped torch optimizer's step."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from optimizers.combination import Aggregator, JacobianAggregator, check_aggregator
from optimizers.diagnostics import NonFiniteError, StepDiagnostics
from optimizers.distributed import refuse_sharded, world_size
from optimizers.joint_update import JointUpdate, Observer
from optimizers.micro_batches import MicroBatch, micro_batch
from optimizers.reuse import CoefficientReuse
from optimizers.trainable import identities, trainable

OnNonFinite = Literal["raise", "skip", "propagate"]


class MultiTaskOptimizer:
    """Wraps a torch optimizer so that it steps along an aggregate of per-task gradients.

    Either ``backward`` (which adds the aggregate to ``.grad``, as ``Tensor.backward`` does), then whatever
    the caller does to gradients, then ``step()`` and ``zero_grad()``; or ``step(losses)``, which zeroes,
    goes backward and steps.

    A parameter that a task does not reach has gradient zero for it. One that no task reaches keeps its ``.grad``,
    usually None, so that the wrapped optimizer leaves it alone, as after ``Tensor.backward``.

    **Mixed precision.** ``backward(scaler.scale(losses), scale=scaler.get_scale())`` with
    ``on_nonfinite="propagate"`` ("skip" would leave the scaler nothing to find), then ``scaler.unscale_(optimizer)``,
    clipping, ``scaler.step(optimizer)`` and ``scaler.update()``; ``unscale_`` and ``step`` must be given the same
    object, this one or its ``.optimizer``.

    **Many processes.** Under ``torch.distributed`` the task gradients are averaged over the processes before they are
    aggregated, and the first process's coefficients are taken by all, so that every process takes the step of the
    joint batch; every process must make the same calls. A model wrapped in DistributedDataParallel works with and
    without ``find_unused_parameters``, ``gradient_as_bucket_view`` and ``no_sync``; its reducer and its communication
    hooks see nothing of these steps, and ``Tensor.backward`` may be used between them, except with
    ``static_graph=True``. The optimizer's state may be sharded (``ZeroRedundancyOptimizer``). Sharded parameters (FSDP)
    and tensor parallelism are refused; a model must not be sharded after the optimizer was built.

    **The model.** Activation checkpointing needs ``use_reentrant=False``. A compiled model may need
    ``torch._functorch.config.donated_buffer = False``, as the tasks share one graph; torch's error says so.

    Args:
        optimizer: any torch optimizer that needs no closure; its parameters that require a gradient are
            the ones differentiated.
        aggregator: maps a (K, K) Gramian and (K,) task weights to (K,) coefficients, such as
            :func:`optimizers.linear`; or a :class:`JacobianAggregator`, at the memory of one more K×P matrix.
        shared: the parameters on which conflicts are resolved; None takes all. The others (task heads) get the
            gradient of the weighted sum, Σ ω_i g_i.
        refresh_every: N solves on every N-th step; the steps between go backward once, through Σ c_i L_i with the
            last coefficients c (twice where there are parameters that are not ``shared``). That gives up the
            aggregator's guarantees on these steps. Other task weights than before are solved for at once.
        process_group: over which gradients are averaged; None is the default group. A group of this
            process alone averages nothing.
        observer: called with the per-task gradients of the shared parameters (K lists of one tensor a parameter) and
            their Gramian before they are combined, on fresh steps; for gradient logs. It must not change them.
        on_nonfinite: "raise" a :class:`NonFiniteError`, "skip" the step and count it in ``skipped``, or "propagate":
            fill ``.grad`` with NaN, for a GradScaler to find; ``step(losses)``, in which none could, raises.

    Attributes:
        last: :class:`StepDiagnostics` of the last successful backward, or None.
        skipped: number of steps skipped for non-finite losses or gradients.

    Raises:
        TypeError: if ``optimizer`` is no torch optimizer, needs a closure (LBFGS) or has sharded parameters, or
            ``aggregator`` is none.
        ValueError: for an unknown ``on_nonfinite``, a ``refresh_every`` below 1 or above 1 with a
            :class:`JacobianAggregator`, ``shared`` parameters that the optimizer does not have, or a
            ``process_group`` without this process.

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
        check_aggregator(aggregator)
        if on_nonfinite not in ("raise", "skip", "propagate"):
            raise ValueError(f"on_nonfinite = {on_nonfinite!r} must be 'raise', 'skip' or 'propagate'")
        if refresh_every < 1:
            raise ValueError(f"refresh_every = {refresh_every} must be >= 1; 1 solves on every step")
        if refresh_every > 1 and isinstance(aggregator, JacobianAggregator):
            raise ValueError(
                f"refresh_every = {refresh_every} needs coefficients to reuse, which {type(aggregator).__name__} "
                "does not have; use 1"
            )
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        refuse_sharded(parameters)
        world_size(process_group)
        self.optimizer = optimizer
        self.aggregator = aggregator
        self.observer = observer
        self.on_nonfinite = on_nonfinite
        self.last: StepDiagnostics | None = None
        self.skipped = 0
        self._shared = None if shared is None else identities(shared, parameters)
        self._reuse = CoefficientReuse(refresh_every)
        self._joint = JointUpdate(aggregator, self._aggregate, self._reuse, process_group)
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
            ValueError: as :meth:`backward`, or for other tasks, task weights or trainable parameters than before.
        """
        self._joint.accumulate(self._micro_batch(losses, task_weights, scale))

    def backward(
        self, losses: Sequence[Tensor], task_weights: Tensor | Sequence[float] | None = None, *, scale: float = 1.0
    ) -> None:
        """Add the aggregate of the task gradients to ``.grad`` of every parameter that a task reaches.

        The graph of the losses is freed, as by ``Tensor.backward``.

        Args:
            losses: K scalar tensors.
            task_weights: K weights ≥ 0, not all zero; ones by default.
            scale: what the losses were multiplied by, ``GradScaler.get_scale()``. ``.grad`` keeps it, for
                ``GradScaler.unscale_``; diagnostics and the observer see true units.

        Raises:
            ValueError: for no losses, a loss that is not a scalar or has no gradient, bad weights or scale, sparse
                or complex gradients, or losses that reach no parameter; the message names the task.
            NonFiniteError: for a non-finite loss or gradient on any process, unless ``on_nonfinite`` says otherwise.
                Accumulated micro-batches are dropped.
        """
        self._backward(self._micro_batch(losses, task_weights, scale), within_step=False)

    def step(
        self,
        losses: Sequence[Tensor] | None = None,
        task_weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        """Step the wrapped optimizer; with ``losses`` zero the gradients and go backward first.

        Accumulated micro-batches are part of that backward. After a backward that was skipped for non-finite numbers
        this does nothing but count.

        Args:
            losses, task_weights: as for :meth:`backward`.

        Raises:
            ValueError, NonFiniteError: as :meth:`backward`, before anything is changed.
            TypeError: if ``task_weights`` come without ``losses``.
            RuntimeError: if accumulated micro-batches still wait for a backward.
        """
        if losses is not None:
            self._skip_next = False
            self._backward(self._micro_batch(losses, task_weights, 1.0), within_step=True)
        elif task_weights is not None:
            raise TypeError("step() takes task_weights only together with losses")
        if self._skip_next:
            self._skip_next = False
            self.skipped += 1
            return
        if self._joint.pending is not None:
            raise RuntimeError(
                "accumulated micro-batches wait for a backward: call backward() instead of accumulate() for the last "
                "micro-batch of a step, or zero_grad() to drop them"
            )
        self.optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients as ``torch.optim.Optimizer.zero_grad``; forget micro-batches and a skipped backward."""
        self._skip_next = False
        self._joint.pending = None
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
        """State of the wrapped optimizer and the aggregator, its options, reused coefficients, count of skipped steps.

        The aggregator's is None unless it has a ``state_dict``. Micro-batches that wait for a backward are not part of
        it: save between steps.
        """
        return {
            "optimizer": self.optimizer.state_dict(),
            "options": self._options(),
            "aggregator": self.aggregator.state_dict() if hasattr(self.aggregator, "state_dict") else None,
            "skipped": self.skipped,
            "reuse": self._reuse.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            ValueError: if it is not such a state, or was saved with other aggregator options; nothing is
                loaded then.
        """
        expected = {"optimizer", "options", "aggregator", "skipped", "reuse"}
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
        if hasattr(self.aggregator, "load_state_dict") and state_dict["aggregator"] is not None:
            self.aggregator.load_state_dict(state_dict["aggregator"])
        self.skipped = state_dict["skipped"]
        self._reuse.load_state_dict(state_dict["reuse"])
        self._joint.pending = None
        self._skip_next = False

    def _options(self) -> dict[str, Any]:
        return {}

    def _aggregate(self, M: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Coefficients, and further fields of :class:`StepDiagnostics`."""
        return self.aggregator(M, weights), {}  # type: ignore[operator]

    def _micro_batch(
        self, losses: Sequence[Tensor], task_weights: Tensor | Sequence[float] | None, scale: float
    ) -> MicroBatch:
        return micro_batch(losses, task_weights, scale, trainable(self.param_groups, self._shared))

    def _backward(self, batch: MicroBatch, *, within_step: bool) -> None:
        parameters = batch.trainable.parameters
        try:
            update, self.last = self._joint.update(batch, self.last, self.observer)
        except NonFiniteError as error:
            self._joint.pending = None
            self._nonfinite(error, parameters, within_step)
            return
        if within_step:
            self.zero_grad()
        with torch.no_grad():
            for parameter, part in zip(parameters, update, strict=True):
                if parameter.grad is None:
                    parameter.grad = part
                elif part is not None:
                    parameter.grad += part

    def _nonfinite(self, error: NonFiniteError, parameters: Sequence[Tensor], within_step: bool) -> None:
        if self.on_nonfinite == "skip":
            self._skip_next = True
        elif self.on_nonfinite == "propagate" and not within_step:
            for parameter in parameters:
                parameter.grad = torch.full_like(parameter, torch.nan)
        else:
            raise NonFiniteError(
                f"{error}; nothing was changed. Lower the learning rate or look at this batch, or pass "
                'on_nonfinite="skip" to skip and count such steps'
            ) from None
