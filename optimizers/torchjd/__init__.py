"""TorchJD (https://torchjd.org) both ways: its aggregators in our training step, ours in its functions.

    torchjd_aggregator            any of TorchJD's aggregators by name, for :class:`optimizers.MultiTaskOptimizer`
    torchjd_by_name               the same with options written as in ``torchjd:CAGrad:c=0.5``
    CAMEGrad, CAMEGradWeighting   CAME-Grad for ``torchjd.autojac`` and for the engine of ``torchjd.autogram``
    as_aggregator, as_weighting   any aggregator of ours for the same

TorchJD is optional, ``pip install 'sde-mtl[peers]'``; without it the first use of one of these names says so.
"""

import importlib
from typing import TYPE_CHECKING, Any

from optimizers.torchjd._installed import installed
from optimizers.torchjd.by_name import (
    TorchJDGramianAggregator,
    TorchJDMatrixAggregator,
    torchjd_aggregator,
    torchjd_by_name,
)

if TYPE_CHECKING:
    from optimizers.torchjd.came_grad import CAMEGrad, CAMEGradWeighting
    from optimizers.torchjd.weighting import as_aggregator, as_weighting

__all__ = [
    "CAMEGrad",
    "CAMEGradWeighting",
    "TorchJDGramianAggregator",
    "TorchJDMatrixAggregator",
    "as_aggregator",
    "as_weighting",
    "torchjd_aggregator",
    "torchjd_by_name",
]

SUBCLASSES = {
    "CAMEGrad": "came_grad",
    "CAMEGradWeighting": "came_grad",
    "as_aggregator": "weighting",
    "as_weighting": "weighting",
}


def __getattr__(name: str) -> Any:
    """Import what subclasses TorchJD's classes, and TorchJD with it, when it is first used."""
    if name not in SUBCLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    installed()
    return getattr(importlib.import_module(f"{__name__}.{SUBCLASSES[name]}"), name)
