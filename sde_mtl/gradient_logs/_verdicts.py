"""The paper's claims about training against what a gradient log shows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sde_mtl.gradient_logs._bootstrap import Interval
from sde_mtl.gradient_logs.analysis import PAPER_CONFLICT_RATE, LogAnalysis


@dataclass(frozen=True)
class Verdict:
    """One claim on one log.

    Attributes:
        claim: in words.
        log: name of the optimizer that trained.
        paper, measured: what the paper says, and what was measured, as text.
        outcome: "seen", "not seen" or "differs".
    """

    claim: str
    log: str
    paper: str
    measured: str
    outcome: str

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)


def verdicts(analyses: Sequence[LogAnalysis]) -> list[Verdict]:
    """Compare each log with the paper; an interval that contains the claimed value agrees with it.

    Args:
        analyses: one or more.

    Returns:
        a row each log and claim: conflict, drift deviation, diffusion decay at every checkpoint, validity of stage 1.

    Example:
        >>> from sde_mtl.book import kept_result, read_analyses
        >>> rows = verdicts(read_analyses(kept_result("analysis-demo.json")))
        >>> {row.outcome for row in rows if row.claim.startswith("diffusion decay")}
        {'not seen'}
    """
    rows = []
    for a in analyses:
        rate = a.conflict_rate
        rows.append(
            Verdict(
                "task gradients conflict (g₀ᵀg_k < 0)",
                a.name,
                f"{PAPER_CONFLICT_RATE:.1%} of steps",
                _percent(rate),
                "seen" if rate.low <= PAPER_CONFLICT_RATE <= rate.high else "differs",
            )
        )
        rows.append(
            Verdict(
                "drift deviation: the weighted sum harms a task",
                a.name,
                "yes",
                f"{_percent(a.harm_rate)} of steps; ∠(g_J, u*) {a.angle.value:.1f}°",
                "seen" if a.harm_rate.low > 0 else "not seen",
            )
        )
        for d in a.diffusion:
            rows.append(
                Verdict(
                    f"diffusion decay at step {d.step}: tr Σ_LS < Σω²tr Σ_ii",
                    a.name,
                    "ratio < 1",
                    str(d.ratio),
                    "seen" if d.ratio.high < 1 else "not seen",
                )
            )
        rows.append(
            Verdict(
                "stage 1 improves every task",
                a.name,
                "always",
                f"{_percent(a.valid_rate)} of steps",
                "seen" if a.valid_rate.value == 1 else "differs",
            )
        )
    return rows


def _percent(interval: Interval) -> str:
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
