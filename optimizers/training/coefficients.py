"""From Gramian to coefficients: the aggregator's solver, what averages Gramians before it, what reuses its answer.

Each wraps the one before. ``solve`` changes nothing; ``keep`` makes its answer part of the state, once the step that it
was solved for is sure to be taken.
"""

import warnings
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from optimizers.aggregators.base import Aggregator, JacobianAggregator, ScheduledAggregator
from optimizers.errors import OnSolverFailure, SolverError, SolverWarning, collect_unsolved
from optimizers.training.distributed import from_first
from optimizers.training.tracking import newest_share


class Solution(NamedTuple):
    """The answer for one step."""

    coefficients: Tensor
    """(K,) float64 on the CPU, c with the update Gᵀc."""
    gramian: Tensor
    """(K, K) that was solved for."""
    weights: Tensor
    """(K,) task weights."""
    diagnostics: dict[str, Any]
    """Further fields of :class:`optimizers.StepDiagnostics`."""


class Explained(Protocol):
    """An aggregator that also says how it came to its coefficients."""

    def solve(self, gramian: Tensor, task_weights: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """(K,) coefficients, and further fields of :class:`optimizers.StepDiagnostics`."""
        ...


class Solver:
    """The aggregator itself: its coefficients, checked, and those of the first process on every process.

    Args:
        aggregator: with a method ``solve`` as :class:`Explained`, or a plain function; a
            :class:`optimizers.JacobianAggregator` has no coefficients to solve for.
        on_failure: what to do where it reports that it did not reach its tolerance.
        process_group: of the optimizer.

    Attributes:
        unsolved: steps on which that happened.
    """

    def __init__(
        self,
        aggregator: Aggregator | Explained | JacobianAggregator,
        on_failure: OnSolverFailure,
        process_group: Any,
    ) -> None:
        self.aggregator: Any = aggregator
        self.on_failure, self.process_group = on_failure, process_group
        self.unsolved = 0

    def solve(self, gramian: Tensor, weights: Tensor, device: torch.device) -> Solution:
        """The coefficients of this Gramian.

        Args:
            gramian: (K, K) float64 on the CPU.
            weights: (K,) task weights.
            device: that the process group can reach.

        Raises:
            SolverError: if the solver failed, on every process alike, and ``on_failure`` is "raise".
            ValueError: if the aggregator gives no finite coefficients.
        """
        with collect_unsolved() as messages:
            coefficients, diagnostics = self._aggregate(gramian, weights)
        check_coefficients(coefficients, len(gramian), self.aggregator)
        failed = coefficients.new_tensor([float(bool(messages))], dtype=torch.float64).cpu()
        agreed = from_first(torch.cat([coefficients.double().cpu(), failed]), self.process_group, device)
        coefficients, failed = agreed[:-1], agreed[-1]
        if failed:
            self.unsolved += 1
            message = "; ".join(messages) or "the first process did not solve for its coefficients"
            if self.on_failure == "raise":
                raise SolverError(f"{message}; nothing was changed")
            if self.on_failure == "linear":
                coefficients, diagnostics = weights.clone(), {}
            else:
                warnings.warn(message, SolverWarning, stacklevel=2)
            diagnostics = {**diagnostics, "solved": False}
        return Solution(coefficients, gramian, weights, diagnostics)

    @property
    def schedule(self) -> ScheduledAggregator | None:
        """The aggregator, if it knows its coefficients before the gradients."""
        return self.aggregator if isinstance(self.aggregator, ScheduledAggregator) else None

    def _aggregate(self, gramian: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Any]]:
        if hasattr(self.aggregator, "solve"):
            return self.aggregator.solve(gramian, weights)
        return self.aggregator(gramian, weights), {}


class GramianAverage:
    r"""Solves for the average of the Gramians, :math:`\bar M_t = \sum_s β^{t-s}M_s / \sum_s β^{t-s}`.

    It is the Gramian of the stacked gradients :math:`\sqrt{w_s}G_s` of all steps with the weights w_s of the average,
    so every aggregator accepts it. What an aggregator promises of the products :math:`\bar Mc`, say that none is
    negative, then holds for the average :math:`\sum_s w_s\,g_{i,s}^⊤(G_s^⊤c)` over the steps and not for the last one.

    Args:
        solver: solves for the average.
        decay: β in [0, 1); None takes every Gramian as it comes.

    Attributes:
        mean: (K, K) float64, or None before the first step.
        count: steps it is made of.

    Example:
        >>> from optimizers import linear
        >>> average = GramianAverage(Solver(linear, "warn", None), 0.5)
        >>> for M in (torch.eye(1).double(), 4 * torch.eye(1).double()):
        ...     average.keep(average.solve(M, torch.ones(1), torch.device("cpu")))
        >>> average.mean  # weights ⅓ and ⅔
        tensor([[3.]], dtype=torch.float64)
    """

    def __init__(self, solver: Solver, decay: float | None) -> None:
        self.solver, self.decay = solver, decay
        self.mean: Tensor | None = None
        self.count = 0

    def solve(self, gramian: Tensor, weights: Tensor, device: torch.device) -> Solution:
        """As :meth:`Solver.solve`, for the average that includes this Gramian.

        Raises:
            ValueError: if the number of tasks changed.
        """
        if self.decay is None:
            return self.solver.solve(gramian, weights, device)
        solution = self.solver.solve(self._including(gramian, self.decay), weights, device)
        return solution._replace(diagnostics={**solution.diagnostics, "averaged": solution.gramian})

    def keep(self, solution: Solution) -> None:
        """Make the Gramian that was solved for the average."""
        if self.decay is not None:
            self.mean, self.count = solution.gramian, self.count + 1

    def _including(self, gramian: Tensor, decay: float) -> Tensor:
        if self.mean is None:
            return gramian
        if gramian.shape != self.mean.shape:
            raise ValueError(
                f"the Gramian average is of {len(self.mean)} tasks, this step has {len(gramian)} losses; "
                "construct another optimizer for other tasks"
            )
        return torch.lerp(self.mean, gramian, newest_share(decay, self.count))

    def state_dict(self) -> dict[str, Any] | None:
        """Average and count, or None before the first step."""
        return None if self.mean is None else {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore what :meth:`state_dict` gave, from whatever device it was loaded to."""
        self.mean, self.count = (None, 0) if state is None else (state["mean"].cpu(), state["count"])


class CoefficientReuse:
    """Keeps the last coefficients, for the steps between two solutions; a schedule's are known before every step.

    Args:
        solver: solves on the other steps.
        every: solve on every so many-th step.

    Attributes:
        coefficients: (K,) float64 of the last solution, or None.

    Example:
        >>> from optimizers import linear
        >>> reuse = CoefficientReuse(GramianAverage(Solver(linear, "warn", None), None), every=2)
        >>> weights = torch.ones(1).double()
        >>> reuse.keep(reuse.solve(torch.eye(1).double(), weights, torch.device("cpu")))
        >>> reuse.for_step(weights), reuse.for_step(2 * weights)
        (tensor([1.], dtype=torch.float64), None)
        >>> reuse.count()
        >>> reuse.for_step(weights)
    """

    def __init__(self, solver: GramianAverage, every: int) -> None:
        self.solver, self.every = solver, every
        self.coefficients: Tensor | None = None
        self._weights: Tensor | None = None
        self._age = 0

    def for_step(self, weights: Tensor) -> Tensor | None:
        """The coefficients that the next step takes without solving: a schedule's, or the last ones, where they are
        young enough and of these task weights.
        """
        schedule = self.solver.solver.schedule
        if schedule is not None:
            return schedule.ahead(len(weights))
        if self._weights is None or self._age >= self.every or not weights.equal(self._weights):
            return None
        return self.coefficients

    def solve(self, gramian: Tensor, weights: Tensor, device: torch.device) -> Solution:
        """As :meth:`GramianAverage.solve`."""
        return self.solver.solve(gramian, weights, device)

    def keep(self, solution: Solution) -> None:
        """Keep a new solution."""
        self.solver.keep(solution)
        self.coefficients, self._weights, self._age = solution.coefficients, solution.weights, 0
        self.count()

    def count(self) -> None:
        """Count a step that was taken with these coefficients."""
        self._age += 1
        if (schedule := self.solver.solver.schedule) is not None:
            schedule.advance()

    def state_dict(self) -> dict[str, Any] | None:
        """Tensors and the age, or None before the first solution."""
        if self.coefficients is None:
            return None
        return {"coefficients": self.coefficients, "task_weights": self._weights, "age": self._age}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore what :meth:`state_dict` gave, from whatever device it was loaded to."""
        if state is None:
            self.coefficients, self._weights, self._age = None, None, 0
        else:
            self.coefficients, self._weights = state["coefficients"].cpu(), state["task_weights"].cpu()
            self._age = state["age"]


def check_coefficients(coefficients: Tensor, tasks: int, aggregator: Any) -> None:
    """Refuse coefficients that no update can be made of.

    Raises:
        ValueError: naming the aggregator and what it gave.
    """
    if coefficients.shape != (tasks,) or not coefficients.isfinite().all():
        raise ValueError(
            f"{aggregator!r} must give {tasks} finite coefficients, one a task, got {coefficients.tolist()}"
        )
