"""Train the compact report generator with every variant that the paper's claims turn on, over several seeds.

    python benchmarks/report_generators.py            # a size that fits the machine: small on a CPU, large on a GPU
    python benchmarks/report_generators.py --annotation data/annotation.json

Linear scalarization with the authors' weights and with equal ones, CAGrad, and CAME-Grad with κ ∈ {1, 1.5},
ν ∈ {0.2, 0.6} and both centres. The result holds losses, metrics, throughput, the cost of a step over that of linear
scalarization, and what the gradient logs say; interrupted work continues.
"""

import statistics
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import tyro
from machine import RESULTS, machine, write
from rich.console import Console

from optimizers.files import write_text
from rrg.compare import CompareConfig, compare, folder_of
from rrg.config import TrainConfig
from rrg.metrics.seeds import markdown, show
from rrg.model import TASKS, ModelConfig
from sde_mtl import analyze, read_log

OPTIMIZERS = (
    "linear",
    "cagrad",
    *(
        f"came-grad:kappa={kappa}:nu={nu}:center={center}"
        for kappa, nu, center in product((1.0, 1.5), (0.2, 0.6), ("mean", "weighted"))
    ),
)


@dataclass(frozen=True)
class Options:
    """Train all variants."""

    out: Path = Path("out/benchmarks/report-generators")
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int | None = None
    """Of each run; 150 on a CPU and 1500 on a GPU by default."""
    annotation: Path | None = None
    """Real radiographs; phantom studies by default."""
    images: Path | None = None
    """Their folder; by default images beside the annotation."""
    results: Path = RESULTS
    """Folder of the result."""


def settings(options: Options) -> TrainConfig:
    """Options of every run, by machine."""
    gpu = torch.cuda.is_available()
    small = ModelConfig((16, 32, 64), (1, 1, 1), decoder_width=64, decoder_layers=1, text_layers=1, embedding_width=32)
    return TrainConfig(
        dataset="phantom" if options.annotation is None else "r2gen",
        annotation=options.annotation,
        images=options.images,
        phantom_studies=8000 if gpu else 400,
        tasks=TASKS,
        steps=options.steps or (1500 if gpu else 150),
        batch_size=256 if gpu else 16,
        image_size=224 if gpu else 64,
        precision="bf16" if gpu else "fp32",
        lr=1e-3,
        workers=12 if gpu else 0,
        log_gradients=True,
        frozen_batches=16,
        evaluate="val",
        model=ModelConfig() if gpu else small,
    )


def gradients(folder: Path) -> dict[str, Any]:
    """What the gradient log of one run says."""
    found = analyze(read_log(folder), replicates=300)
    shared = found.scopes["shared"]
    return {
        "any conflict with first": found.any_conflict_with_first.value,
        "conflict by pair": {pair: interval.value for pair, interval in found.conflict_by_pair.items()},
        "linear harms a task": found.harm_rate.value,
        "on shared parameters": {
            "linear harms a task": shared.harm_rate.value,
            "mean weights": [weight.value for weight in shared.mean_weights],
        },
        "stage 1 valid": found.valid_rate.value,
        "diffusion ratio": {str(d.step): d.ratio.value for d in found.diffusion},
    }


def main(options: Options) -> None:
    """Train, tabulate, write."""
    console = Console()
    config = CompareConfig(OPTIMIZERS, options.seeds, options.out, settings(options))
    summary = compare(config, console=console)
    show(summary, console)
    linear = next(row for row in summary["optimizers"] if row["optimizer"] == "linear")
    for row in summary["optimizers"]:
        if row["mean"].keys() & linear["mean"].keys() >= {"step seconds"}:  # not of runs that only were evaluated again
            row["step over linear"] = row["mean"]["step seconds"] / linear["mean"]["step seconds"]
        by_seed = [gradients(folder_of(config, row["optimizer"], int(seed)) / "gradients") for seed in row["runs"]]
        row["gradients"] = {
            "seeds": by_seed,
            "mean any conflict with first": statistics.mean(seed["any conflict with first"] for seed in by_seed),
        }
    summary["not measured"] = [] if machine()["gpu"] else ["GPU: not measured, none was at hand"]
    name = "report-generators" if options.annotation is None else "report-generators-radiographs"
    path = write(name, summary, options.results)
    write_text(path.with_suffix(".md"), markdown(summary))
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
