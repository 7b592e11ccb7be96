"""How a command begins and ends: options from the command line, and a message with an exit status for errors."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tyro
from rich.console import Console

from rrg.errors import ReportsUnavailable, TrainingError


@contextmanager
def shown(console: Console, interrupted: str = "interrupted") -> Iterator[None]:
    """End the process with status 2 for errors of the user's making, 130 for Ctrl-C; others keep their traceback.

    Args:
        console: on which the message appears.
        interrupted: what to say after Ctrl-C.
    """
    try:
        yield
    except (OSError, ValueError, ImportError, TrainingError, ReportsUnavailable) as error:
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print(interrupted, style="red")
        sys.exit(130)


def command_line(
    options: Any,
    command: Callable[[Any, Console], object],
    description: str | None,
    interrupted: str = "interrupted",
    *,
    prog: str | None = None,
    width: int | None = None,
) -> None:
    """Read the options, run the command, and end the process as :func:`shown` says.

    Args:
        options: a dataclass of options, or a union of them, as tyro reads it.
        command: is given the options and the console.
        description: the text above the options in ``--help``.
        interrupted: what to say after Ctrl-C.
        prog: name of the program in ``--help``.
        width: columns of what is printed where that is not a terminal.
    """
    console = Console(width=None if sys.stdout.isatty() else width)
    with shown(console, interrupted):
        command(tyro.cli(options, prog=prog, description=description), console)
