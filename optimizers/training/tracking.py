"""Averages of past task gradients, from which coefficients are solved that do not depend on the step's own noise."""

from math import expm1, log
from typing import Any

import torch
from torch import Tensor

from optimizers.gradients._gramian import gramian_of_parameters
from optimizers.gradients._task_gradients import PartialGradients


def newest_share(decay: float, before: int) -> float:
    """Share of the newest in an average with the weights β^age, of ``before`` older ones and itself.

    Example:
        >>> newest_share(0.0, 5), newest_share(0.9, 0), round(newest_share(0.5, 1), 3)
        (1.0, 1.0, 0.667)
    """
    return 1.0 if decay == 0.0 else (1.0 - decay) / -expm1((before + 1) * log(decay))


class GradientTracking:
    r"""Moving averages of the task gradients, :math:`y_{i,t} = \sum_{s<t} β^{t-1-s}g_{i,s} / \sum_{s<t} β^{t-1-s}`.

    Coefficients that are solved from the Gramian of this step's gradients see its noise twice: in the diagonal, where
    T_ii = tr Σ_ii is added to ‖g_i‖², and in the gradients that they multiply. Those of the y of the steps before are
    independent of the noise that they multiply, and T is (1−β)/(1+β) of what it was, while an average of Gramians
    (``ema``) keeps all of it (theory T17). The y lag behind by some β/(1−β) steps.

    Memory K×P beside the K sets of a step; one multiplication and addition an entry and task. The same estimate serves
    MoCo (Fernando et al. 2023, arXiv:2210.12624), which steps along it, too.

    Args:
        decay: β in [0, 1); None tracks nothing.

    Attributes:
        mean: K lists of P tensors or None, float32 or wider; None before the first step.
        count: steps it is made of.

    Example:
        >>> tracking = GradientTracking(0.5)
        >>> for value in (1.0, 4.0):
        ...     tracking.add([[torch.full((2,), value)]])
        >>> tracking.mean, tracking.gramian()
        ([[tensor([3., 3.])]], tensor([[18.]], dtype=torch.float64))
    """

    def __init__(self, decay: float | None) -> None:
        self.decay = decay
        self.mean: PartialGradients | None = None
        self.count = 0

    def gramian(self) -> Tensor | None:
        """(K, K) Gramian of the averages, or None where nothing is tracked yet."""
        return None if self.mean is None else gramian_of_parameters(self.mean)

    def check(self, gradients: PartialGradients) -> None:
        """Refuse gradients of other tasks or parameters than those before.

        Raises:
            ValueError: naming both.
        """
        if self.mean is not None and (len(gradients), len(gradients[0])) != (len(self.mean), len(self.mean[0])):
            raise ValueError(
                f"the tracked gradients are of {len(self.mean)} tasks and {len(self.mean[0])} parameters, this step's "
                f"of {len(gradients)} and {len(gradients[0])}; construct another optimizer for others"
            )

    @torch.no_grad()
    def add(self, gradients: PartialGradients) -> None:
        """Take the gradients of a step; a parameter that a task does not reach counts as zero."""
        if self.decay is None:
            return
        if self.mean is None:
            self.mean = [[None if g is None else torch.zeros_like(g, dtype=_kept(g)) for g in row] for row in gradients]
        share = newest_share(self.decay, self.count)
        for row, new in zip(self.mean, gradients, strict=True):
            for at, g in enumerate(new):
                known = row[at]
                if known is not None:
                    known.mul_(1.0 - share)
                if g is not None:
                    row[at] = g.to(_kept(g)) * share if known is None else known.add_(g, alpha=share)
        self.count += 1

    def state_dict(self) -> dict[str, Any] | None:
        """Averages and count, or None before the first step."""
        return None if self.mean is None else {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.mean, self.count = (None, 0) if state is None else (state["mean"], int(state["count"]))


def _kept(gradient: Tensor) -> torch.dtype:
    return torch.promote_types(gradient.dtype, torch.float32)
