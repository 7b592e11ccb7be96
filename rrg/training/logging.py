"""What a run tells of its steps: the gradient log, gradients at frozen parameters, and the records of the journal."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import combinations
from typing import Any

import torch

from rrg.distributed import rank, world_size
from rrg.gradient_log import GradientLogWriter
from rrg.gradient_log.groups import positions_of
from rrg.training.run import Batch, TrainingRun
from rrg.training.setup import optimizer_meta


def open_log(run: TrainingRun, first: int) -> AbstractContextManager[GradientLogWriter | None]:
    """The gradient log of a run that begins or goes on with step ``first``, which from then on sees its gradients.

    Returns:
        a context that yields the log, or None where gradients are not logged; one process writes it.
    """
    config = run.config
    if not config.log_gradients or rank() != 0:
        return nullcontext(None)
    meta = {
        "tasks": list(config.tasks),
        "task_weights": list(config.weights),
        "optimizer": optimizer_meta(config),
        "dataset": {"name": run.corpus.name, "images": run.corpus.images, "training": len(run.dataset)},
        "seed": config.seed,
        "batch_size": config.batch_size * config.accumulate * world_size(),
        "learning_rate": config.lr,
    }
    log = GradientLogWriter(
        config.out / "gradients",
        meta,
        sum(p.numel() for p in run.shared),
        dim=config.projection_dim,
        seed=config.seed,
        groups=positions_of(run.model.parameter_groups(), run.shared),
        resume_step=first if config.resume else None,
    )
    run.optimizer.observer = log.observe
    return log


def log_frozen(log: GradientLogWriter, run: TrainingRun, step: int) -> None:
    """Log the gradients of independently drawn micro-batches at the parameters that the step starts from.

    The draw depends on seed and step alone and leaves torch's random state as it was.
    """
    config, dataset = run.config, run.dataset
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)

    def batches() -> Iterator[Batch]:
        for _ in range(config.frozen_batches):
            indices = torch.randint(len(dataset), (config.batch_size,), generator=generator).tolist()
            items = [dataset[i] for i in indices]
            yield run.to_device({name: torch.stack([item[name] for item in items]) for name in items[0]})

    with torch.random.fork_rng(devices=[]):
        log.log_frozen(step, batches(), run.losses, run.shared, directions=config.curvature_directions)


def record(run: TrainingRun, step: int, losses: list[float]) -> dict[str, float]:
    """What the journal says of a step: losses, learning rate, cosines between tasks, share of pairs in conflict."""
    tasks = run.config.tasks
    values: dict[str, Any] = {"step": step, **dict(zip(tasks, losses, strict=True))}
    values["lr"] = run.optimizer.param_groups[-1]["lr"]
    last = run.optimizer.last
    pairs = list(combinations(range(len(tasks)), 2))
    if last is not None and last.fresh and pairs:
        cosines = [last.cosines[i, j].item() for i, j in pairs]
        for (i, j), cosine in zip(pairs, cosines, strict=True):
            values[f"cosine_{tasks[i]}_{tasks[j]}"] = cosine
        values["pair_conflict_share"] = sum(cosine < 0 for cosine in cosines) / len(pairs)
        if last.valid is not None:
            values["valid"] = last.valid
    if run.scaler.is_enabled():
        values["scale"] = run.scaler.get_scale()
    return values
