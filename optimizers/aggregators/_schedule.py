"""Scheduled scalarization: a weighted sum whose weights are a function of the step, from a table or a callable."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optimizers.files import write_text

Schedule = Callable[[int], Tensor | Sequence[float]]
"""Step, from 0, to K weights."""


class ScheduleError(ValueError):
    """A file holds no schedule; the message names file and line."""


@dataclass(frozen=True)
class WeightSchedule:
    """A table of task weights, one row a training step; beyond its last row it keeps that one.

    **File.** CSV in UTF-8: a heading ``step,TASK,…`` and a line ``t,c_1,…,c_K`` for each step t = 0, 1, …, with as many
    digits as float64 has. ``rrg train`` writes what its aggregator decided in this form (``coefficients.csv``).

    Attributes:
        weights: (n, K) float64, on the CPU.
        tasks: K names.

    Raises:
        ValueError: for no rows, weights that are not finite, or another number of names.

    Example:
        >>> schedule = WeightSchedule(torch.tensor([[1.0, 4.0], [1.0, 2.0]]).double(), ("rg", "dc"))
        >>> schedule(1), schedule(100)
        (tensor([1., 2.], dtype=torch.float64), tensor([1., 2.], dtype=torch.float64))
        >>> schedule.mean()(0)
        tensor([1., 3.], dtype=torch.float64)
    """

    weights: Tensor
    tasks: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.weights.dim() != 2 or 0 in self.weights.shape:
            raise ValueError(f"weights must be a table (steps, tasks), got shape {tuple(self.weights.shape)}")
        if len(self.tasks) != self.weights.shape[1] or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"{self.weights.shape[1]} columns need as many different task names, got {self.tasks}")
        if not self.weights.isfinite().all():
            row = int((~self.weights.isfinite()).any(1).nonzero()[0])
            raise ValueError(f"the weights of step {row} are not finite: {self.weights[row].tolist()}")

    def __len__(self) -> int:
        return len(self.weights)

    def __call__(self, step: int) -> Tensor:
        """(K,) float64 weights of a step ≥ 0."""
        return self.weights[min(step, len(self) - 1)]

    def mean(self) -> "WeightSchedule":
        """One row, the mean over all steps."""
        return WeightSchedule(self.weights.mean(0, keepdim=True), self.tasks)

    def smoothed(self, window: int) -> "WeightSchedule":
        """Centred moving averages over ``window`` steps, over as many as there are on both sides near the ends.

        Raises:
            ValueError: for a window below 1.

        Example:
            >>> WeightSchedule(torch.tensor([[0.0], [3.0], [0.0], [0.0]]), ("rg",)).smoothed(3).weights.flatten()
            tensor([0., 1., 1., 0.], dtype=torch.float64)
        """
        if window < 1:
            raise ValueError(f"window = {window} must be >= 1: how many steps to average over")
        n, half = len(self), (window - 1) // 2
        if half == 0:
            return self
        steps = torch.arange(n)
        reach = torch.minimum(torch.full((n,), half), torch.minimum(steps, n - 1 - steps))
        sums = torch.cat([torch.zeros(1, len(self.tasks), dtype=torch.float64), self.weights.double().cumsum(0)])
        return WeightSchedule((sums[steps + reach + 1] - sums[steps - reach]) / (2 * reach + 1)[:, None], self.tasks)

    def stretched(self, steps: int) -> "WeightSchedule":
        """The same course over another number of steps, linear between rows.

        Raises:
            ValueError: for fewer than one step.

        Example:
            >>> WeightSchedule(torch.tensor([[0.0], [1.0]]), ("rg",)).stretched(3).weights.flatten()
            tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
        """
        if steps < 1:
            raise ValueError(f"steps = {steps} must be >= 1")
        table = self.weights.double()
        at = torch.linspace(0, len(self) - 1, steps, dtype=torch.float64)
        low = at.floor().long().clamp_max(max(0, len(self) - 2))
        return WeightSchedule(
            torch.lerp(table[low], table[(low + 1).clamp_max(len(self) - 1)], (at - low)[:, None]), self.tasks
        )

    @classmethod
    def average(cls, schedules: Iterable["WeightSchedule"]) -> "WeightSchedule":
        """Step by step the mean of several schedules of the same tasks, each stretched to the length of the longest.

        Raises:
            ValueError: for none, or other tasks in one of them.

        Example:
            >>> one = WeightSchedule(torch.tensor([[1.0]]), ("rg",))
            >>> WeightSchedule.average([one, WeightSchedule(torch.tensor([[3.0], [5.0]]), ("rg",))]).weights.flatten()
            tensor([2., 3.], dtype=torch.float64)
        """
        several = list(schedules)
        if not several or any(other.tasks != several[0].tasks for other in several):
            raise ValueError(f"schedules to average must have the same tasks, got {[s.tasks for s in several]}")
        length = max(map(len, several))
        return cls(torch.stack([s.stretched(length).weights for s in several]).mean(0), several[0].tasks)

    @classmethod
    def read(cls, path: str | Path) -> "WeightSchedule":
        """Read a file.

        Raises:
            ScheduleError: for a file that is no schedule, naming the line.
            OSError: if it cannot be read.
        """
        with Path(path).open(newline="", encoding="utf-8") as file:
            heading, *rows = list(csv.reader(file)) or [[]]
        if heading[:1] != ["step"] or len(heading) < 2:
            raise ScheduleError(f"{path} begins with {','.join(heading)!r}, a schedule with 'step' and names of tasks")
        table = []
        for number, row in enumerate(rows):
            try:
                step, *values = int(row[0]), *map(float, row[1:])
            except (ValueError, IndexError):
                raise ScheduleError(f"{path}, line {number + 2}: {','.join(row)!r} is no row of numbers") from None
            if step != number or len(values) != len(heading) - 1 or not all(map(math.isfinite, values)):
                raise ScheduleError(
                    f"{path}, line {number + 2}: expected step {number} and {len(heading) - 1} finite weights, "
                    f"got {','.join(row)!r}"
                )
            table.append(values)
        if not table:
            raise ScheduleError(f"{path} holds no step yet")
        return cls(torch.tensor(table, dtype=torch.float64), tuple(heading[1:]))

    def write(self, path: str | Path) -> None:
        """Write a file, whole or not at all.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     WeightSchedule(torch.tensor([[1.0, 0.5]]), ("rg", "dc")).write(f"{folder}/c.csv")
            ...     print(Path(f"{folder}/c.csv").read_text(), WeightSchedule.read(f"{folder}/c.csv").weights)
            step,rg,dc
            0,1.0,0.5
             tensor([[1.0000, 0.5000]], dtype=torch.float64)
        """
        lines = [schedule_heading(self.tasks), *map(schedule_row, range(len(self)), self.weights.tolist())]
        write_text(Path(path), "".join(lines))


def schedule_heading(tasks: Sequence[str]) -> str:
    """First line of a schedule's file."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(["step", *tasks])
    return line.getvalue()


def schedule_row(step: int, weights: Sequence[float]) -> str:
    """Line of one step in a schedule's file."""
    return ",".join([str(step), *map(repr, map(float, weights))]) + "\n"


class ScheduledScalarization:
    r"""Linear scalarization with weights that depend on the step: F_t(G) = Gᵀc(t).

    The weights are known before the gradients, so that :class:`optimizers.MultiTaskOptimizer` differentiates the one
    loss Σ c_i(t)L_i: a single backward pass a step, whatever K is. With the schedule of a run of CAME-Grad it replays
    what that run optimized (theory T18). The task weights that a step is given do not enter.

    Args:
        schedule: step, from 0, to K weights: a :class:`WeightSchedule` or any function.

    Attributes:
        step: of the schedule that comes next; part of the optimizer's state.

    Example:
        >>> from optimizers import MultiTaskOptimizer
        >>> x = torch.nn.Parameter(torch.zeros(1))
        >>> rule = ScheduledScalarization(lambda step: [1.0, 0.0] if step == 0 else [0.0, 1.0])
        >>> optimizer = MultiTaskOptimizer(torch.optim.SGD([x], lr=1.0), rule)
        >>> optimizer.step([x.sum(), 10 * x.sum()])
        >>> optimizer.step([x.sum(), 10 * x.sum()])
        >>> x.item()  # −1 − 10
        -11.0
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.step = schedule, 0

    def ahead(self, tasks: int) -> Tensor:
        """(K,) float64 coefficients of the next step.

        Raises:
            ValueError: if the schedule gives another number of weights than there are tasks, or not finite ones.
        """
        weights = torch.as_tensor(self.schedule(self.step), dtype=torch.float64).cpu()
        if weights.shape != (tasks,) or not weights.isfinite().all():
            raise ValueError(f"the schedule gives {weights.tolist()} at step {self.step}, not {tasks} finite weights")
        return weights

    def advance(self) -> None:
        """Go on to the next step."""
        self.step += 1

    def __call__(self, gramian: Tensor, task_weights: Tensor) -> Tensor:
        """(..., K) coefficients of the next step, where the Gramian is known all the same."""
        return self.ahead(gramian.shape[-1]).to(gramian.device).expand(gramian.shape[:-1]).clone()

    def state_dict(self) -> dict[str, Any]:
        """The step."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.step = int(state["step"])
