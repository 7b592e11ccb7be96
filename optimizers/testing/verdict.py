"""Verdicts: hypothesis looks for a counterexample to each property and shrinks it."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import Flaky, NoSuchExample

from optimizers.testing._subject import Subject, Takes, load, subject
from optimizers.testing.checks import INFINITE, Case, Finding
from optimizers.testing.properties import PROPERTIES, Property, cases
from optimizers.testing.strategies import TASKS

Outcome = Literal["holds", "fails", "not applicable"]
EXAMPLES = 300
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What the search for a counterexample found.

    Attributes:
        property: its name.
        outcome: "holds" says that no counterexample was among the examples.
        reason: the smallest counterexample and what is wrong with it, or why the property is not applicable.
        violation: of that counterexample, relative; infinite for an exception or a wrong shape, 0 where it holds.
        case: the counterexample.
    """

    property: str
    outcome: Outcome
    reason: str = ""
    violation: float = 0.0
    case: Case | None = None


def judge(
    check: Property,
    subject: Subject,
    *,
    tasks: tuple[int, int] = TASKS,
    examples: int = EXAMPLES,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """The verdict on one property; the same on every call, as far as the subject is deterministic.

    Example:
        >>> from optimizers import linear
        >>> from optimizers.testing import subject
        >>> print(judge(PROPERTIES["non_conflicting"], subject(linear)).reason)
        G = [[1], [-1]], ω = [1, 2]: F = [-1] harms task 0, G F = [-1, 1]
    """
    excluded = check.excludes(subject)
    if excluded:
        return Verdict(check.name, "not applicable", excluded)

    def violated(case: Case) -> bool:
        return not _tried(check, subject, case)[0] <= tolerance

    counts = range(tasks[0], tasks[1] + 1)
    options = settings(
        max_examples=-(-examples // len(counts)),
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    with torch.random.fork_rng(devices=[]):
        for count in counts:  # fewest tasks first, so that the counterexample has the fewest
            try:
                case = find(cases(check, subject, (count, count)), violated, settings=options, random=random.Random(0))
            except NoSuchExample:
                continue
            except Flaky:
                return Verdict(check.name, "fails", "the same case gave different answers", INFINITE)
            violation, what = _tried(check, subject, case)
            return Verdict(check.name, "fails", f"{case}: {what}", violation, case)
    return Verdict(check.name, "holds")


def _tried(check: Property, subject: Subject, case: Case) -> Finding:
    try:
        return check.find(subject, case)
    except Exception as error:
        return INFINITE, f"raises {type(error).__name__}: {' '.join(str(error).split())}"


def conformance(
    target: Any,
    properties: Iterable[str] = tuple(PROPERTIES),
    *,
    takes: Takes | None = None,
    tasks: tuple[int, int] = TASKS,
    examples: int = EXAMPLES,
    tolerance: float = TOLERANCE,
) -> list[Verdict]:
    """The verdicts on a target.

    Args:
        target: as :func:`optimizers.testing.subject`, a string as :func:`optimizers.testing.load`, or a subject.
        properties: names out of :data:`PROPERTIES`; all by default.
        takes: "gramian" or "matrix", where the target's signature does not say.
        tasks: fewest and most tasks tried.
        examples: cases tried a property.
        tolerance: relative violation up to which a case counts as rounding.

    Raises:
        ValueError: for unknown properties, or options outside their domain.

    Example:
        >>> from optimizers import mgda
        >>> [verdict.outcome for verdict in conformance(mgda, ["non_conflicting", "linear_under_scaling"])]
        ['holds', 'fails']
    """
    check_effort(tasks=tasks, examples=examples, tolerance=tolerance)
    names = known(properties)
    one = load(target, takes=takes) if isinstance(target, str) else target
    one = one if isinstance(one, Subject) else subject(one, takes=takes)
    return [judge(PROPERTIES[n], one, tasks=tasks, examples=examples, tolerance=tolerance) for n in names]


def check_effort(*, tasks: tuple[int, int], examples: int, tolerance: float) -> None:
    """Refuse options outside their domain.

    Raises:
        ValueError: naming the value and the domain.
    """
    low, high = tasks
    if not 1 <= low <= high:
        raise ValueError(f"tasks = {tasks} must be the fewest and the most tasks, 1 <= fewest <= most")
    if examples < 1 or not 0 <= tolerance < 1:
        raise ValueError(f"examples = {examples} must be >= 1, tolerance = {tolerance} must lie in [0, 1)")


def known(names: Iterable[str]) -> list[str]:
    """The names, "all" standing for every one.

    Raises:
        ValueError: for an unknown one, listing the known.
    """
    wanted = [name for given in names for name in (PROPERTIES if given == "all" else [given])]
    for name in wanted:
        if name not in PROPERTIES:
            raise ValueError(f"{name!r} is no property; known: {', '.join(PROPERTIES)}")
    return wanted


def unmet(verdicts: Iterable[Verdict], required: Sequence[str]) -> list[str]:
    """The required properties that do not hold, whether they fail or are not applicable."""
    return [v.property for v in verdicts if v.property in required and v.outcome != "holds"]


def table(verdicts: Sequence[Verdict], width: int = 100) -> str:
    """A text table property × verdict, with the reasons cut to the width.

    Example:
        >>> rows = [Verdict("finite", "holds"), Verdict("batch_equals_loop", "not applicable", "refuses batches")]
        >>> print(table(rows))
        property           verdict         smallest counterexample, or reason
        finite             holds
        batch_equals_loop  not applicable  refuses batches
    """
    first = max(len("property"), *(len(v.property) for v in verdicts)) + 2
    rows = [("property", "verdict", "smallest counterexample, or reason")]
    rows += [(v.property, v.outcome, v.reason) for v in verdicts]
    return "\n".join(f"{a:<{first}}{b:<16}{_cut(c, max(20, width - first - 16))}".rstrip() for a, b, c in rows)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"
