"""Multi-task optimizers by name, as the command line gives them."""

from typing import Any

from optimizers.aggregators.by_name import AGGREGATORS, parse_options

OPTIONS = {"cagrad": ("rho",), "came-grad": ("rho", "kappa", "nu", "center", "fusion")}
"""Options of a run that its optimizer reads; the others read none."""
NAMES = (*(name for name in AGGREGATORS if name not in (*OPTIONS, "equal")), *OPTIONS)
"""All of the registry's but "equal", which a run writes as ``--task-weights equal``."""
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

    method, options = parse_options(name.removeprefix(TORCHJD))
    for option, value in options.items():
        word = f"{option}={value}"
        if isinstance(value, str) and word in name.split(":"):  # not quoted, so a number was meant
            raise ValueError(f"optimizer {name!r}: {word!r} must be option=number, or a list of numbers")
    if method == "NashMTL":
        options = {"n_tasks": tasks, **options}
    try:
        return torchjd_aggregator(method, **options)
    except TypeError as error:
        raise ValueError(f"optimizer {name!r}: {error}; write {TORCHJD}{method}:option=value") from error
