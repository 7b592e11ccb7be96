"""Losses on studies that were not trained on."""

from collections.abc import Sequence
from typing import Any

import torch

from rrg.data import PAD, ReportDataset
from rrg.distributed import alone
from rrg.model import ReportGenerator, task_losses

BATCH = 64
"""Studies that ita contrasts with each other; the other losses do not depend on it."""


@torch.no_grad()
def validation_losses(
    model: ReportGenerator, dataset: ReportDataset, tasks: Sequence[str], *, device: torch.device
) -> dict[str, float]:
    """Mean losses of the model, in evaluation mode, over all studies of a dataset, in nats.

    Those of rg are per token over all reports; re ranks the reports of the batch and of the training memory; a last
    batch of one study, which ita could not contrast, joins the one before. Draws no random numbers. One of several
    processes may call it.

    Args:
        model: left in the mode that it had.
        dataset: of the validation split.
        tasks: of the model.
        device: of the model.

    Returns:
        one number a task.
    """
    was_training = model.training
    model.eval()
    totals = {task: 0.0 for task in tasks}
    weights = {task: 0.0 for task in tasks}
    try:
        for start, end in _bounds(len(dataset)):
            items = [dataset[i] for i in range(start, end)]
            batch = {name: torch.stack([item[name] for item in items]).to(device) for name in items[0]}
            view_mask = batch["view_mask"] if dataset.max_views > 1 else None
            with alone():
                output = model(batch["pixel_values"], batch["input_ids"], batch["labels"], view_mask)
                losses = task_losses(model, output, batch)
            tokens = float((batch["input_ids"][:, 1:] != PAD).sum())
            for task, loss in zip(tasks, losses, strict=True):
                weight = tokens if task == "rg" else float(end - start)
                totals[task] += weight * float(loss)
                weights[task] += weight
    finally:
        model.train(was_training)
    return {task: totals[task] / weights[task] for task in tasks}


def named(losses: dict[str, float]) -> dict[str, Any]:
    """The losses as the journal names them.

    Example:
        >>> named({"rg": 1.5})
        {'validation_rg': 1.5}
    """
    return {f"validation_{task}": loss for task, loss in losses.items()}


def lowest(records: Sequence[dict[str, Any]], tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each task the lowest validation loss among the journal's records, and the step after which it was found.

    Example:
        >>> lowest([{"step": 0, "validation_rg": 2.0}, {"step": 10, "validation_rg": 1.0}, {"step": 20}], ["rg"])
        {'rg': {'loss': 1.0, 'step': 10}}
    """
    found = {}
    for task in tasks:
        known = [(r[f"validation_{task}"], r["step"]) for r in records if f"validation_{task}" in r]
        if known:
            loss, step = min(known)
            found[task] = {"loss": loss, "step": step}
    return found


def _bounds(studies: int) -> list[tuple[int, int]]:
    starts = list(range(0, studies, BATCH))
    if len(starts) > 1 and studies - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], studies], strict=True))
