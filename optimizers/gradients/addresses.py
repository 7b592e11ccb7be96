"""Where gradients lie in memory, for :mod:`optimizers.kernels.gradients`; whatever it cannot read is left to torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimizers.gradients.arrays import KINDS, address
from optimizers.kernels.threads import in_threads

SHORTEST = 1 << 21
"""Entries that are worth a thread: torch's own threads spin for some milliseconds after what they did before."""


@dataclass
class Addresses:
    """Parameters of one dtype, and where the gradients of each lie.

    Attributes:
        dtype: float32 or float64.
        rows: P lists of K addresses, 0 for None.
        sizes: P numbers of entries.
    """

    dtype: torch.dtype
    rows: list[list[int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def append(self, row: list[int], size: int) -> None:
        """Add a parameter."""
        self.rows.append(row)
        self.sizes.append(size)

    def run(self, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of a kernel, each thread over a range of the entries of all parameters together."""
        addresses, sizes = np.array(self.rows, np.uint64), np.array(self.sizes, np.int64)
        count = int(sizes.sum())
        return in_threads(kernel, count, addresses, sizes, *arguments, KINDS[self.dtype], shortest=SHORTEST)


def addresses(gradients: Sequence[Tensor | None]) -> list[int] | None:
    """K addresses of the gradients of one parameter, 0 for None; None where the kernels cannot read them.

    They read float32 and float64 on a CPU, of one dtype, without holes, and in the same order in memory.

    Example:
        >>> x = torch.ones(2, 3)
        >>> addresses([x, None]) == [x.data_ptr(), 0]
        True
        >>> addresses([x, x.double()]), addresses([x[:, :2]]), addresses([x[:1].expand(2, 3)])
        (None, None, None)
    """
    row: list[int] = []
    first: Tensor | None = None
    contiguous = True
    for g in gradients:
        if g is None:
            row.append(0)
            continue
        where = address(g)
        if where is None or (first is not None and g.dtype != first.dtype):
            return None
        row.append(where)
        first = g if first is None else first
        contiguous = contiguous and g.is_contiguous()
    if first is not None and not contiguous:
        strides = torch.empty_like(first, device="meta").stride()
        if any(g is not None and g.stride() != strides for g in gradients):
            return None
    return row
