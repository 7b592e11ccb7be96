"""What the commands print of the analysis of gradient logs."""

from collections.abc import Callable
from functools import partial

from rich.table import Table

from sde_mtl.gradient_logs._bootstrap import Interval
from sde_mtl.gradient_logs._verdicts import Verdict
from sde_mtl.gradient_logs.analysis import PAPER_CONFLICT_RATE, LogAnalysis
from sde_mtl.gradient_logs.products import Estimate, FrozenProducts
from sde_mtl.gradient_logs.scopes import ScopeAnalysis


def verdict_table(rows: list[Verdict]) -> Table:
    """The paper's claims against what was measured on the logs."""
    table = Table("claim of the paper", "log", "paper", "measured here", "outcome", title="verdicts")
    for row in rows:
        style = "green" if row.outcome == "seen" else "bold"
        table.add_row(row.claim, row.log, row.paper, row.measured, f"[{style}]{row.outcome}[/]")
    return table


def weights_table(analyses: list[LogAnalysis]) -> Table:
    """What CAME-Grad optimizes: its mean weights next to ω, on the shared parameters and on all."""
    table = Table(
        "log", "parameters", "task", "ω", "c̄ [95 %]", "factor (c̄_i/c̄_1)/(ω_i/ω_1)", "noise scale [micro-batches]",
        title="what does CAME-Grad optimize here?",
        caption="ω and c̄ over their sums; c̄ of a run of another optimizer is what CAME-Grad would take; noise scale "
        "tr Σ/‖g‖² at the last frozen set, J of the weighted sum",
    )  # fmt: skip
    for analysis in analyses:
        for name, scope in analysis.scopes.items():
            last = scope.frozen[-1] if scope.frozen else None
            for task, label in enumerate(analysis.meta["tasks"]):
                table.add_row(
                    analysis.name, name, label, f"{scope.weights[task]:.3f}", _interval(scope.mean_weights[task]),
                    _interval(scope.hidden_factors[task]) if task else "1",
                    "" if last is None else _scale(last.noise_scale[task]),
                )  # fmt: skip
            if last is not None:
                table.add_row("", name, "J", "", "", "", _scale(last.joint_noise_scale))
            table.add_section()
    return table


def scope_table(analyses: list[LogAnalysis]) -> Table:
    """Conflict, harm and diffusion on the shared parameters and on all, side by side."""
    columns = [(a, name, scope) for a in analyses for name, scope in a.scopes.items()]
    table = Table(
        "quantity", *(f"{a.name}\n{name}, {scope.parameters:,}" for a, name, scope in columns),
        title="shared parameters and all",
    )  # fmt: skip
    percent = partial(_interval, scale=100, unit=" %")

    def row(name: str, cell: Callable[[ScopeAnalysis], str]) -> None:
        table.add_row(name, *(cell(scope) for _, _, scope in columns))

    row("steps with g₀ᵀg_k < 0 for a k", lambda s: percent(s.any_conflict_with_first))
    row("  the same by chance", lambda s: f"{s.conflict_by_chance:.1%}")
    row("share of pairs in conflict", lambda s: percent(s.pair_conflict_share))
    row("mean cosine of tasks 0, 1", lambda s: _interval(s.mean_cosine))
    row("steps at which LS harms a task", lambda s: percent(s.harm_rate))
    row("stage 1 valid (T5)", lambda s: percent(s.valid_rate))
    tasks = analyses[0].meta["tasks"]
    for step in sorted({products.step for _, _, scope in columns for products in scope.frozen}):
        table.add_section()

        def at(name: str, cell: Callable[[FrozenProducts], str], step: int = step) -> None:
            row(name, lambda s: next((cell(p) for p in s.frozen if p.step == step), ""))

        def ratio(scope: ScopeAnalysis, step: int = step) -> str:
            return next((_interval(d.ratio) for d in scope.diffusion if d.step == step), "")

        at(f"step {step}: z of g_iᵀg_J, {', '.join(tasks)}", lambda p: "  ".join(f"{e.z:+.1f}" for e in p.with_joint))
        at("  cos(g_i, g_J)", lambda p: "  ".join(f"{e.value:+.2f}" for e in p.cosines_with_joint))
        at("  cos(E F, Σc̄_ig_i) (T13)", lambda p: _estimate(p.scalarization_cosine))
        at("  R = tr Cov F/κ²tr Σ_LS", lambda p: _estimate(p.diffusion))
        at("  its bound 1 + SNR_J (T14)", lambda p: _estimate(p.diffusion_bound))
        at("  conflict of the noise alone, first, pairs", lambda p: f"{p.chance_first:.1%}, {p.chance_pairs:.1%}")
        row("  tr Σ_LS/Σω²tr Σ_ii (T3)", ratio)
    return table


def group_table(analysis: LogAnalysis) -> Table | None:
    """Parts of the model in which linear scalarization harms a task: z of their g_iᵀg_J; None if the log has none."""
    sets = [products for products in analysis.scopes["all"].frozen if products.by_group] if analysis.scopes else []
    if not sets:
        return None
    tasks = ", ".join(analysis.meta["tasks"])
    table = Table("part of the model", *(f"step {products.step}" for products in sets),
                  title=f"z of g_iᵀg_J by part of the model, {analysis.name}: {tasks}")  # fmt: skip
    for name in sets[0].by_group:
        cells = [
            "  ".join("–" if e.value == 0 else f"{e.z:+.1f}" for e in products.by_group[name]) for products in sets
        ]
        table.add_row(name, *cells)
    return table


def analysis_table(analyses: list[LogAnalysis]) -> Table:
    """A column of measurements and one of closed forms each log."""
    images = ", ".join(sorted({str(a.meta.get("dataset", {}).get("images", "?")) for a in analyses}))
    table = Table(title=f"gradient logs ({images}); all parameters; intervals are 95 %")
    table.add_column("quantity")
    for analysis in analyses:
        table.add_column(f"{analysis.name}\n{analysis.steps} steps")
        table.add_column("closed form")
    percent = partial(_interval, scale=100, unit=" %")

    def row(name: str, *cells: str) -> None:
        table.add_row(name, *cells)

    first = [(percent(a.any_conflict_with_first), f"paper {PAPER_CONFLICT_RATE:.1%}") for a in analyses]
    row("steps with g₀ᵀg_k < 0 for a k", *_flat(first))
    pairs = [("" if a.pair_conflict_share is None else percent(a.pair_conflict_share), "") for a in analyses]
    row("share of pairs in conflict", *_flat(pairs))
    row("mean cosine of tasks 0, 1", *_flat([(_interval(a.mean_cosine), "") for a in analyses]))
    harms = [(percent(a.harm_rate), {True: "harm", False: "no harm", None: ""}[a.harm_predicted]) for a in analyses]
    row("steps at which LS harms a task", *_flat(harms))
    row("∠(g_J, u*) [°]", *_flat([(_interval(a.angle), _number(a.angle_predicted)) for a in analyses]))
    worst = [(_interval(a.worst_joint), _number(a.worst_joint_predicted)) for a in analyses]
    row("worst task, min cos(g_i, g_J)", *_flat(worst))
    best = [(_interval(a.worst_rectified), _number(a.worst_rectified_predicted)) for a in analyses]
    row("worst task, min cos(g_i, u*)", *_flat(best))
    row("stage 1 valid (T5)", *_flat([(percent(a.valid_rate), "") for a in analyses]))
    for index in range(max(len(a.diffusion) for a in analyses)):
        cells = []
        for a in analyses:
            d = a.diffusion[index] if index < len(a.diffusion) else None
            cells.append(("", "") if d is None else (_interval(d.ratio), f"{d.predicted:.3f} (first half)"))
        step = next(a.diffusion[index].step for a in analyses if index < len(a.diffusion))
        row(f"tr Σ_LS/Σω²tr Σ_ii, step {step}", *_flat(cells))
    return table


def empirical_table(analysis: LogAnalysis) -> Table:
    """Predicted and measured drift and diffusion at the frozen checkpoints of one log."""
    d = analysis.distortion
    title = (
        f"empirical SDE, {analysis.name}: predicted from one half of the micro-batches, measured on the other\n"
        f"projection error of inner products: {d.measured:.2%} measured, {d.bound:.2%} bound (root mean square); "
        f"worst of {d.pairs}: {d.worst:.1%}"
    )
    table = Table("step", "quantity", "aggregator", "delta method (T4)", "Gaussian gradients", "measured", title=title)
    for point in analysis.empirical:
        step = str(point.step)
        for e in point.effective:
            table.add_row(step, "tr Cov F", e.name, f"{e.diffusion_delta:.4g}", f"{e.diffusion_gaussian:.4g}",
                          _scientific(e.diffusion))  # fmt: skip
        for e in point.effective:
            table.add_row(step, "‖E F‖²", e.name, f"{e.drift_delta:.4g}", f"{e.drift_gaussian:.4g}",
                          _scientific(e.drift))  # fmt: skip
        table.add_row(step, "tr Cov F / κ² tr Σ_LS", "came-grad", f"{point.restored_delta:.3f}",
                      f"{point.restored_gaussian:.3f}", _interval(point.restored))  # fmt: skip
        for run in point.descent:
            for at, task in enumerate(analysis.meta["tasks"]):
                sde = f"{run.effective[at]:.4g} ± {run.effective_error[at]:.1g} (SDE)"
                loop = f"{run.recursion[at]:.4g} ± {run.recursion_error[at]:.1g} (recursion)"
                table.add_row(step, f"ΔL of {task}, {run.steps} steps, η = {run.learning_rate:.2g}", run.name, sde, "",
                              loop)  # fmt: skip
        table.add_section()
    return table


def _scientific(interval: Interval) -> str:
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def _flat(pairs: list[tuple[str, str]]) -> list[str]:
    return [cell for pair in pairs for cell in pair]


def _interval(interval: Interval, scale: float = 1.0, unit: str = "") -> str:
    v, low, high = (scale * x for x in (interval.value, interval.low, interval.high))
    digits = 1 if max(abs(low), abs(high)) >= 10 else 3
    return f"{v:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _estimate(estimate: Estimate) -> str:
    return _interval(estimate.interval)


def _scale(interval: Interval) -> str:
    return f"{interval.value:.3g} [{interval.low:.2g}, {interval.high:.2g}]"
