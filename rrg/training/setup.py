"""What training and evaluation begin with: device, corpus, model, and the optimizer of a run."""

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from optimizers import CAMEGrad, MultiTaskOptimizer
from optimizers.aggregators import AGGREGATORS, TORCHJD, aggregator
from rrg.aggregators import OPTIONS, REPLAY, Replay
from rrg.config import TrainConfig
from rrg.data import Corpus, LabelState, Study, Tokenizer, load
from rrg.model import ReportGenerator


def select_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one, and otherwise the CPU.

    Raises:
        ValueError: if "cuda" is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no GPU; use --device auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def load_corpus(config: TrainConfig, console: Console | None = None) -> Corpus:
    """The corpus of a run.

    Raises:
        ReportsUnavailable: if the reports cannot be had.
        ValueError: for a damaged data set, with a list of what is wrong.
    """
    return load(
        config.dataset,
        reports=config.reports,
        limit=config.limit,
        n_phantom=config.phantom_studies,
        annotation=config.annotation,
        images=config.images,
        verify=config.verify,
        skip_bad=config.skip_bad,
        console=console,
    )


def build_model(config: TrainConfig, tokenizer: Tokenizer, training: Sequence[Study]) -> ReportGenerator:
    """The untrained model of a run; of the training studies only their number and class frequencies matter."""
    model = ReportGenerator(
        config.model,
        len(tokenizer),
        config.max_length,
        tasks=config.tasks,
        image_size=config.image_size,
        memory_size=len(training),
    )
    model.log_prior.copy_(config.logit_adjustment * log_frequencies(training))
    return model


def log_frequencies(studies: Sequence[Study]) -> Tensor:
    """Logarithms of the states' frequencies, (14, 4), each count increased by one.

    Example:
        >>> from rrg.data.grammar import phantom_studies
        >>> log_frequencies(phantom_studies(20)).exp().sum(1).round(decimals=4).unique()
        tensor([1.])
    """
    labels = torch.tensor([study.labels for study in studies])
    counts = torch.stack([(labels == state).sum(0) for state in LabelState], 1) + 1.0
    return (counts / counts.sum(1, keepdim=True)).log()


def build_optimizer(
    config: TrainConfig, inner: torch.optim.Optimizer, steps: int, **options: Any
) -> MultiTaskOptimizer:
    """The optimizer of a run of so many steps around a torch optimizer.

    Args:
        config: of the run.
        inner: a torch optimizer.
        steps: of the run, over which a replayed schedule is stretched.
        options: as for :class:`optimizers.MultiTaskOptimizer`.

    Raises:
        OSError, ValueError: if the run to replay cannot be read.
    """
    name = config.optimizer
    if name.startswith(REPLAY):
        kept = config.out / "schedule.csv"
        return MultiTaskOptimizer(inner, Replay.parse(name).scalarization(steps, config.tasks, kept), **options)
    if name == "came-grad":
        return CAMEGrad(inner, **optimizer_options(config), **options)
    if name.startswith(TORCHJD):
        from optimizers.torchjd import torchjd_by_name

        return MultiTaskOptimizer(inner, torchjd_by_name(name, len(config.tasks)), **options)
    method = aggregator(name, c=config.rho) if name == "cagrad" else AGGREGATORS[name]
    return MultiTaskOptimizer(inner, method, **options)


def optimizer_options(config: TrainConfig) -> dict[str, Any]:
    """Those options of the run that its optimizer reads.

    Example:
        >>> optimizer_options(TrainConfig(optimizer="cagrad"))
        {'rho': 0.5}
    """
    return {name: getattr(config, name) for name in OPTIONS.get(config.optimizer, ())}


def optimizer_meta(config: TrainConfig) -> dict[str, Any]:
    """Name and options of the run's optimizer, as logs and results say it."""
    return {"name": config.optimizer, **optimizer_options(config)}
