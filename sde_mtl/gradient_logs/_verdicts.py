"""The paper's claims about training against what a gradient log shows."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from sde_mtl.gradient_logs._bootstrap import Interval
from sde_mtl.gradient_logs.analysis import PAPER_CONFLICT_RATE, LogAnalysis
from sde_mtl.gradient_logs.products import FrozenProducts
from sde_mtl.gradient_logs.scopes import ScopeAnalysis


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
    """Compare each log with the paper, on the shared parameters where the log tells them apart.

    "seen" where the interval is on the paper's side or contains its number, "differs" where there is a number and it is
    another, and "not seen" only with a bound on what may have been missed.

    Args:
        analyses: one or more.

    Returns:
        a row each log and claim: conflict; drift deviation on the steps' own micro-batches, and in expectation at every
        checkpoint; diffusion decay at every checkpoint; validity of stage 1.

    Example:
        >>> from sde_mtl.book import kept_result, read_analyses
        >>> rows = verdicts(read_analyses(kept_result("analysis-demo.json")))
        >>> {row.outcome for row in rows if row.claim.startswith("diffusion decay")}
        {'not seen'}
    """
    rows = []
    for a in analyses:
        found = a if a.scope is None else a.scope
        rows.append(Verdict("task gradients conflict (g₀ᵀg_k < 0)", a.name, *_conflict(found)))
        rows.append(
            Verdict(
                "drift deviation: the weighted sum harms a task",
                a.name,
                "yes",
                _seen(found.harm_rate, f"of steps, on their own micro-batch; ∠(g_J, u*) {a.angle.value:.1f}°"),
                "seen" if found.harm_rate.low > 0 else "not seen",
            )
        )
        for products in () if a.scope is None else a.scope.frozen:
            claim = f"drift deviation in expectation, frozen at step {products.step}"
            rows.append(Verdict(claim, a.name, "yes", *_harm(products, a.meta["tasks"])))
        for d in found.diffusion:
            rows.append(
                Verdict(
                    f"diffusion decay at step {d.step}: tr Σ_LS < Σω²tr Σ_ii",
                    a.name,
                    "ratio < 1",
                    f"{d.ratio}" + (f": at most {1 - d.ratio.low:.1%} less" if d.ratio.low < 1 <= d.ratio.high else ""),
                    "seen" if d.ratio.high < 1 else "not seen",
                )
            )
        rows.append(
            Verdict(
                "stage 1 improves every task",
                a.name,
                "always",
                f"{_percent(found.valid_rate)} of steps",
                "seen" if found.valid_rate.value == 1 else "differs",
            )
        )
    return rows


def _conflict(found: LogAnalysis | ScopeAnalysis) -> tuple[str, str, str]:
    """What the paper says of conflict, what was measured, and the outcome."""
    rate, paper = found.any_conflict_with_first, PAPER_CONFLICT_RATE
    chance = ""
    if isinstance(found, ScopeAnalysis):
        chance = f"; by chance {found.conflict_by_chance:.1%}"
        alone = [f"{products.chance_first:.0%}" for products in found.frozen]
        chance += f"; the noise alone {', '.join(alone)} at the frozen sets" if alone else ""
    apart = f"; {100 * (rate.value - paper):+.1f} percentage points" if rate.value > 0 else ""
    outcome = "seen" if rate.low <= paper <= rate.high else "differs" if rate.value > 0 else "not seen"
    return f"{paper:.1%} of steps", _seen(rate, "of steps") + apart + chance, outcome


def _harm(products: FrozenProducts, tasks: Sequence[str]) -> tuple[str, str]:
    """The task that linear scalarization harms most in expectation, and whether it does, at 5 % over all tasks."""
    degrees = products.micro_batches - 1
    worst = min(range(len(tasks)), key=lambda task: products.with_joint[task].z)
    z, cosine = products.with_joint[worst].z, products.cosines_with_joint[worst]
    harmed = z < float(stats.t.ppf(0.05 / len(tasks), degrees))
    bound = "" if harmed or math.isnan(cosine.error) else f", at least {cosine.interval.low:.3f}"
    measured = f"{tasks[worst]}: z = {z:+.1f} (jackknife), cos(g_i, g_J) {cosine.value:.3f}{bound}"
    return measured, "seen" if harmed else "not seen"


def _seen(share: Interval, of: str) -> str:
    """A share with its interval, or the bound on what was never seen."""
    return f"{_percent(share)} {of}" if share.value > 0 else f"0, at most {share.high:.1%} {of}"


def _percent(interval: Interval) -> str:
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
