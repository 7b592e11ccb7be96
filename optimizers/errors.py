"""What goes wrong with numbers, and how aggregators say that their solver did not reach its tolerance."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

OnSolverFailure = Literal["warn", "raise", "linear"]

_collecting: ContextVar[list[str] | None] = ContextVar("collecting", default=None)


class NonFiniteError(ValueError):
    """A loss or a gradient is NaN or infinite. Parameters, gradients and optimizer state are untouched."""


class SolverWarning(UserWarning):
    """A solver did not reach its tolerance; its best answer was used."""


class SolverError(RuntimeError):
    """A solver did not reach its tolerance. Parameters, gradients and optimizer state are untouched."""


def report_unsolved(message: str, *, stacklevel: int = 2) -> None:
    """For aggregators to say that their coefficients are not the solution.

    Args:
        message: what was not solved, and how far it is from it.
        stacklevel: of the warning, from the caller.

    A :class:`SolverWarning`, or inside :func:`collect_unsolved` an entry of its list.

    Example:
        >>> with collect_unsolved() as messages:
        ...     report_unsolved("duality gap 1e-3")
        >>> messages
        ['duality gap 1e-3']
    """
    messages = _collecting.get()
    if messages is None:
        warnings.warn(message, SolverWarning, stacklevel=stacklevel + 1)
    else:
        messages.append(message)


@contextmanager
def collect_unsolved() -> Iterator[list[str]]:
    """Collects what is reported within the block, in this thread only, instead of warning of it.

    Filters of the warnings module would be shared by all threads.
    """
    messages: list[str] = []
    token = _collecting.set(messages)
    try:
        yield messages
    finally:
        _collecting.reset(token)
