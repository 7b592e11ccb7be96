"""Multi-task optimizers by name, as the command line gives them."""

from optimizers.aggregators import AGGREGATORS, TORCHJD

OPTIONS = {"cagrad": ("rho",), "came-grad": ("rho", "kappa", "nu", "center", "fusion")}
"""Options of a run that its optimizer reads; the others read none."""
NAMES = (*(name for name in AGGREGATORS if name not in (*OPTIONS, "equal")), *OPTIONS)
"""All of the registry's but "equal", which a run writes as ``--task-weights equal``."""


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
        from optimizers.torchjd import torchjd_by_name

        torchjd_by_name(name, tasks)
    elif name not in NAMES:
        raise ValueError(f"optimizer {name!r} must be one of {', '.join(NAMES)}, or {TORCHJD}NAME")
