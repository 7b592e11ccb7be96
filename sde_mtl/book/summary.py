"""The numbers in the book's answer to "what did you find out?", from kept results and the list of claims."""

from collections import Counter

import numpy as np

from sde_mtl.book.analyses import read_analyses
from sde_mtl.book.results import kept_result
from sde_mtl.book.training import differences, over_runs, read_training
from sde_mtl.claims import CLAIMS

MACHINE = "cpu-x86-64-2-cores"
PAPER = "came-grad:kappa=1.5:nu=0.2:center=mean"
"""CAME-Grad with the authors' options."""


def answer() -> dict[str, float | int | str]:
    """Every number of the answer by name.

    Returns:
        "conflict", % of steps of linear scalarization on two tasks; "harm", % at which it harms one; "ratio low" and
        "ratio high", its diffusion ratios, and "four low" and "four high" those of four tasks; "phantoms" and
        "radiographs", CAME-Grad's report loss minus the control's, ± standard error over "seeds" seeds; "claims",
        those of the paper, "holds" and "holds if", how many do.

    Example:
        >>> numbers = answer()
        >>> numbers["four low"] > 1 > numbers["holds"] / numbers["claims"]
        True
    """
    logs = read_analyses(kept_result("analysis-demo.json"))
    linear = next(log for log in logs if log.name == "linear")
    two = [d.ratio.value for log in logs for d in log.diffusion]
    kinds = {"phantoms": "", "radiographs": "-radiographs"}
    trained = {
        key: read_training(kept_result(f"report-generators{kind}-{MACHINE}.json")) for key, kind in kinds.items()
    }
    four = [x for result in trained.values() for x in over_runs(result, "diffusion ratio")]
    losses = {}
    for key, result in trained.items():
        difference = next(d for d in differences(result, "loss rg") if d.optimizer == PAPER)
        losses[key] = f"{difference.mean:+.2f} ± {difference.error:.2f}".replace("-", "−")
    verdicts = Counter(claim.verdict for claim in CLAIMS if claim.source == "paper")
    return {
        "conflict": 100 * linear.any_conflict_with_first.value,
        "harm": 100 * linear.harm_rate.value,
        "ratio low": float(np.min(two)),
        "ratio high": float(np.max(two)),
        "four low": min(four),
        "four high": max(four),
        **losses,
        "seeds": len(trained["phantoms"]["optimizers"][0]["runs"]),
        "claims": sum(verdicts.values()),
        "holds": verdicts["holds"],
        "holds if": verdicts["holds if"],
    }
