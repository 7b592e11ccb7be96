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
        """All fields with ``passed`` and ``verdict``, for JSON."""
        return {**asdict(self), "passed": self.passed, "verdict": self.verdict}


def require(condition: object, claim: str) -> None:
    """Raise :class:`DerivationError` unless the derivation closed.

    Example:
        >>> require(True, "1 = 1")
    """
    if not bool(condition):
        raise DerivationError(f"the derivation does not close: {claim}")
