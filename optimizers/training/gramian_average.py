"""An exponential moving average of Gramians over the steps."""

from math import expm1, log
from typing import Any

import torch
from torch import Tensor


class GramianAverage:
    r"""Bias-corrected average :math:`\bar M_t = \sum_s β^{t-s}M_s / \sum_s β^{t-s}`, the first being M₁ itself.

    It is the Gramian of the stacked gradients :math:`\sqrt{w_s}G_s` of all steps with the weights w_s of the average,
    so every aggregator accepts it. What an aggregator promises of the products :math:`\bar Mc`, say that none is
    negative, then holds for the average :math:`\sum_s w_s\,g_{i,s}^⊤(G_s^⊤c)` over the steps and not for the last one.

    Args:
        decay: β in [0, 1); None takes every Gramian as it comes.

    Attributes:
        mean: (K, K) float64, or None before the first step.
        count: steps it is made of.

    Example:
        >>> average = GramianAverage(0.5)
        >>> for M in (torch.eye(1), 4 * torch.eye(1)):
        ...     average.keep(average.including(M))
        >>> average.mean  # weights ⅓ and ⅔
        tensor([[3.]])
    """

    def __init__(self, decay: float | None) -> None:
        self.decay = decay
        self.mean: Tensor | None = None
        self.count = 0

    def including(self, gramian: Tensor) -> Tensor:
        """The average with one more Gramian, which is not kept yet.

        Raises:
            ValueError: if the number of tasks changed.
        """
        if self.decay is None or self.mean is None:
            return gramian
        if gramian.shape != self.mean.shape:
            raise ValueError(
                f"the Gramian average is of {len(self.mean)} tasks, this step has {len(gramian)} losses; "
                "construct another optimizer for other tasks"
            )
        if self.decay == 0.0:
            return gramian
        share = (1.0 - self.decay) / -expm1((self.count + 1) * log(self.decay))
        return torch.lerp(self.mean, gramian, share)

    def keep(self, mean: Tensor) -> None:
        """Make what :meth:`including` gave the average."""
        if self.decay is not None:
            self.mean, self.count = mean, self.count + 1

    def state_dict(self) -> dict[str, Any] | None:
        """Average and count, or None before the first step."""
        return None if self.mean is None else {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore what :meth:`state_dict` gave, from whatever device it was loaded to."""
        self.mean, self.count = (None, 0) if state is None else (state["mean"].cpu(), state["count"])
