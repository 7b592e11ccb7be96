"""What the command line and the pytest plugin share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optimizers.testing._subject import Subject, Takes, load
from optimizers.testing.properties import PROPERTIES
from optimizers.testing.verdict import EXAMPLES, TOLERANCE, Verdict, check_effort, known, table, unmet

SUBJECT = "optimizers_testing_subject"
"""The attribute of pytest's config that holds the :class:`Options` of a run."""


@dataclass(frozen=True)
class Options:
    """A run of the suite.

    Attributes:
        subject: the aggregator.
        required: names of properties that must hold.
        effort: keyword arguments of :func:`optimizers.testing.verdict.judge`.
        properties: names, in the order of the table.
    """

    subject: Subject
    required: tuple[str, ...]
    effort: dict[str, Any]
    properties: tuple[str, ...] = tuple(PROPERTIES)


def options(
    spec: str,
    *,
    require: str = "",
    takes: Takes | None = None,
    tasks: str = "1-5",
    examples: int = EXAMPLES,
    tolerance: float = TOLERANCE,
) -> Options:
    """Options from words of a command line.

    Raises:
        ValueError: naming the bad word.
        ImportError, TypeError: as :func:`optimizers.testing.load`.

    Example:
        >>> options("optimizers:linear", require="finite,non_conflicting", tasks="2-3").effort
        {'tasks': (2, 3), 'examples': 300, 'tolerance': 1e-06}
    """
    fewest, _, most = tasks.partition("-")
    if not (fewest.isdigit() and (most or fewest).isdigit()):
        raise ValueError(f"tasks = {tasks!r} must be a number or a range such as 2-5")
    effort: dict[str, Any] = {"tasks": (int(fewest), int(most or fewest)), "examples": examples, "tolerance": tolerance}
    check_effort(**effort)
    required = known(name.strip() for name in require.split(",") if name.strip())
    return Options(load(spec, takes=takes), tuple(required), effort)


def summary(chosen: Options, verdicts: Sequence[Verdict], width: int = 150) -> str:
    """The table, and what was required and does not hold."""
    low, high = chosen.effort["tasks"]
    lines = [
        table(verdicts, width),
        f"holds: no counterexample among {chosen.effort['examples']} cases of {low} to {high} tasks, at a relative "
        f"tolerance of {chosen.effort['tolerance']:g}",
    ]
    missing = unmet(verdicts, chosen.required)
    if missing:
        lines.append(f"required, but does not hold: {', '.join(missing)}")
    return "\n".join(lines)
