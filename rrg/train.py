"""Train a report generator on report generation and disease classification.

    python -m rrg.train --dataset phantom --optimizer came-grad --log-gradients --out out/train

The run's folder: ``config.json``, ``tokenizer.json``, ``metrics.jsonl``, ``checkpoints/``, ``gradients/`` (with
--log-gradients), ``result.json`` and ``samples.jsonl``. A killed run continues with --resume, bit for bit on a CPU.
"""

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as rrg/train.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from optimizers import CAMEGrad, MultiTaskOptimizer, NonFiniteError, linear
from rrg import checkpoint
from rrg.atomic import write_bytes, write_json
from rrg.config import TrainConfig, as_json, from_json
from rrg.data.corpus import Corpus, ReportDataset
from rrg.data.openi import ReportsUnavailable
from rrg.data.tokenizer import Tokenizer
from rrg.evaluate import build_model, evaluate, load_corpus, select_device, write_samples
from rrg.gradient_log import GradientLogWriter
from rrg.model import ReportGenerator
from rrg.tasks import TASKS, task_losses

FREE_ON_RESUME = ("resume", "out", "device", "evaluate", "num_beams", "tensorboard", "reports")


class TrainingError(RuntimeError):
    """The run cannot go on; the message says what is left and what to do."""


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
    """Train, checkpoint, log and evaluate as configured.

    Sets torch's global random state from ``config.seed``.

    Args:
        config: options of the run.
        console: shows progress if given.

    Raises:
        FileExistsError: if ``out`` holds a run and ``resume`` is not set; nothing is changed.
        ValueError: for options that contradict each other or the run to be resumed.
        ReportsUnavailable: if the reports cannot be had.
        TrainingError: if a loss or gradient becomes NaN or infinite; checkpoints and log stay readable.
    """
    begun = time.perf_counter()
    device = select_device(config.device)
    _check_folder(config)
    corpus = load_corpus(config)
    torch.manual_seed(config.seed)
    tokenizer = Tokenizer.learn([s.report for s in corpus.split("train")], config.vocabulary_size)
    dataset = ReportDataset(
        corpus.split("train"), tokenizer, image_size=config.image_size, max_length=config.max_length
    )
    if len(dataset) < config.batch_size:
        raise ValueError(f"batch_size {config.batch_size} exceeds the {len(dataset)} training studies")
    steps = config.steps or max(1, round(config.epochs * (len(dataset) // config.batch_size)))
    frozen = config.frozen_steps(steps) if config.log_gradients else []

    run = _Run(config, corpus, dataset, build_model(config, tokenizer).to(device), steps)
    first = run.restore() if config.resume else 0
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / "config.json", as_json(config))
    tokenizer.save(config.out / "tokenizer.json")
    with run.open_log(first) as log, _progress(console) as progress:
        bar = progress.add_task(config.optimizer, total=steps, completed=first, losses="")
        try:
            for step in range(first, steps):
                if log is not None and step in frozen:
                    run.log_frozen(log, step)
                losses = run.step(step)
                if log is not None:
                    log.end_step(step, losses)
                shown = "  ".join(f"{task} {loss:.3f}" for task, loss in zip(TASKS, losses, strict=True))
                progress.update(bar, advance=1, losses=shown)
                if (step + 1) % config.checkpoint_every == 0 or step + 1 == steps:
                    if log is not None:
                        log.flush()
                    run.save(step + 1)
        except NonFiniteError as error:
            left = checkpoint.steps(config.out / "checkpoints")
            last = f"the last checkpoint is {left[-1]}" if left else "no checkpoint was written yet"
            raise TrainingError(f"step {step}: {error} ({last})") from error
    run.close()
    trained = time.perf_counter() - begun

    result: dict[str, Any] = {
        "optimizer": run.optimizer_meta(),
        "steps": steps,
        "parameters": sum(p.numel() for p in run.parameters),
        "training_losses": run.recent_losses(),
        "config": as_json(config),
        "torch": torch.__version__,
        "device": str(device),
        "training_seconds": trained,
    }
    if config.evaluate != "none":
        scores, samples = evaluate(
            run.model, tokenizer, corpus, config.evaluate, image_size=config.image_size,
            num_beams=config.num_beams, console=console,
        )  # fmt: skip
        result["evaluation"] = scores
        write_samples(config.out / "samples.jsonl", samples)
    seconds = time.perf_counter() - begun
    result["seconds"] = seconds
    write_json(config.out / "result.json", result)
    return TrainResult(config.out, config.out / "gradients" if config.log_gradients else None, result, seconds)


class _Run:
    """Model, optimizer and records of a run in progress."""

    def __init__(
        self, config: TrainConfig, corpus: Corpus, dataset: ReportDataset, model: ReportGenerator, steps: int
    ) -> None:
        self.config, self.corpus, self.dataset, self.model, self.steps = config, corpus, dataset, model, steps
        self.model.train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        inner = torch.optim.AdamW(self.parameters, lr=config.lr, weight_decay=config.weight_decay)
        if config.optimizer == "came-grad":
            self.optimizer: MultiTaskOptimizer = CAMEGrad(inner, **self._came_grad_options())
        else:
            self.optimizer = MultiTaskOptimizer(inner, linear)
        self.records: list[dict[str, Any]] = []
        self.writer = _tensorboard(config) if config.tensorboard else None

    def step(self, step: int) -> list[float]:
        """One training step; the losses before it, in the order of ``TASKS``."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step, self.steps)
        batch = self._batch(self._indices(step))
        losses = self._losses(batch)
        self.optimizer.zero_grad()
        self.optimizer.backward(losses, self.config.task_weights)
        if self.config.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        values = [loss.item() for loss in losses]
        self._record(step, values)
        return values

    def log_frozen(self, log: GradientLogWriter, step: int) -> None:
        """Gradients of independently drawn micro-batches at the present parameters."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        size = self.config.batch_size

        def batches() -> Iterator[dict[str, Tensor]]:
            for _ in range(self.config.frozen_batches):
                yield self._batch(torch.randint(len(self.dataset), (size,), generator=generator).tolist())

        with torch.random.fork_rng(devices=[]):
            log.log_frozen(step, batches(), self._losses, self.parameters, directions=self.config.curvature_directions)

    def open_log(self, first: int) -> Any:
        """The gradient log, or a context that yields None."""
        if not self.config.log_gradients:
            return nullcontext(None)
        config = self.config
        meta = {
            "tasks": list(TASKS),
            "task_weights": list(config.task_weights),
            "optimizer": self.optimizer_meta(),
            "dataset": {
                "name": self.corpus.name,
                "images": self.corpus.images,
                "training": len(self.dataset),
            },
            "seed": config.seed,
            "batch_size": config.batch_size,
            "learning_rate": config.lr,
        }
        log = GradientLogWriter(
            config.out / "gradients",
            meta,
            sum(p.numel() for p in self.parameters),
            dim=config.projection_dim,
            seed=config.seed,
            resume_step=first if config.resume else None,
        )
        self.optimizer.observer = log.observe
        return log

    def save(self, step: int) -> None:
        """Write a checkpoint and the metrics so far."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "steps": self.steps,
            "records": self.records,
        }
        checkpoint.save(self.config.out / "checkpoints", step, self.model, state)
        lines = "".join(json.dumps(record) + "\n" for record in self.records)
        write_bytes(self.config.out / "metrics.jsonl", lines.encode())

    def restore(self) -> int:
        """Load the last checkpoint; the number of steps it has made, 0 if the run was stopped before its first."""
        made = checkpoint.steps(self.config.out / "checkpoints")
        if not made:
            return 0
        newest = made[-1]
        checkpoint.load_model(newest, self.model)
        state = checkpoint.load_state(newest)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self.records = state["records"]
        return int(newest.name.split("-")[1])

    def close(self) -> None:
        """Close the TensorBoard file, if there is one."""
        if self.writer is not None:
            self.writer.close()

    def optimizer_meta(self) -> dict[str, Any]:
        """Name and options of the aggregator."""
        options = self._came_grad_options() if self.config.optimizer == "came-grad" else {}
        return {"name": self.config.optimizer, **options}

    def recent_losses(self) -> dict[str, float]:
        """Mean losses of the last tenth of the recorded steps."""
        last = self.records[-max(1, len(self.records) // 10) :]
        return {task: math.fsum(r[task] for r in last) / len(last) for task in TASKS}

    def _came_grad_options(self) -> dict[str, Any]:
        c = self.config
        return {"rho": c.rho, "kappa": c.kappa, "nu": c.nu, "center": c.center, "fusion": c.fusion}

    def _losses(self, batch: dict[str, Tensor]) -> list[Tensor]:
        return task_losses(self.model(batch["pixel_values"], batch["input_ids"]), batch)

    def _indices(self, step: int) -> list[int]:
        """Studies of a step: a fresh permutation each epoch, decided by seed and step alone."""
        size = self.config.batch_size
        epoch, position = divmod(step, len(self.dataset) // size)
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + 500_000 + epoch)
        order = torch.randperm(len(self.dataset), generator=generator)
        return order[position * size : (position + 1) * size].tolist()

    def _batch(self, indices: list[int]) -> dict[str, Tensor]:
        items = [self.dataset[i] for i in indices]
        return {name: torch.stack([item[name] for item in items]).to(self.device) for name in items[0]}

    def _record(self, step: int, losses: list[float]) -> None:
        last = self.optimizer.last
        assert last is not None
        record: dict[str, Any] = {"step": step, **dict(zip(TASKS, losses, strict=True))}
        record["lr"] = self.optimizer.param_groups[0]["lr"]
        record["cosine"] = last.cosines[0, 1].item()
        if last.valid is not None:
            record["valid"] = last.valid
        if step % self.config.log_every == 0 or step + 1 == self.steps:
            self.records.append(record)
            if self.writer is not None:
                for name, value in record.items():
                    self.writer.add_scalar(name, float(value), step)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine from ``lr`` to a tenth of it.

    Example:
        >>> config = TrainConfig(lr=1.0, warmup=0.1)
        >>> [round(learning_rate(config, step, 100), 3) for step in (0, 9, 10, 99)]
        [0.1, 1.0, 1.0, 0.1]
    """
    warm = round(config.warmup * steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return config.lr * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)


def _check_folder(config: TrainConfig) -> None:
    saved = config.out / "config.json"
    if not config.resume:
        if saved.exists():
            raise FileExistsError(
                f"{config.out} already holds a run; continue it with --resume or choose another --out"
            )
        return
    if not saved.exists():
        raise ValueError(f"{config.out} holds no run to resume; train without --resume first")
    old, new = as_json(from_json(json.loads(saved.read_text()))), as_json(config)
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


def _tensorboard(config: TrainConfig) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(config.out / "tensorboard"))


def main() -> None:
    """Command line: ``python -m rrg.train``."""
    console = Console()
    show = partial(console.print, style="red", markup=False)
    try:
        config = tyro.cli(TrainConfig)
        done = train(config, console=console)
    except (OSError, ValueError, TrainingError, ReportsUnavailable) as error:
        show(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        show("interrupted; continue with --resume from the last checkpoint")
        sys.exit(130)
    console.print(f"{done.result['optimizer']['name']}: {done.seconds:.0f} s, results in {done.out}/result.json")
    provenance = done.result.get("evaluation", {}).get("provenance", {})
    if "attribution" in provenance:
        console.print(provenance["attribution"], style="dim")


if __name__ == "__main__":
    main()
