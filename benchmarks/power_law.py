"""Fit t = a·nᵖ by least squares on logarithms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PowerLaw:
    """Exponent p with its standard error, and the factor a."""

    exponent: float
    error: float
    factor: float

    @classmethod
    def fit(cls, sizes: Sequence[float], values: Sequence[float]) -> "PowerLaw":
        """Least squares on logarithms.

        Raises:
            ValueError: for fewer than three points, which leave no standard error.
        """
        if len(sizes) < 3:
            raise ValueError(f"{len(sizes)} points leave no standard error of an exponent; give at least 3")
        x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))
        centred = x - x.mean()
        spread = (centred**2).sum()
        exponent = (centred * y).sum() / spread
        residual = y - y.mean() - exponent * centred
        error = np.sqrt((residual**2).sum() / (len(x) - 2) / spread)
        return cls(float(exponent), float(error), float(np.exp(y.mean() - exponent * x.mean())))

    def at(self, size: float) -> float:
        """a·nᵖ."""
        return self.factor * size**self.exponent

    def __str__(self) -> str:
        return f"{self.exponent:.2f} ± {self.error:.2f}"
