"""Train several optimizers over several seeds on the same data, and tabulate mean ± spread.

    rrg compare --optimizers linear came-grad came-grad:nu=0.6 torchjd:UPGrad --seeds 0 1 2 --train.dataset phantom

An optimizer is a name as ``rrg train --optimizer`` takes it, followed by options that only its runs have. Linear
scalarization with equal weights is always among them: CAME-Grad below ν = ½ rests where it does, so that a gain over
the weighted sum alone may be one of the weights (theory T6). Finished runs are reused, interrupted ones continue.
"""

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from optimizers.aggregators import TORCHJD, parse_options
from optimizers.files import write_json, write_text
from rrg.command import command_line
from rrg.config import TrainConfig, as_json
from rrg.errors import TrainingError
from rrg.metrics.seeds import Runs, markdown, measured, show, summarize
from rrg.train import trained

CONTROL = "linear:task_weights=equal"
OPTIONS = ("rho", "kappa", "nu", "center", "fusion", "refresh_every", "clip_norm", "clip_value", "lr", "task_weights")


@dataclass(frozen=True)
class CompareConfig:
    """Train optimizers over seeds and tabulate mean ± standard deviation, with linear at equal weights as control."""

    optimizers: tuple[str, ...] = ("linear", "came-grad")
    """Names with options, such as came-grad:nu=0.6:center=weighted or linear:clip_value=0.1."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of every optimizer for each."""
    out: Path = Path("out/compare")
    """Folder of the runs, compare.json and compare.md."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Options of every run."""

    def __post_init__(self) -> None:
        for name, values in (("optimizers", self.optimizers), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be one or more, each once, got {values}")


def variant(base: TrainConfig, text: str) -> TrainConfig:
    """The options of one optimizer's runs.

    Args:
        base: options of every run.
        text: ``NAME[:option=value…]`` with options out of :data:`OPTIONS`, or of the TorchJD method.

    Raises:
        ValueError: for an unknown name or option, or a value outside its domain.

    Example:
        >>> changed = variant(TrainConfig(), "came-grad:nu=0.6:center=weighted")
        >>> changed.optimizer, changed.nu, changed.center
        ('came-grad', 0.6, 'weighted')
    """
    torchjd = text.startswith(TORCHJD)
    changes: dict[str, Any] = {}
    for name, value in parse_options(text, prefix=TORCHJD)[1].items():
        if name in OPTIONS:
            changes[name] = _value(base, text, name, value)
        elif not torchjd:
            raise ValueError(f"{text!r} has the unknown option {name!r}; there are {', '.join(OPTIONS)}")
    optimizer = ":".join(word for word in text.split(":") if word.partition("=")[0] not in OPTIONS)
    return dataclasses.replace(base, optimizer=optimizer, **changes)


def compare(config: CompareConfig, *, console: Console | None = None) -> dict[str, Any]:
    """Make, continue or reuse all runs; write ``compare.json`` and ``compare.md`` after each of them.

    Args:
        config: what to run.
        console: shows progress if given.

    Returns:
        contents of compare.json, see :func:`rrg.metrics.seeds.summarize`. A run that ended with a
        :class:`TrainingError` is recorded as failed, and the others go on.

    Raises:
        ValueError: for unknown optimizers or options, before anything is run, or runs of other options in the folder.
        OSError, ReportsUnavailable: as :func:`rrg.train.train`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a comparison trains in one process; under torchrun use rrg.train, one run at a time")
    variants = {text: variant(config.train, text) for text in config.optimizers}
    equal = _resolved(variant(config.train, CONTROL))
    control = next((text for text, options in variants.items() if _resolved(options) == equal), CONTROL)
    variants = {control: equal} | variants
    rows: dict[str, Runs] = {text: {} for text in variants}
    summary: dict[str, Any] = {}
    config.out.mkdir(parents=True, exist_ok=True)
    for seed in config.seeds:
        for text, options in variants.items():
            try:
                done = trained(dataclasses.replace(options, seed=seed, out=folder_of(config, text, seed)), console)
                rows[text][seed] = measured(done.result)
            except TrainingError as error:
                rows[text][seed] = {"failed": str(error)}
                if console is not None:
                    console.print(f"{text}, seed {seed}: {error}", style="red", markup=False)
            seeds = ", ".join(map(str, config.seeds))
            note = f"Mean ± standard deviation over the seeds {seeds}; scores of the {config.train.evaluate} split"
            summary = {"note": note, **summarize(rows, control), "train": as_json(config.train)}
            write_json(config.out / "compare.json", summary)
            write_text(config.out / "compare.md", markdown(summary))
    return summary


def folder_of(config: CompareConfig, text: str, seed: int) -> Path:
    """Folder of one optimizer's run with one seed."""
    return config.out / re.sub(r"[^A-Za-z0-9.=-]+", "_", text) / f"seed-{seed}"


def _resolved(options: TrainConfig) -> TrainConfig:
    return dataclasses.replace(options, task_weights=options.weights)


def _value(base: TrainConfig, text: str, name: str, value: Any) -> Any:
    """A value of ``text`` as the option of that name has it."""
    try:
        if name == "task_weights":
            numbers = value if isinstance(value, tuple) else (value,)
            return value if value == "equal" else tuple(float(number) for number in numbers)
        return type(getattr(base, name))(str(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r}: {name} cannot be {str(value)!r}: {error}") from error


def cli(config: CompareConfig, console: Console) -> None:
    """Compare, show the table; raises ``TrainingError`` if a run failed."""
    summary = compare(config, console=console)
    show(summary, console)
    console.print(f"written to {config.out}/compare.json and compare.md")
    failed = sum(len(row["failed"]) for row in summary["optimizers"])
    if failed:
        raise TrainingError(f"{failed} runs failed, see above; the others are in the table")


def main() -> None:
    """Command line: ``python -m rrg.compare``."""
    command_line(CompareConfig, cli, __doc__, "interrupted; the same command continues")


if __name__ == "__main__":
    main()
