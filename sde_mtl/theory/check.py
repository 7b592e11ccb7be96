"""The outcome of comparing a prediction with a measurement."""

import math
from dataclasses import asdict, dataclass
from typing import Any


class DerivationError(AssertionError):
    """A symbolic derivation did not reduce to the claim."""


@dataclass(frozen=True)
class Check:
    """One row of ``sde-mtl verify``.

    Attributes:
        id: statement and running letter, such as "T3.b".
        claim: one line.
        predicted, measured: the two numbers compared (for families, those of the worst member).
        error: their distance, in the unit that ``tolerance`` has.
        tolerance: what the error may be.
        unit: "absolute", "relative", "SE" (standard errors) or "count".
        route: how the measured number was obtained.
        control: True for a negative control, where the formula is deliberately wrong and must be rejected.
        standard_error: of ``measured``, in its own unit, where the check is statistical.
        scale: the size, in the same unit, against which a deviation is large or small; |predicted| by default.
    """

    id: str
    claim: str
    predicted: float
    measured: float
    error: float
    tolerance: float
    unit: str
    route: str
    control: bool = False
    standard_error: float | None = None
    scale: float | None = None

    @property
    def detects(self) -> float | None:
        """The smallest deviation from the prediction, as a share of ``scale``, that the check would find.

        Of k standard errors it finds one of (k + 2) SE with probability 0.977; of a deterministic comparison whatever
        exceeds the tolerance. None where nothing is known of it: counts, and checks without a scale.
        """
        scale = abs(self.predicted) if self.scale is None else self.scale
        if self.unit == "relative":
            return self.tolerance
        if not scale or self.unit == "count":
            return None
        if self.unit == "absolute":
            return self.tolerance / scale
        return None if self.standard_error is None else (self.tolerance + 2) * self.standard_error / scale

    @property
    def passed(self) -> bool:
        """error ≤ tolerance; for a control the opposite. NaN never passes."""
        if math.isnan(self.error):
            return False
        return bool(self.error > self.tolerance) == self.control

    @property
    def verdict(self) -> str:
        """ "holds", "FAILS", or for a control "rejected" (as it must be) or "NOT REJECTED"."""
        if self.control:
            return "rejected" if self.passed else "NOT REJECTED"
        return "holds" if self.passed else "FAILS"

    def as_dict(self) -> dict[str, Any]:
        """All fields with ``detects``, ``passed`` and ``verdict``, for JSON."""
        return {**asdict(self), "detects": self.detects, "passed": self.passed, "verdict": self.verdict}


def in_standard_errors(
    name: str, claim: str, predicted: float, measured: float, standard_error: float, route: str, *,
    scale: float | None = None, tolerance: float = 5.0, control: bool = False,
) -> Check:  # fmt: skip
    """The row of a statistical check: the distance of prediction and measurement in standard errors.

    Args:
        name: the row's id.
        claim, predicted, measured, route, control: as in :class:`Check`.
        standard_error: of ``measured``.
        scale: against which a deviation is large or small; |predicted| by default.
        tolerance: standard errors that are allowed.

    Returns:
        the row, whose ``detects`` is known.

    Example:
        >>> row = in_standard_errors("X", "a mean is 2", 2.0, 2.01, 0.01, "by hand")
        >>> row.verdict, round(row.error, 6), round(row.detects, 6)
        ('holds', 1.0, 0.035)
    """
    error = float(abs(measured - predicted) / standard_error)
    return Check(name, claim, float(predicted), float(measured), error, tolerance, "SE", route, control,
                 float(standard_error), None if scale is None else float(scale))  # fmt: skip


def require(condition: object, claim: str) -> None:
    """Raise :class:`DerivationError` unless the derivation closed.

    Example:
        >>> require(True, "1 = 1")
    """
    if not bool(condition):
        raise DerivationError(f"the derivation does not close: {claim}")
