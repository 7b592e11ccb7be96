"""The coefficients of a step: of the Gramian or its average, the same on every process."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optimizers.errors import OnSolverFailure, SolverError, SolverWarning, collect_unsolved
from optimizers.training.distributed import from_first
from optimizers.training.gramian_average import GramianAverage
from optimizers.training.reuse import CoefficientReuse

Aggregate = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Any]]]


class CoefficientSolver:
    """Gives the coefficients of a step; see :class:`optimizers.MultiTaskOptimizer`.

    Args:
        aggregate: the aggregator, which also gives further fields of :class:`StepDiagnostics`.
        reuse: told of every solution.
        average: of the Gramians.
        on_failure: what to do where the aggregator reports that it did not reach its tolerance.
        process_group: of the optimizer.

    Attributes:
        unsolved: steps on which that happened.
    """

    def __init__(
        self,
        aggregate: Aggregate,
        reuse: CoefficientReuse,
        average: GramianAverage,
        on_failure: OnSolverFailure,
        process_group: Any,
    ) -> None:
        self.aggregate = aggregate
        self.reuse, self.average = reuse, average
        self.on_failure = on_failure
        self.process_group = process_group
        self.unsolved = 0
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def solve(
        self, gramian: Tensor, weights: Tensor, aggregator: Any, device: torch.device
    ) -> tuple[Tensor, dict[str, Any]]:
        """(K,) coefficients, float64 on the CPU, and further fields of the diagnostics.

        Args:
            gramian: (K, K) of this step.
            weights: (K,) task weights.
            aggregator: named in errors.
            device: that the process group can reach.

        Raises:
            SolverError: if the solver failed, on every process alike, and ``on_failure`` is "raise".
            ValueError: if the aggregator gives no finite coefficients.
        """
        averaged = self.average.including(gramian)
        with collect_unsolved() as messages:
            coefficients, fields = self.aggregate(averaged, weights)
        check_coefficients(coefficients, len(gramian), aggregator)
        failed = coefficients.new_tensor([float(bool(messages))], dtype=torch.float64).cpu()
        agreed = from_first(torch.cat([coefficients.double().cpu(), failed]), self.process_group, device)
        coefficients, solved = agreed[:-1], not agreed[-1]
        if not solved:
            self.unsolved += 1
            message = "; ".join(messages) or "the first process did not solve for its coefficients"
            if self.on_failure == "raise":
                raise SolverError(f"{message}; nothing was changed")
            if self.on_failure == "linear":
                coefficients, fields = weights.clone(), {}
            else:
                warnings.warn(message, SolverWarning, stacklevel=2)
            fields = {**fields, "solved": False}
        self._last = averaged, coefficients, weights
        return coefficients, fields if self.average.decay is None else {**fields, "averaged": averaged}

    def keep(self) -> None:
        """Keep the last solution, now that its step will be taken."""
        assert self._last is not None
        averaged, coefficients, weights = self._last
        self.average.keep(averaged)
        self.reuse.keep(coefficients, weights)
        self._last = None


def check_coefficients(coefficients: Tensor, tasks: int, aggregator: Any) -> None:
    """Refuse coefficients that no update can be made of.

    Raises:
        ValueError: naming the aggregator and what it gave.
    """
    if coefficients.shape != (tasks,) or not coefficients.isfinite().all():
        raise ValueError(
            f"{aggregator!r} must give {tasks} finite coefficients, one a task, got {coefficients.tolist()}"
        )
