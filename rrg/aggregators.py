"""Multi-task optimizers by name, as the command line gives them."""

import ast
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from optimizers import (
    CAMEGrad,
    MultiTaskOptimizer,
    aligned_mtl,
    cagrad,
    imtl_g,
    linear,
    mgda,
    nash_mtl,
    pcgrad,
)

if TYPE_CHECKING:
    from rrg.config import TrainConfig

WITHOUT_OPTIONS = {
    "linear": linear,
    "mgda": mgda,
    "pcgrad": pcgrad,
    "imtl-g": imtl_g,
    "aligned-mtl": aligned_mtl,
    "nash-mtl": nash_mtl,
}
NAMES = (*WITHOUT_OPTIONS, "cagrad", "came-grad")
TORCHJD = "torchjd:"


def check_optimizer(name: str, tasks: int) -> None:
    """Refuse unknown names, and options that TorchJD's method does not take.

    Args:
        name: one of :data:`NAMES`, or ``torchjd:NAME[:option=value…]``.
        tasks: their number.

    Raises:
        ValueError: naming the known ones, or what TorchJD has.
        ImportError: for ``torchjd:NAME`` where TorchJD is not installed.

    Example:
        >>> check_optimizer("torchjd:TrimmedMean:trim_number=1", 3)
        >>> check_optimizer("sgd", 2)
        Traceback (most recent call last):
        ...
        ValueError: optimizer 'sgd' must be one of linear, mgda, pcgrad, imtl-g, aligned-mtl, nash-mtl, cagrad,
        came-grad, or torchjd:NAME
    """
    if name.startswith(TORCHJD):
        torchjd(name, tasks)
    elif name not in NAMES:
        raise ValueError(f"optimizer {name!r} must be one of {', '.join(NAMES)}, or {TORCHJD}NAME")


def torchjd(name: str, tasks: int) -> Any:
    """TorchJD's aggregator for ``torchjd:NAME[:option=value…]``, with values as Python writes them.

    Raises:
        ValueError, ImportError: as :func:`check_optimizer`.
    """
    from optimizers.torchjd import torchjd_aggregator

    method, *words = name.removeprefix(TORCHJD).split(":")
    options: dict[str, Any] = {"n_tasks": tasks} if method == "NashMTL" else {}
    for word in words:
        option, _, value = word.partition("=")
        try:
            options[option] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"optimizer {name!r}: {word!r} must be option=number, or a list of numbers") from error
    try:
        return torchjd_aggregator(method, **options)
    except TypeError as error:
        raise ValueError(f"optimizer {name!r}: {error}; write {TORCHJD}{method}:option=value") from error


def build_optimizer(config: "TrainConfig", inner: torch.optim.Optimizer, **options: Any) -> MultiTaskOptimizer:
    """The run's optimizer around a torch optimizer; ``options`` as for :class:`optimizers.MultiTaskOptimizer`."""
    if config.optimizer == "came-grad":
        return CAMEGrad(inner, **optimizer_options(config), **options)
    if config.optimizer.startswith(TORCHJD):
        return MultiTaskOptimizer(inner, torchjd(config.optimizer, len(config.tasks)), **options)
    if config.optimizer == "cagrad":
        return MultiTaskOptimizer(inner, partial(cagrad, c=config.rho), **options)
    return MultiTaskOptimizer(inner, WITHOUT_OPTIONS[config.optimizer], **options)


def optimizer_options(config: "TrainConfig") -> dict[str, Any]:
    """Those options of the run that its optimizer reads.

    Example:
        >>> from rrg.config import TrainConfig
        >>> optimizer_options(TrainConfig(optimizer="cagrad"))
        {'rho': 0.5}
    """
    names = {"came-grad": ("rho", "kappa", "nu", "center", "fusion"), "cagrad": ("rho",)}
    return {name: getattr(config, name) for name in names.get(config.optimizer, ())}
