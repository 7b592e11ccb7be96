"""How a command ends when something is wrong: a message instead of a traceback, and an exit status."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from rrg.data.openi import ReportsUnavailable


class TrainingError(RuntimeError):
    """The run cannot go on; the message says what is left and what to do."""


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
