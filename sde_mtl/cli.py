"""Command line: ``sde-mtl verify``, ``claims``, ``simulate``, ``sweep``, ``figures``, ``analyze``, ``report``."""

import json
import math
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import joblib
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from optimizers.aggregators.by_name import AGGREGATORS, aggregator, parse_options
from optimizers.files import write_json
from sde_mtl import figures
from sde_mtl.claims import CLAIMS
from sde_mtl.figures import GALLERY
from sde_mtl.gradient_logs import PAPER_CONFLICT_RATE, GradientLogError, analyze, read_log, verdicts
from sde_mtl.gradient_logs.tables import (
    analysis_table,
    empirical_table,
    group_table,
    scope_table,
    verdict_table,
    weights_table,
)
from sde_mtl.problems import AdditiveNoise
from sde_mtl.report import write_report
from sde_mtl.simulation import build_dynamics, recorded_steps, simulate
from sde_mtl.simulation.sweep import run_sweep
from sde_mtl.simulation.sweep_file import read_sweep
from sde_mtl.theory import FULL, STATEMENTS, Check, OrnsteinUhlenbeck
from sde_mtl.theory.t03_diffusion_decay import example

PLAIN_WIDTH = 132
"""Columns of a table that goes to a file or pipe."""
RENAMED = {"euler-maruyama": "linear-sde"}
"""Old names of schemes, which still work, and the new ones."""


@dataclass(frozen=True)
class Verify:
    """Derive, predict, measure and compare every statement; exit with 1 if one does not hold."""

    json: Path | None = None
    """Also write the rows here."""
    statements: tuple[str, ...] = tuple(STATEMENTS)
    """Which statements."""
    seed: int = 0
    paths: int = 10_000
    """Paths of each simulation."""
    full: bool = False
    """Ten times the paths, and the long checks."""
    jobs: int = -1
    """Worker processes, at most one a statement; -1 for one a core."""
    reuse: bool = False
    """Show the rows in --json again if they were made with the same options and hold."""

    def run(self, console: Console) -> int:
        unknown = set(self.statements) - STATEMENTS.keys()
        if unknown:
            raise ValueError(f"unknown statements {sorted(unknown)}; there are {', '.join(STATEMENTS)}")
        if self.paths < 100:
            raise ValueError(f"paths = {self.paths} must be >= 100 for standard errors to mean anything")
        if self.jobs == 0:
            raise ValueError("jobs must not be 0; -1 takes one process a core")
        checks = self._earlier()
        if checks:
            console.print(f"verified before, remove {self.json} to repeat", style="dim")
        else:
            with Progress(console=console, transient=True) as progress:
                task = progress.add_task("verify", total=len(self.statements))
                workers = 1 if len(self.statements) == 1 else self.jobs
                rows = joblib.Parallel(n_jobs=workers, return_as="generator")(
                    joblib.delayed(_verified)(name, self.seed, self.paths, self.full) for name in self.statements
                )
                for found in rows:
                    checks += found
                    progress.advance(task)
        table = Table(title="sde-mtl verify: claims against measurements")
        for heading in ("", "claim", "predicted", "measured", "error", "tolerance", "detects", "verdict"):
            table.add_column(heading, justify="right" if heading in ("error", "tolerance", "detects") else "left")
        for check in checks:
            style = ("dim" if check.control else None) if check.passed else "bold red"
            detects = "" if check.detects is None else f"{check.detects:.2g}"
            table.add_row(check.id, escape(check.claim), f"{check.predicted:.6g}", f"{check.measured:.6g}",
                          f"{check.error:.2g}", f"{check.tolerance:.2g} {check.unit}", detects, check.verdict,
                          style=style)  # fmt: skip
        console.print(table)
        failed = [check.id for check in checks if not check.passed]
        controls = sum(check.control for check in checks)
        console.print(
            f"{len(checks) - controls} claims and {controls} negative controls (deliberately wrong formulas that "
            f"must be rejected): " + (f"FAILED {', '.join(failed)}" if failed else "all as they should be")
        )
        if self.json is not None:
            _write_json(self.json, {**self._options(), "checks": [check.as_dict() for check in checks]})
        return 1 if failed else 0

    def _options(self) -> dict[str, Any]:
        return {"seed": self.seed, "paths": self.paths, "statements": list(self.statements), "full": self.full}

    def _earlier(self) -> list[Check]:
        if not self.reuse or self.json is None or not self.json.exists():
            return []
        options = json.loads(self.json.read_text())
        rows = [Check(**{f.name: row[f.name] for f in fields(Check)}) for row in options.pop("checks", [])]
        return rows if options == self._options() and all(row.passed for row in rows) else []


def _verified(name: str, seed: int, paths: int, full: bool) -> list[Check]:
    """All rows of a statement."""
    rows = STATEMENTS[name](seed, paths * (10 if full else 1))
    return rows + (FULL[name](seed, paths) if full and name in FULL else [])


@dataclass(frozen=True)
class Simulate:
    """Simulate two conflicting quadratics in the plane and compare with the closed forms."""

    aggregator: Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(AGGREGATORS)}}}[:OPTION=VALUE…]")] = "linear"
    """With options as in came-grad:nu=0.6:center=weighted."""
    scheme: Literal["recursion", "effective-sde", "linear-sde", "euler-maruyama"] = "recursion"
    """The training loop, its effective SDE (T4), or the SDE of linear scalarization (linear only), whose old name is
    euler-maruyama."""
    weights: tuple[float, float] = (1.0, 2.0)
    """Task weights."""
    correlation: float = -0.6
    """Of the gradient noise across the two tasks."""
    variances: tuple[float, float] = (1.0, 0.5)
    """Of one component of each task's gradient noise."""
    learning_rate: float = 0.08
    steps: int = 150
    paths: int = 10_000
    seed: int = 0
    start: tuple[float, float] = (3.0, -2.0)
    figure: Path | None = None
    """Folder for the figure (linear only)."""

    def run(self, console: Console) -> int:
        scheme = RENAMED.get(self.scheme, self.scheme)
        if scheme != self.scheme:
            console.print(f"--scheme {self.scheme} is deprecated; its new name is --scheme {scheme}", style="yellow")
        problem, _ = example()
        noise = AdditiveNoise.correlated(self.variances, correlation=self.correlation, dimension=2)
        exact = parse_options(self.aggregator)[0] == "linear"
        if scheme == "linear-sde" and not exact:
            raise ValueError("--scheme linear-sde is linear scalarization's; others have --scheme effective-sde")
        dynamics = build_dynamics(scheme, problem, noise, aggregator(self.aggregator), self.weights, self.learning_rate)
        record = recorded_steps(self.steps, 11)
        with Progress(console=console, transient=True) as progress:
            moments = simulate(dynamics, self.start, self.steps, paths=self.paths, seed=self.seed, record=record,
                               progress=progress)  # fmt: skip
        law = OrnsteinUhlenbeck.of(problem, noise, self.weights, self.learning_rate)
        table = Table("step", "mean", "variances", title=f"{self.aggregator}, {moments.paths} paths")
        if exact:
            table.add_column("mean, closed form")
            table.add_column("variances, closed form")
        for at, step in enumerate(moments.steps.tolist()):
            row = [str(step), _numbers(moments.mean[at]), _numbers(moments.covariance[at].diagonal())]
            if exact:
                row += [_numbers(law.discrete_mean(step, self.start)), _numbers(np.diag(law.discrete_covariance(step)))]
            table.add_row(*row)
        console.print(table)
        if self.figure is not None:
            if not exact:
                raise ValueError("the figure compares with closed forms, which CAME-Grad does not have")
            figure = figures.paths.moments(moments, law, self.start, self.learning_rate)
            console.print(f"wrote {', '.join(figures.save(figure, self.figure, 'moments'))} to {self.figure}")
        return 0


@dataclass(frozen=True)
class Analyze:
    """Measure conflict, drift deviation and diffusion decay in gradient logs."""

    logs: tyro.conf.Positional[tuple[Path, ...]] = field()
    """Folders of gradient logs, the 'gradients' folder of each run."""
    out: Path | None = None
    """Folder for analysis.json and the figures."""
    rho: float = 0.5
    replicates: int = 2000
    """Bootstrap resamples."""
    seed: int = 0

    def run(self, console: Console) -> int:
        if not self.logs:
            raise ValueError("give at least one folder with a gradient log")
        logs = [read_log(folder) for folder in self.logs]
        analyses = []
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("analyze", total=len(logs))
            for log in logs:
                analyses.append(analyze(log, rho=self.rho, replicates=self.replicates, seed=self.seed))
                progress.advance(task)
        for log in logs:
            if log.shared is None:
                console.print(
                    f"{log.folder}: this log does not tell the shared parameters apart, as those of version 1; its "
                    "numbers are of all parameters", style="yellow", markup=False,
                )  # fmt: skip
        console.print(weights_table(analyses))
        console.print(scope_table(analyses))
        for table in map(group_table, analyses):
            if table is not None:
                console.print(table)
        console.print(analysis_table(analyses))
        for analysis in analyses:
            console.print(empirical_table(analysis))
        judged = verdicts(analyses)
        console.print(verdict_table(judged))
        if self.out is not None:
            names = []
            for name in ("hidden_weights", "conflict", "deviation", "diffusion", "effective"):
                names += figures.save(getattr(figures.gradient_logs, name)(analyses), self.out, name)
            _write_json(
                self.out / "analysis.json",
                {
                    "version": 2,
                    "rho": self.rho,
                    "paper": {"any_conflict_with_first": PAPER_CONFLICT_RATE},
                    "logs": [analysis.as_dict() for analysis in analyses],
                    "verdicts": [verdict.as_dict() for verdict in judged],
                    "figures": names,
                },
            )
            console.print(f"wrote analysis.json and {len(names)} figure files to {self.out}", style="dim")
        return 0


@dataclass(frozen=True)
class Report:
    """Write report.html from verify.json and analysis.json in a folder."""

    folder: tyro.conf.Positional[Path]

    def run(self, console: Console) -> int:
        console.print(f"wrote {write_report(self.folder)}")
        return 0


@dataclass(frozen=True)
class Sweep:
    """Simulate every point of a TOML file's grid; one tidy Parquet file. A second call runs only what is missing."""

    file: tyro.conf.Positional[Path]
    """Sweep file; see sde_mtl/simulation/sweep_file.py for an example."""
    out: Path | None = None
    """Parquet file; FILE with the ending .parquet by default."""
    jobs: int = -1
    """Processes; -1 for one a core."""
    backend: Literal["loky", "threading", "dask"] = "loky"
    scheduler: str | None = None
    """Address of a Dask scheduler, with --backend dask."""

    def run(self, console: Console) -> int:
        sweep = read_sweep(self.file)
        out = self.file.with_suffix(".parquet") if self.out is None else self.out
        with Progress(console=console, transient=True) as progress:
            table = run_sweep(sweep, out, jobs=self.jobs, backend=self.backend, scheduler=self.scheduler,
                              progress=progress)  # fmt: skip
        diverged = sum(table.column("diverged").to_pylist())
        console.print(
            f"{len(sweep.points)} points over {', '.join(sweep.swept) or 'nothing'}: {len(table)} rows in {out}"
        )
        if diverged:
            console.print(f"paths diverged at some points; see the column 'diverged' of {out}", style="yellow")
        return 0


@dataclass(frozen=True)
class Figures:
    """Compute and draw the theory's figures, as SVG and PNG."""

    out: Path = Path("out/figures")
    """Folder."""
    names: tuple[str, ...] = tuple(GALLERY)
    """Which figures."""
    seed: int = 0

    def run(self, console: Console) -> int:
        unknown = sorted(set(self.names) - GALLERY.keys())
        if unknown:
            raise ValueError(f"unknown figures {unknown}; there are {', '.join(GALLERY)}")
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("figures", total=len(self.names))
            for name in self.names:
                progress.update(task, description=name)
                files = figures.save(GALLERY[name](self.seed), self.out, name)
                console.print(f"wrote {', '.join(files)} to {self.out}")
                progress.advance(task)
        return 0


@dataclass(frozen=True)
class Claims:
    """Print every claim of the paper and its audits with what was found here."""

    json: Path | None = None
    """Also write the rows here."""

    def run(self, console: Console) -> int:
        table = Table("source", "claim", "found here", "verdict", "shown by", title="claims", show_lines=True)
        for claim in CLAIMS:
            style = {"holds": "green", "fails": "bold red"}.get(claim.verdict, "yellow")
            table.add_row(claim.source, escape(claim.claim), escape(claim.finding), f"[{style}]{claim.verdict}[/]",
                          escape(claim.shown_by))  # fmt: skip
        console.print(table)
        if self.json is not None:
            _write_json(self.json, {"claims": [claim.as_dict() for claim in CLAIMS]})
        return 0


def _numbers(values: Any) -> str:
    return "  ".join(f"{float(value):.4f}" for value in values)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON into a folder that may be new; NaN and infinities, which JSON has not, become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, _finite(value), indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


Command = (
    Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Claims, tyro.conf.subcommand("claims")]
    | Annotated[Simulate, tyro.conf.subcommand("simulate")]
    | Annotated[Analyze, tyro.conf.subcommand("analyze")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Figures, tyro.conf.subcommand("figures")]
    | Annotated[Report, tyro.conf.subcommand("report")]
)


def main() -> None:
    """Entry point of ``sde-mtl``."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    torch.set_num_threads(1)  # operations are small: more threads wait for each other, for minutes on a busy machine
    try:
        sys.exit(tyro.cli(Command, prog="sde-mtl", description=__doc__).run(console))
    except (GradientLogError, ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
