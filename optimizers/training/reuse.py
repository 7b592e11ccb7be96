"""Coefficients kept for the steps between two solutions."""

from typing import Any

from torch import Tensor


class CoefficientReuse:
    """Which steps solve anew, and the coefficients that the others reuse.

    Args:
        every: solve on every so many-th step.

    Attributes:
        coefficients: (K,) float64 of the last solution, or None.

    Example:
        >>> import torch
        >>> reuse, weights = CoefficientReuse(every=2), torch.ones(1)
        >>> reuse.keep(torch.ones(1), weights)
        >>> reuse.fits(weights), reuse.fits(2 * weights)
        (True, False)
        >>> reuse.count()
        >>> reuse.fits(weights)
        False
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.coefficients: Tensor | None = None
        self._weights: Tensor | None = None
        self._age = 0

    def fits(self, weights: Tensor) -> bool:
        """Whether the next step may reuse the coefficients: they are young enough, and of these task weights."""
        return self._weights is not None and self._age < self.every and bool(weights.equal(self._weights))

    def keep(self, coefficients: Tensor, weights: Tensor) -> None:
        """Keep a new solution."""
        self.coefficients, self._weights, self._age = coefficients, weights, 1

    def count(self) -> None:
        """Count a step that reused the coefficients."""
        self._age += 1

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
