"""Train several optimizers over several seeds on the same data, and tabulate them with the controls that they need.

    rrg compare --optimizers came-grad came-grad:nu=0.6 torchjd:UPGrad --seeds 0 1 2 3 4 --train.dataset phantom

An optimizer is a name as ``rrg train --optimizer`` takes it, followed by options that only its runs have. The
controls: linear scalarization at the task weights and at equal ones; at the schedule of weights that the first
CAME-Grad decided on in its runs of the *other* seeds, and at the mean of that schedule (theory T18): a gain over the
weighted sum may be one of weights. All clip alike; two more rows clip as the authors' trainer does, entries at 0.1 for
linear scalarization and nothing for CAME-Grad. Finished runs are reused, interrupted ones continue.
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
from rrg.aggregators import REPLAY
from rrg.command import command_line
from rrg.config import TrainConfig, as_json
from rrg.errors import TrainingError
from rrg.metrics.seeds import Runs, markdown, measured, show, summarize
from rrg.train import trained

CONTROL = "linear:task_weights=equal"
CAME_GRAD = "came-grad"
CLIPPED_AS_PUBLISHED = ("linear:clip_norm=0:clip_value=0.1", "came-grad:clip_norm=0")
"""The two arms of the authors' trainer; its baseline alone clips."""
OPTIONS = (
    "rho", "kappa", "nu", "center", "fusion", "refresh_every", "track", "clip_norm", "clip_value", "lr", "task_weights",
)  # fmt: skip


@dataclass(frozen=True)
class CompareConfig:
    """Train optimizers over seeds, with the controls that they need, and tabulate means and paired differences."""

    optimizers: tuple[str, ...] = (CAME_GRAD,)
    """Names with options, such as came-grad:nu=0.6:center=weighted or linear:clip_value=0.1."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One run of every optimizer for each."""
    out: Path = Path("out/compare")
    """Folder of the runs, compare.json and compare.md."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Options of every run."""
    controls: bool = True
    """Add the controls; without, linear scalarization at equal weights alone."""

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


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: as tables and folders have it.
        options: of its runs, but for seed and folder.
        source: the arm whose runs of the other seeds it replays, or None.
        mean: whether it replays the mean of their weights.
    """

    name: str
    options: TrainConfig
    source: "Arm | None" = None
    mean: bool = False

    def run(self, config: "CompareConfig", seed: int) -> TrainConfig:
        """Options of the run of one seed."""
        options = dataclasses.replace(self.options, seed=seed, out=folder_of(config, self.name, seed))
        if self.source is None:
            return options
        others = ",".join(str(folder_of(config, self.source.name, s)) for s in config.seeds if s != seed)
        return dataclasses.replace(options, optimizer=f"{REPLAY}{others}" + (":mean=True" if self.mean else ""))


def arms(config: CompareConfig) -> list[Arm]:
    """The rows of a comparison, the control of all differences first, each once.

    Raises:
        ValueError: for unknown optimizers or options.

    Example:
        >>> [arm.name for arm in arms(CompareConfig(("came-grad",)))]
        ['linear:task_weights=equal', 'linear', 'replay-mean(came-grad)', 'replay(came-grad)',
        'linear:clip_norm=0:clip_value=0.1', 'came-grad:clip_norm=0', 'came-grad']
    """
    asked = [Arm(text, variant(config.train, text)) for text in config.optimizers]
    rows = [Arm(CONTROL, variant(config.train, CONTROL))]
    if config.controls:
        rows.append(Arm("linear", variant(config.train, "linear")))
        source = next((arm for arm in asked if arm.options.optimizer == CAME_GRAD), None)
        if source is not None and len(config.seeds) > 1:
            rows.append(Arm(f"replay-mean({source.name})", source.options, source, mean=True))
            rows.append(Arm(f"replay({source.name})", source.options, source))
        rows += [Arm(text, variant(config.train, text)) for text in CLIPPED_AS_PUBLISHED]
    known: list[Arm] = []
    for arm in rows:
        same = [other for other in asked if arm.source is None and _resolved(other.options) == _resolved(arm.options)]
        known.append(same[0] if same else arm)
    return list({arm.name: arm for arm in [*known, *asked]}.values())


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
    table = arms(config)
    if console is not None and config.controls and len(config.seeds) < 2:
        console.print("one seed: no schedule of other seeds can be replayed, and nothing can be tested; take five")
    rows: dict[str, Runs] = {arm.name: {} for arm in table}
    summary: dict[str, Any] = {}
    config.out.mkdir(parents=True, exist_ok=True)
    for replayed in (False, True):
        for seed in config.seeds:
            for arm in table:
                if (arm.source is not None) != replayed:
                    continue
                rows[arm.name][seed] = _result(config, arm, seed, rows, console)
                seeds = ", ".join(map(str, config.seeds))
                note = f"Mean ± standard deviation over the seeds {seeds}; scores of the {config.train.evaluate} split"
                summary = {"note": note, **summarize(rows, table[0].name), "train": as_json(config.train)}
                write_json(config.out / "compare.json", summary)
                write_text(config.out / "compare.md", markdown(summary))
    return summary


def _result(
    config: CompareConfig, arm: Arm, seed: int, rows: dict[str, Runs], console: Console | None
) -> dict[str, Any]:
    """What a run measured, or why it failed."""
    if arm.source is not None:
        lost = [s for s in config.seeds if s != seed and "failed" in rows[arm.source.name][s]]
        if lost:
            return {"failed": f"the runs of {arm.source.name} that it replays failed for the seeds {lost}"}
    try:
        return measured(trained(arm.run(config, seed), console).result)
    except TrainingError as error:
        if console is not None:
            console.print(f"{arm.name}, seed {seed}: {error}", style="red", markup=False)
        return {"failed": str(error)}


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
        return float(value) if name == "track" else type(getattr(base, name))(str(value))
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
