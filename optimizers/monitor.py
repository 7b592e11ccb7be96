"""Conflict between the tasks of any training loop, measured beside its optimizer."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from optimizers.aggregators._came_grad import came_grad_stages
from optimizers.dual.solve import check_rho
from optimizers.errors import collect_unsolved
from optimizers.gradients._gramian import gramian_of_parameters
from optimizers.gradients._task_gradients import any_reached, gradient, loss_values
from optimizers.gradients.checks import check_gramian, check_task_weights
from optimizers.linalg import times
from optimizers.training.diagnostics import cosine_matrix
from optimizers.training.distributed import average_gradients, averaged, refuse_sharded, world_size
from optimizers.training.trainable import check_numbers


@dataclass(frozen=True)
class ConflictReading:
    """One measurement of K tasks; CPU tensors, float64 unless said otherwise.

    Attributes:
        step: calls of the monitor before this one.
        losses: (K,).
        gramian: (K, K) inner products of the task gradients.
        norms: (K,) norms of the task gradients.
        cosines: (K, K); 0 where a gradient is zero.
        angles: (K, K) in degrees, 90 where a gradient is zero.
        conflicts: (K, K) bool, whether the cosine is negative.
        conflict_rate: share of the pairs i < j that conflict; 0 for one task.
        harmed: (K,) bool, whether linear scalarization makes the task worse, g_iᵀg_J < 0 (theory T2).
        dual_value: f(α*) of CAME-Grad's first stage.
        valid: whether its direction u* makes no task worse, f(α*) ≥ 0 (theory T5).
        angle_to_linear: between u* and g_J, in degrees; 0 where one of them vanishes.
        distance_to_linear: ‖u*/‖u*‖ − g_J/‖g_J‖‖, between 0 and 2; 0 where one of them vanishes.
    """

    step: int
    losses: Tensor
    gramian: Tensor
    norms: Tensor
    cosines: Tensor
    angles: Tensor
    conflicts: Tensor
    conflict_rate: float
    harmed: Tensor
    dual_value: float
    valid: bool
    angle_to_linear: float
    distance_to_linear: float


class ConflictMonitor:
    """Measures on every N-th call; the training loop, its optimizer and what they compute stay as they are.

    Call it after the losses and before the loop's own backward: it differentiates each loss with
    ``retain_graph=True``, so that the graph is still there, and touches neither ``.grad`` nor the random number
    generators of the CPU and of the parameters' devices. It costs K backwards and K gradient sets of memory on the
    calls that measure, and nothing on the others. Tensor hooks of the parameters see these backwards; hooks after
    accumulation, and the reducer of DistributedDataParallel, do not. A compiled model may need
    ``torch._functorch.config.donated_buffer = False``.

    Args:
        parameters: on which conflict is measured, such as the shared part of the model; those that require no gradient
            are left out, call by call.
        every: N, measures on calls 0, N, 2N …
        window: readings that :meth:`averages` takes together.
        rho: relative trust-region radius ρ in [0, 1) of the validity certificate.
        average: under ``torch.distributed``, measure the gradients of the joint batch; every process must call then,
            and the gradients are sent. Otherwise each process measures its own batch.
        process_group: over which to average.

    Attributes:
        last: the last :class:`ConflictReading`, or None.
        readings: those of the window.
        calls: number of calls.
        nonfinite: measurements given up because a loss or gradient was not finite; they are in no average.

    Raises:
        ValueError: for ``every`` or ``window`` below 1, ``rho`` outside [0, 1), or no parameter.
        TypeError: for sharded parameters.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> monitor = ConflictMonitor(model.parameters(), every=2)
        >>> for _ in range(4):
        ...     losses = (model(torch.ones(2)) - 1).square()
        ...     reading = monitor(losses.unbind())
        ...     optimizer.zero_grad()
        ...     losses.sum().backward()
        ...     optimizer.step()
        >>> monitor.averages()["readings"], monitor.averages()["conflict_rate"]
        (2, 0.0)
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        every: int = 1,
        window: int = 100,
        rho: float = 0.5,
        average: bool = False,
        process_group: Any = None,
    ) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("parameters holds no parameter to measure conflict on")
        for name, value in (("every", every), ("window", window)):
            if value < 1:
                raise ValueError(f"{name} = {value} must be >= 1")
        check_rho(rho)
        refuse_sharded(self.parameters)
        if average:
            world_size(process_group)
        self.every, self.rho = every, rho
        self.average, self.process_group = average, process_group
        self.readings: deque[ConflictReading] = deque(maxlen=window)
        self.last: ConflictReading | None = None
        self.calls = 0
        self.nonfinite = 0

    def __call__(
        self, losses: Sequence[Tensor], task_weights: Tensor | Sequence[float] | None = None
    ) -> ConflictReading | None:
        """Measure, if it is this call's turn.

        Args:
            losses: K scalar tensors, whose graph is kept.
            task_weights: K weights of linear scalarization, ones by default.

        Returns:
            The reading; None on other calls, and for a loss or gradient that is not finite.

        Raises:
            ValueError: as :meth:`optimizers.MultiTaskOptimizer.backward`; for another number of tasks than before.
        """
        step, self.calls = self.calls, self.calls + 1
        if step % self.every:
            return None
        values = loss_values(losses)
        weights = check_task_weights(task_weights, torch.empty(len(values), len(values)))
        if self.last is not None and len(self.last.losses) != len(values):
            raise ValueError(f"got {len(values)} losses after {len(self.last.losses)}; construct a monitor for each")
        M = self._gramian(losses)
        if self.average:
            values = averaged(values, self.process_group, self.parameters[0].device)
        if not (M.isfinite().all() and values.isfinite().all()):
            self.nonfinite += 1
            return None
        self.last = read(step, values, check_gramian(M), weights, self.rho)
        self.readings.append(self.last)
        return self.last

    def averages(self) -> dict[str, Any]:
        """Means over the window, as numbers and nested lists; only ``readings`` = 0 before the first one.

        ``conflict_rate`` is the share of conflicting pairs, ``any_conflict`` that of the readings with one.
        """
        if not self.readings:
            return {"readings": 0}

        def mean(name: str) -> Any:
            values = [getattr(reading, name) for reading in self.readings]
            return torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in values]).mean(0).tolist()

        names = [field.name for field in fields(ConflictReading) if field.name not in ("step", "gramian")]
        any_conflict = sum(bool(reading.conflicts.any()) for reading in self.readings) / len(self.readings)
        return {
            "readings": len(self.readings),
            **{name: mean(name) for name in names},
            "any_conflict": any_conflict,
        }

    def _gramian(self, losses: Sequence[Tensor]) -> Tensor:
        parameters = [p for p in self.parameters if p.requires_grad]
        check_numbers(parameters)
        devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
        with torch.random.fork_rng(devices=devices):
            gradients = [
                gradient([loss], parameters, keep=True, name=f"task {task}") for task, loss in enumerate(losses)
            ]
        if not any(any_reached(of_task) for of_task in gradients):
            raise ValueError("the losses reach none of the monitored parameters: are they frozen, or of another model?")
        if self.average:
            average_gradients(gradients, parameters, self.process_group)
        return gramian_of_parameters(gradients)


def read(step: int, losses: Tensor, gramian: Tensor, weights: Tensor, rho: float = 0.5) -> ConflictReading:
    """A reading of a (K, K) Gramian, with (K,) task weights.

    Example:
        >>> M = torch.tensor([[1.0, -1.0], [-1.0, 2.0]]).double()
        >>> reading = read(0, torch.ones(2), M, torch.tensor([1.0, 4.0]).double())
        >>> reading.conflict_rate, reading.harmed, reading.valid
        (1.0, tensor([ True, False]), True)
        >>> reading.angles[0, 1]
        tensor(135., dtype=torch.float64)
    """
    with collect_unsolved():  # a loop is not to be disturbed: the value then is the best known
        stages = came_grad_stages(gramian, weights, rho=rho)
    norms, cosines = cosine_matrix(gramian)
    upper = torch.triu(torch.ones_like(gramian, dtype=torch.bool), 1)
    conflicts = (cosines < 0) & ~torch.eye(len(gramian), dtype=torch.bool)
    joint = times(gramian, weights)
    lengths = [(c @ gramian @ c).clamp_min(0).sqrt() for c in (stages.rectified, weights)]
    product = lengths[0] * lengths[1]
    cosine = (stages.rectified @ joint / product).clamp(-1, 1) if product > 0 else torch.ones_like(product)
    return ConflictReading(
        step=step,
        losses=losses,
        gramian=gramian,
        norms=norms,
        cosines=cosines,
        angles=cosines.clamp(-1, 1).acos().rad2deg(),
        conflicts=conflicts,
        conflict_rate=conflicts[upper].double().mean().item() if len(gramian) > 1 else 0.0,
        harmed=joint < 0,
        dual_value=stages.dual.value.item(),
        valid=bool(stages.valid),
        angle_to_linear=cosine.acos().rad2deg().item(),
        distance_to_linear=(2 - 2 * cosine).clamp_min(0).sqrt().item(),
    )
