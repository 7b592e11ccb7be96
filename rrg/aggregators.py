"""Multi-task optimizers by name, as the command line gives them."""

from dataclasses import dataclass
from pathlib import Path

from optimizers.aggregators import AGGREGATORS, TORCHJD, ScheduledScalarization, WeightSchedule, parse_options

OPTIONS = {"cagrad": ("rho",), "came-grad": ("rho", "kappa", "nu", "center", "fusion")}
"""Options of a run that its optimizer reads; the others read none."""
NAMES = (*(name for name in AGGREGATORS if name not in (*OPTIONS, "equal")), *OPTIONS)
"""All of the registry's but "equal", which a run writes as ``--task-weights equal``."""

REPLAY = "replay:"
"""What the names of replayed runs begin with."""
COEFFICIENTS = "coefficients.csv"
"""In a run's folder, what its aggregator decided; :class:`optimizers.WeightSchedule` reads it."""


@dataclass(frozen=True)
class Replay:
    """Linear scalarization at the weights that other runs' aggregators decided on, step by step (theory T18).

    Attributes:
        sources: folders of runs with a ``coefficients.csv``, or such files; several are averaged step by step.
        smooth: steps of the moving average over them; None takes a twentieth of the run.
        mean: whether to take one weight a task, the mean over the steps.
    """

    sources: tuple[Path, ...]
    smooth: int | None = None
    mean: bool = False

    @classmethod
    def parse(cls, text: str) -> "Replay":
        """Read ``replay:RUN[,RUN…][:smooth=N][:mean=True]``.

        Raises:
            ValueError: for no run, an unknown option, or one out of its range.

        Example:
            >>> Replay.parse("replay:out/a,out/b:mean=True")
            Replay(sources=(PosixPath('out/a'), PosixPath('out/b')), smooth=None, mean=True)
        """
        name, options = parse_options(text, prefix=REPLAY)
        smooth, mean = options.pop("smooth", None), options.pop("mean", False)
        if not name or options:
            raise ValueError(f"{text!r} must be {REPLAY}RUN[,RUN…] with no options but smooth=STEPS and mean=True")
        if not (smooth is None or (type(smooth) is int and smooth >= 1)) or not isinstance(mean, bool):
            raise ValueError(f"{text!r}: smooth must be a number of steps >= 1, and mean True or False")
        return cls(tuple(map(Path, name.split(","))), smooth, mean)

    def schedule(self, steps: int, tasks: tuple[str, ...]) -> WeightSchedule:
        """The weights of a run of so many steps.

        Raises:
            OSError, ValueError: if a source cannot be read, or is of other tasks.
        """
        files = [source / COEFFICIENTS if source.is_dir() else source for source in self.sources]
        for file in files:
            if not file.exists():
                raise ValueError(f"{file} is missing: replay takes runs whose aggregator gives coefficients")
        schedule = WeightSchedule.average(map(WeightSchedule.read, files))
        if schedule.tasks != tasks:
            raise ValueError(f"{files[0]} holds the weights of {', '.join(schedule.tasks)}, not of {', '.join(tasks)}")
        if self.mean:
            return schedule.mean()
        return schedule.stretched(steps).smoothed(max(1, steps // 20) if self.smooth is None else self.smooth)

    def scalarization(self, steps: int, tasks: tuple[str, ...], kept: Path) -> ScheduledScalarization:
        """The aggregator of a run; its weights are written to ``kept``, or read from there when it is resumed."""
        if not kept.exists():
            schedule = self.schedule(steps, tasks)
            kept.parent.mkdir(parents=True, exist_ok=True)
            schedule.write(kept)
        return ScheduledScalarization(WeightSchedule.read(kept))


def check_optimizer(name: str, tasks: int) -> None:
    """Refuse unknown names, and options that TorchJD's method does not take.

    Args:
        name: one of :data:`NAMES`, ``torchjd:NAME[:option=value…]``, or as :meth:`Replay.parse` reads it.
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
        came-grad, torchjd:NAME, or replay:RUN
    """
    if name.startswith(TORCHJD):
        from optimizers.torchjd import torchjd_by_name

        torchjd_by_name(name, tasks)
    elif name.startswith(REPLAY):
        Replay.parse(name)
    elif name not in NAMES:
        raise ValueError(f"optimizer {name!r} must be one of {', '.join(NAMES)}, {TORCHJD}NAME, or {REPLAY}RUN")
