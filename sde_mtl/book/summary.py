"""The numbers in the book's answer to "what did you find out?", from kept results and the list of claims."""

from collections import Counter

import numpy as np

from sde_mtl.book.analyses import read_analyses
from sde_mtl.book.results import kept_result
from sde_mtl.claims import CLAIMS
from sde_mtl.gradient_logs import Interval


def answer() -> dict[str, float | int | str]:
    """Every number of the answer by name.

    Returns:
        of linear scalarization on two tasks and the parameters that they share: "conflict" and "harm", % of steps with
        their intervals; "ratio low" and "ratio high", its diffusion ratios; "share", report generation's share of c̄,
        with its interval, and "asked", of ω; "cosine low", the least cos(E F, Σc̄_ig_i) of the frozen sets that
        tell. "claims", those of the paper, and "holds", "holds if" and "fails", how
        many do.

    Example:
        >>> numbers = answer()
        >>> numbers["cosine low"] > 0.9, numbers["ratio low"] <= numbers["ratio high"]
        (True, True)
    """
    logs = read_analyses(kept_result("analysis-demo.json"))
    linear, came = (next(log for log in logs if log.name == name).scopes["shared"] for name in ("linear", "came-grad"))
    ratios = [d.ratio.value for scope in (linear, came) for d in scope.diffusion]
    sets = [products for log in logs for scope in log.scopes.values() for products in scope.frozen]
    verdicts = Counter(claim.verdict for claim in CLAIMS if claim.source == "paper")
    return {
        "conflict": _percent(linear.any_conflict_with_first),
        "harm": _percent(linear.harm_rate),
        "ratio low": min(ratios),
        "ratio high": max(ratios),
        "share": _percent(came.mean_weights[0]),
        "asked": 100 * came.weights[0],
        "cosine low": float(np.nanmin([products.scalarization_cosine.value for products in sets])),
        "claims": sum(verdicts.values()),
        "holds": verdicts["holds"],
        "holds if": verdicts["holds if"],
        "fails": verdicts["fails"],
    }


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
