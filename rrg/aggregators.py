"""Multi-task optimizers by name, as the command line gives them."""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from optimizers import CAMEGrad, MultiTaskOptimizer, cagrad, linear, mgda, pcgrad

if TYPE_CHECKING:
    from rrg.config import TrainConfig

NAMES = ("linear", "came-grad", "cagrad", "mgda", "pcgrad")
TORCHJD = "torchjd:"


def check_optimizer(name: str) -> None:
    """Refuse unknown names.

    Raises:
        ValueError: naming the known ones, or what TorchJD has.
        ImportError: for ``torchjd:NAME`` where TorchJD is not installed.

    Example:
        >>> check_optimizer("sgd")
        Traceback (most recent call last):
        ...
        ValueError: optimizer 'sgd' must be one of linear, came-grad, cagrad, mgda, pcgrad, or torchjd:NAME
    """
    if name.startswith(TORCHJD):
        _torchjd(name)
    elif name not in NAMES:
        raise ValueError(f"optimizer {name!r} must be one of {', '.join(NAMES)}, or {TORCHJD}NAME")


def build_optimizer(config: "TrainConfig", inner: torch.optim.Optimizer, **options: Any) -> MultiTaskOptimizer:
    """The run's optimizer around a torch optimizer; ``options`` as for :class:`optimizers.MultiTaskOptimizer`."""
    if config.optimizer == "came-grad":
        return CAMEGrad(inner, **optimizer_options(config), **options)
    if config.optimizer.startswith(TORCHJD):
        return MultiTaskOptimizer(inner, _torchjd(config.optimizer), **options)
    if config.optimizer == "cagrad":
        return MultiTaskOptimizer(inner, partial(cagrad, c=config.rho), **options)
    aggregator = {"linear": linear, "mgda": mgda, "pcgrad": pcgrad}[config.optimizer]
    return MultiTaskOptimizer(inner, aggregator, **options)


def optimizer_options(config: "TrainConfig") -> dict[str, Any]:
    """Those options of the run that its optimizer reads.

    Example:
        >>> from rrg.config import TrainConfig
        >>> optimizer_options(TrainConfig(optimizer="cagrad"))
        {'rho': 0.5}
    """
    names = {"came-grad": ("rho", "kappa", "nu", "center", "fusion"), "cagrad": ("rho",)}
    return {name: getattr(config, name) for name in names.get(config.optimizer, ())}


def _torchjd(name: str) -> Any:
    from optimizers.torchjd import torchjd_aggregator

    return torchjd_aggregator(name.removeprefix(TORCHJD))
