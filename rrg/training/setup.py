"""What training and evaluation both begin with: device, corpus, model."""

from collections.abc import Sequence

import torch
from rich.console import Console
from torch import Tensor

from rrg.config import TrainConfig
from rrg.data.corpus import Corpus, load
from rrg.data.study import LabelState, Study
from rrg.data.tokenizer import Tokenizer
from rrg.model.generator import ReportGenerator


def select_device(name: str) -> torch.device:
    """ "auto" takes a GPU if there is one.

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
