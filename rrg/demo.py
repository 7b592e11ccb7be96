"""The whole line in one command: real reports → training → gradient logs → analysis → verdicts.

    python -m rrg.demo

Trains the compact report generator with linear scalarization and with CAME-Grad on the same data and seed, logs
the task gradients, verifies the theory, analyzes the logs, and ends with a table and ``report.html``. A run that
was interrupted continues; one that is complete is shown again at once.
"""

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from optimizers.files import write_json
from rrg.command import command_line
from rrg.config import TrainConfig
from rrg.data import attribution, read_reports
from rrg.errors import ReportsUnavailable
from rrg.metrics import tabled
from rrg.model import ModelConfig
from rrg.train import TrainResult, trained

OPTIMIZERS: tuple[Literal["linear", "came-grad"], ...] = ("linear", "came-grad")
SMALL = ModelConfig((32, 64, 128, 192), (1, 1, 2, 1), decoder_width=192, decoder_layers=2)
"""2.2 million parameters, so that two runs take minutes on a CPU."""


@dataclass(frozen=True)
class DemoConfig:
    """CAME-Grad end to end."""

    out: Path = Path("out/demo")
    """Folder of the results."""
    dataset: Literal["auto", "openi", "phantom"] = "auto"
    """auto: real reports, or phantom ones if they cannot be had."""
    reports: Path | None = None
    """Own copy of the OpenI reports, a .tgz or a folder of XML files."""
    steps: int = 250
    """Training steps of each run."""
    batch_size: int = 16
    frozen_batches: int = 24
    """Micro-batches at each of three frozen sets of parameters."""
    curvature_directions: int = 4
    """Directions along which the Hessians are logged there; 0 for none."""
    phantom_studies: int = 2000
    limit: int | None = None
    """Use only that many studies."""
    image_size: int = 96
    paths: int = 10_000
    """Paths of each simulation of sde-mtl verify."""
    statements: tuple[str, ...] = ()
    """Statements of the theory to verify; all by default."""
    seed: int = 0
    model: ModelConfig = field(default_factory=lambda: SMALL)


def run(config: DemoConfig, console: Console) -> Path:
    """Run the demo; the path of the page.

    Raises:
        ReportsUnavailable: if ``dataset`` is openi and the reports cannot be had.
        TrainingError, ValueError: as :func:`rrg.train.train`.
        subprocess.CalledProcessError: if a check of the theory fails, or the analysis does.
    """
    begun = time.perf_counter()
    dataset, note = _choose(config, console)
    results = [_train(config, dataset, optimizer, console) for optimizer in OPTIMIZERS]
    logs = [str(result.gradients) for result in results]
    chosen = ("--statements", *config.statements) if config.statements else ()
    _sde_mtl("verify", "--reuse", "--json", str(config.out / "verify.json"), "--paths", str(config.paths), *chosen)
    _sde_mtl("analyze", *logs, "--out", str(config.out))
    headings, rows = _training_rows(results)
    write_json(config.out / "training.json", {"note": note, "headings": headings, "rows": rows})
    _sde_mtl("report", str(config.out))
    table = Table(*headings, title=f"training, {note}")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    page = config.out / "report.html"
    console.print(f"done in {time.perf_counter() - begun:.0f} s; open {page}")
    return page


def _choose(config: DemoConfig, console: Console) -> tuple[Literal["openi", "phantom"], str]:
    """The corpus, and a sentence that says what it is."""
    if config.dataset == "phantom":
        return "phantom", "phantom reports with rendered images"
    try:
        with console.status("fetching the real reports"):
            read_reports(config.reports)
    except ReportsUnavailable as error:
        if config.dataset == "openi":
            raise
        console.print(f"falling back to phantom reports: {error}", style="yellow", markup=False)
        return "phantom", "phantom reports (the real ones could not be had) with rendered images"
    console.print(attribution(), style="dim")
    return "openi", "real IU X-Ray reports with rendered images"


def _train(
    config: DemoConfig,
    dataset: Literal["openi", "phantom"],
    optimizer: Literal["linear", "came-grad"],
    console: Console,
) -> TrainResult:
    """Train, or continue, or reuse a run of the same options."""
    folder = config.out / optimizer
    options = TrainConfig(
        dataset=dataset,
        reports=config.reports,
        optimizer=optimizer,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        limit=config.limit,
        phantom_studies=config.phantom_studies,
        image_size=config.image_size,
        frozen_batches=config.frozen_batches,
        curvature_directions=config.curvature_directions,
        log_gradients=True,
        model=config.model,
        out=folder,
    )
    return trained(options, console)


def _training_rows(results: list[TrainResult]) -> tuple[list[str], list[list[str]]]:
    headings = ["optimizer", "steps", "seconds", "validation rg", "validation dc", "BLEU-1", "BLEU-4", "ROUGE-L",
                "CE F1", "DC F1", "DC F1 majority", "distinct reports"]  # fmt: skip
    rows = []
    for run_ in results:
        r, e = run_.result, run_.result["evaluation"]
        f1 = {name: score["micro"]["f1"] for name, score in tabled(e).items()}
        losses = r["validation_losses"]
        rows.append([
            r["optimizer"]["name"], str(r["steps"]), f"{r['seconds']:.0f}",
            f"{losses['rg']:.3f}", f"{losses['dc']:.3f}",
            f"{e['bleu'][0]:.3f}", f"{e['bleu'][3]:.3f}", f"{e['rouge_l']:.3f}", f"{f1['CE']:.3f}",
            f"{f1['DC']:.3f}", f"{f1['DC majority']:.3f}", str(e["distinct_reports"]),
        ])  # fmt: skip
    return headings, rows


def _sde_mtl(*arguments: str) -> None:
    """Run the analysis as its own program; training knows nothing of it."""
    subprocess.run([sys.executable, "-m", "sde_mtl", *arguments], check=True)


def cli(config: DemoConfig, console: Console) -> None:
    """Run the demo; ends the process with the status of a check or an analysis that failed."""
    try:
        run(config, console)
    except subprocess.CalledProcessError as error:
        console.print(f"error: sde-mtl {error.cmd[3]} ended with {error.returncode}; see above", style="red")
        sys.exit(error.returncode)


def main() -> None:
    """Command line: ``python -m rrg.demo``."""
    command_line(DemoConfig, cli, __doc__, "interrupted; the same command continues", width=132)


if __name__ == "__main__":
    main()
