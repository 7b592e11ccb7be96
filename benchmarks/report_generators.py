"""Train the compact report generator with CAME-Grad and with every control that a gain of it has to beat.

    python benchmarks/report_generators.py                                  # phantom studies, two tasks
    python benchmarks/report_generators.py --tasks rg,dc,ita,re
    python benchmarks/report_generators.py --annotation data/annotation.json

The arms: linear scalarization at the task weights, at equal ones, at the schedule of weights that CAME-Grad decided on
in the runs of the other seeds, and at its mean; CAME-Grad with the paper's options, with the weighted centre (T7), and
with tracked gradients (T17); the two arms of the authors' trainer, of which the baseline alone clips; and, as the floor
under every score, linear scalarization that sees black images. Losses and scores are of studies that were not trained
on. Interrupted work continues.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from machine import RESULTS, machine, write
from rich.console import Console

from optimizers.files import write_text
from rrg.compare import CompareConfig, compare
from rrg.config import Tasks, TrainConfig
from rrg.metrics.seeds import markdown, measured, show
from rrg.model import ModelConfig
from rrg.train import trained

OPTIMIZERS = ("came-grad", "came-grad:center=weighted", "came-grad:track=0.99")
SMALL = ModelConfig((16, 32, 64), (1, 1, 1), decoder_width=64, decoder_layers=1, text_layers=1, embedding_width=32)


@dataclass(frozen=True)
class Options:
    """Train all arms."""

    out: Path = Path("out/benchmarks/report-generators")
    """The runs, in a folder for each data set and number of tasks."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tasks: Tasks = ("rg", "dc")
    """The tasks that are trained together."""
    steps: int = 1500
    """Of each run: until the validation loss of report generation has stopped falling."""
    phantom_studies: int = 2000
    annotation: Path | None = None
    """Real radiographs; phantom studies by default."""
    images: Path | None = None
    """Their folder; by default images beside the annotation."""
    results: Path = RESULTS
    """Folder of the result."""

    @property
    def name(self) -> str:
        """Of data set and tasks, as it occurs in files."""
        return f"{'phantom' if self.annotation is None else 'radiographs'}-{len(self.tasks)}-tasks"


def settings(options: Options) -> TrainConfig:
    """Options of every run, by machine."""
    gpu = torch.cuda.is_available()
    return TrainConfig(
        dataset="phantom" if options.annotation is None else "r2gen",
        annotation=options.annotation,
        images=options.images,
        phantom_studies=options.phantom_studies,
        tasks=options.tasks,
        steps=options.steps,
        batch_size=16,
        image_size=224 if gpu else 64,
        precision="bf16" if gpu else "fp32",
        lr=1e-3 if gpu else 3e-3,
        workers=12 if gpu else 0,
        log_every=50,
        validate_every=150,
        checkpoint_every=500,
        evaluate="val",
        model=ModelConfig() if gpu else SMALL,
    )


def blind(config: CompareConfig, console: Console) -> dict[str, Any]:
    """What the first seed's linear scalarization measures where every image is black."""
    model = dataclasses.replace(config.train.model, blind=True)
    out = config.out / "blind" / f"seed-{config.seeds[0]}"
    options = dataclasses.replace(config.train, optimizer="linear", model=model, seed=config.seeds[0], out=out)
    return measured(trained(options, console).result)


def main(options: Options) -> None:
    """Train, tabulate, write."""
    console = Console()
    config = CompareConfig(OPTIMIZERS, options.seeds, options.out / options.name, settings(options))
    summary: dict[str, Any] = {**compare(config, console=console), "blind": blind(config, console)}
    show(summary, console)
    summary["not measured"] = [] if machine()["gpu"] else ["GPU: not measured, none was at hand"]
    path = write(f"report-generators-{options.name}", summary, options.results)
    write_text(path.with_suffix(".md"), markdown(summary))
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
