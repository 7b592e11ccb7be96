"""Train a report generator on several tasks at once.

    python -m rrg.train --dataset r2gen --annotation data/annotation.json --tasks rg,dc,ita,re --out out/run
    torchrun --nproc-per-node 2 -m rrg.train …

The run's folder: ``config.json``, ``tokenizer.json``, ``metrics.jsonl``, ``coefficients.csv`` (what the aggregator
decided, for ``--optimizer replay:``), ``checkpoints/``, ``gradients/`` (with
--log-gradients), ``result.json``, ``samples.jsonl`` and ``samples.html``. A killed run continues with --resume, bit for
bit on a CPU.
"""

import dataclasses
import errno
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as rrg/train.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from optimizers import NonFiniteError
from optimizers.files import write_json
from rrg.command import command_line
from rrg.config import TrainConfig, as_json, from_json
from rrg.data import ReportDataset, Split, Tokenizer
from rrg.distributed import barrier, local_device, process_group, rank, world_size
from rrg.errors import TrainingError
from rrg.evaluate import evaluate
from rrg.metrics import load_labeller, write_samples
from rrg.training import (
    CoefficientLog,
    Journal,
    TrainingRun,
    build_model,
    checkpoint,
    load_corpus,
    log_frozen,
    lowest,
    mean_coefficients,
    named,
    open_log,
    optimizer_meta,
    record,
    select_device,
    validation_losses,
)

FREE_ON_RESUME = frozenset({
    "resume", "out", "device", "evaluate", "num_beams", "tensorboard", "reports", "annotation", "images", "verify",
    "workers", "chexbert", "chexbert_vocab", "no_sync", "find_unused_parameters",
})  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind."""

    out: Path
    gradients: Path | None
    """The gradient log."""
    result: dict[str, Any]
    """Contents of result.json."""
    seconds: float


def train(config: TrainConfig, *, console: Console | None = None) -> TrainResult:
    """Train, checkpoint, log and evaluate as configured; under ``torchrun`` on all its processes.

    Sets torch's global random state from ``config.seed``.

    Args:
        config: options of the run.
        console: shows progress if given.

    Returns:
        the result; on processes other than the first without scores.

    Raises:
        FileExistsError: if ``out`` holds a run and ``resume`` is not set; nothing is changed.
        ValueError: for options that contradict each other or the run to be resumed, or damaged data.
        ReportsUnavailable: if the reports cannot be had.
        TrainingError: if a loss or gradient becomes NaN or infinite, or the disk is full; checkpoints and log stay
            readable.
    """
    begun = time.perf_counter()
    device = local_device(select_device(config.device))
    with process_group(device):
        first_process = rank() == 0
        labeller = load_labeller(config.chexbert, config.chexbert_vocab, console=console) if first_process else None
        run, tokenizer, timings = _train(config, device, console if first_process else None)
        run.leave()
        processes = world_size()
    training_seconds = time.perf_counter() - begun
    result: dict[str, Any] = {
        "optimizer": optimizer_meta(config),
        "tasks": list(config.tasks),
        "task_weights": list(config.weights),
        "steps": run.steps,
        "parameters": sum(p.numel() for p in run.parameters),
        "config": as_json(config),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processes": processes,
        "training_seconds": training_seconds,
        **timings,
    }
    if first_process:
        if config.evaluate != "none":
            scores, samples = evaluate(
                run.model, tokenizer, run.corpus, config.evaluate, image_size=config.image_size,
                max_views=config.max_views, num_beams=config.num_beams, labeller=labeller,
                settings={"seed": config.seed, "optimizer": result["optimizer"], "step": run.steps}, console=console,
            )  # fmt: skip
            result["evaluation"] = scores
            write_samples(config.out, samples, run.corpus, scores, config.image_size)
        result["seconds"] = time.perf_counter() - begun
        write_json(config.out / "result.json", result)
    return TrainResult(config.out, _gradients(config), result, time.perf_counter() - begun)


def trained(config: TrainConfig, console: Console | None = None) -> TrainResult:
    """The run in ``config.out``: trained, continued where it was interrupted, or as it was finished before.

    Raises:
        ValueError: if the folder holds a finished run with other options.
        Exception: as :func:`train`.
    """
    finished = config.out / "result.json"
    if finished.exists():
        result = json.loads(finished.read_text())
        if {**result["config"], "resume": False} == as_json(config):
            if console is not None:
                console.print(f"{config.out.name}: already trained, remove {config.out} to repeat", style="dim")
            return TrainResult(config.out, _gradients(config), result, result["seconds"])
        raise ValueError(f"{config.out} holds a run with other options; remove it or choose another --out")
    interrupted = (config.out / "config.json").exists()
    return train(dataclasses.replace(config, resume=interrupted), console=console)


def _gradients(config: TrainConfig) -> Path | None:
    return config.out / "gradients" if config.log_gradients else None


def _train(
    config: TrainConfig, device: torch.device, console: Console | None
) -> tuple[TrainingRun, Tokenizer, dict[str, Any]]:
    """All steps; the trained run, and what is known of losses and speed."""
    _check_folder(config)
    if world_size() > 1 and config.log_gradients and config.frozen_batches:
        raise ValueError("gradients at frozen parameters are logged by one process; pass --frozen-batches 0")
    corpus = load_corpus(config, console)
    torch.manual_seed(config.seed)
    tokenizer = Tokenizer.learn([s.report for s in corpus.split("train")], config.vocabulary_size)
    splits: tuple[tuple[Split, bool], ...] = (("train", config.augment), ("val", False))
    dataset, unseen = (
        ReportDataset(
            corpus.split(split), tokenizer, image_size=config.image_size, max_length=config.max_length,
            max_views=config.max_views, augment=augment,
        )
        for split, augment in splits
    )  # fmt: skip
    size = config.batch_size * config.accumulate * world_size()
    steps = config.steps or max(1, round(config.epochs * (len(dataset) // size)))
    frozen = config.frozen_steps(steps) if config.log_gradients else []

    run = TrainingRun(config, corpus, dataset, build_model(config, tokenizer, dataset.studies).to(device), steps)
    first = run.restore() if config.resume else 0
    run.begin(first)
    barrier()
    if rank() == 0:
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(config.out / "config.json", as_json(config))
        tokenizer.save(config.out / "tokenizer.json")
    try:
        return run, tokenizer, _loop(run, unseen, first, frozen, console)
    except NonFiniteError as error:
        raise TrainingError(f"{error} ({_last_checkpoint(config)})") from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise TrainingError(
            f"cannot write to {config.out}: {error.strerror} ({_last_checkpoint(config)}); free some space, then go on "
            "with --resume"
        ) from error


def _loop(
    run: TrainingRun, unseen: ReportDataset, first: int, frozen: list[int], console: Console | None
) -> dict[str, Any]:
    config = run.config
    seconds: list[float] = []
    folder = config.out if rank() == 0 else None
    with (
        Journal(folder, first, tensorboard=config.tensorboard) as journal,
        CoefficientLog(folder, config.tasks, first) as coefficients,
        open_log(run, first) as log,
        _progress(console) as progress,
    ):
        bar = progress.add_task(config.optimizer, total=run.steps, completed=first, losses="")
        for step in range(first, run.steps):
            if log is not None and step in frozen:
                log_frozen(log, run, step)
            begun = time.perf_counter()
            try:
                losses = run.step(step)
            except NonFiniteError as error:
                raise NonFiniteError(f"step {step}: {error}") from error
            seconds.append(time.perf_counter() - begun)
            if log is not None:
                log.end_step(step, losses)
            coefficients.add(step, run.decided())
            text = "  ".join(f"{task} {loss:.3f}" for task, loss in zip(config.tasks, losses, strict=True))
            progress.update(bar, advance=1, losses=text)
            last = step + 1 == run.steps
            validated = rank() == 0 and (last or (config.validate_every and (step + 1) % config.validate_every == 0))
            if step % config.log_every == 0 or last or validated:
                known = record(run, step, losses)
                if validated:
                    known |= named(validation_losses(run.model, unseen, config.tasks, device=run.device))
                journal.add(known)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == run.steps:
                if log is not None:
                    log.flush()
                coefficients.flush()
                run.save(step + 1)
    conflicts = [known["pair_conflict_share"] for known in journal.records if "pair_conflict_share" in known]
    numbers: dict[str, Any] = {"training_losses": journal.mean_of_last_tenth(config.tasks) if journal.records else {}}
    found = lowest(journal.records, config.tasks)
    if found:
        numbers["validation_losses"] = {task: journal.records[-1][f"validation_{task}"] for task in config.tasks}
        numbers["lowest_validation_losses"] = found
    if folder is not None and (mean := mean_coefficients(folder)) is not None:
        numbers["mean_coefficients"] = mean
    if conflicts:
        numbers["pair_conflict_share"] = statistics.mean(conflicts)
    if seconds:
        middle = statistics.median(seconds)
        numbers["step_seconds"] = middle
        numbers["studies_per_second"] = config.batch_size * config.accumulate * world_size() / middle
    return numbers


def _last_checkpoint(config: TrainConfig) -> str:
    """What an interrupted run left, in words."""
    written = checkpoint.steps(config.out / "checkpoints")
    return f"the last checkpoint is {written[-1]}" if written else "no checkpoint was written yet"


def _check_folder(config: TrainConfig) -> None:
    written = config.out / "config.json"
    if not config.resume:
        if written.exists():
            raise FileExistsError(
                f"{config.out} already holds a run; continue it with --resume or choose another --out"
            )
        return
    if not written.exists():
        raise ValueError(f"{config.out} holds no run to resume; train without --resume first")
    old, new = as_json(from_json(json.loads(written.read_text()))), as_json(config)
    changed = [name for name in new if name not in FREE_ON_RESUME and old[name] != new[name]]
    if changed:
        differences = ", ".join(f"{name}: {old[name]} → {new[name]}" for name in changed)
        raise ValueError(f"a resumed run must keep its options, but {differences}")


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description:10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
        console=console,
        disable=console is None,
    )


def cli(config: TrainConfig, console: Console) -> None:
    """Train and say where the results are."""
    done = train(config, console=console)
    if "seconds" not in done.result:  # another process than the first
        return
    console.print(f"{done.result['optimizer']['name']}: {done.seconds:.0f} s, results in {done.out}/result.json")
    provenance = done.result.get("evaluation", {}).get("provenance", {})
    if "attribution" in provenance:
        console.print(provenance["attribution"], style="dim")


def main() -> None:
    """Command line: ``python -m rrg.train``."""
    command_line(TrainConfig, cli, __doc__, "interrupted; continue with --resume from the last checkpoint")


if __name__ == "__main__":
    main()
