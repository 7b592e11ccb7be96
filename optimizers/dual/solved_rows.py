"""What was solved for a batch of problems, a row each; its columns become tensors when they are asked for.

:mod:`optimizers.kernels.columns` names the columns.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optimizers.kernels.columns import start


class SolvedRows:
    """Rows of float64 numbers, read as tensors with the leading dimensions of the problems.

    Args:
        columns: (B, ·) float64; an array stands for a CPU tensor.
        batch: leading dimensions, of B problems.
        tasks: K.
    """

    __slots__ = ("_batch", "_columns", "_tasks")

    def __init__(self, columns: Tensor | NDArray[np.float64], batch: tuple[int, ...], tasks: int) -> None:
        self._columns, self._batch, self._tasks = columns, batch, tasks

    def _vector(self, vector: int) -> Tensor:
        """(..., K), one of the vectors."""
        first = start(vector, self._tasks)
        return self._tensor(self._columns[:, first : first + self._tasks].reshape(*self._batch, self._tasks))

    def _number(self, column: int) -> Tensor:
        """(...), one column."""
        return self._tensor(self._columns[:, column].reshape(self._batch))

    @staticmethod
    def _tensor(part: Tensor | NDArray[np.float64]) -> Tensor:
        return part if isinstance(part, Tensor) else torch.from_numpy(np.asarray(part))
