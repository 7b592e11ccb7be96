"""Kernels that run without the interpreter lock, over a range cut into as many pieces as torch has threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

SHORTEST = 2048
"""Pieces are not shorter: handing one to a thread costs some 50 µs."""


def in_threads(function: Callable[..., Result], count: int, *arguments: Any, shortest: int = SHORTEST) -> list[Result]:
    """Results of ``function(*arguments, first, last)`` over pieces of 0 … ``count``.

    Args:
        function: a kernel that releases the interpreter lock and writes to its own piece only.
        count: length of the range.
        arguments: passed on.
        shortest: least length of a piece.

    Example:
        >>> in_threads(lambda first, last: last - first, 10)
        [10]
    """
    pieces = min(torch.get_num_threads(), count // shortest) if count >= 2 * shortest else 1
    if pieces <= 1:
        return [function(*arguments, 0, count)]
    ends = [count * piece // pieces for piece in range(pieces + 1)]
    running = [_pool(os.getpid()).submit(function, *arguments, first, last) for first, last in pairwise(ends[1:])]
    return [function(*arguments, 0, ends[1]), *(task.result() for task in running)]


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool a process: threads do not survive a fork."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="kernels")
