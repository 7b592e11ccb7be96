"""A model with two tasks that conflict about half of the time, small enough to train in a notebook."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from sde_mtl.figures.style import BLUE, GREY, canvas

Batch = tuple[Tensor, Tensor, Tensor]


class TwoHeads(nn.Module):
    """A shared trunk with a head for reports and one for diseases; called on a batch, it returns both losses.

    Example:
        >>> [loss.shape for loss in TwoHeads()(*batches(1)[0])]
        [torch.Size([]), torch.Size([])]
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.report, self.disease = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor, report: Tensor, disease: Tensor) -> list[Tensor]:
        """The two mean squared errors."""
        z = self.trunk(x)
        return [(self.report(z) - report).square().mean(), (self.disease(z) - disease).square().mean()]


def batches(count: int, seed: int = 0) -> list[Batch]:
    """Inputs (16, 8) and both targets (16, 4), ``count`` times.

    Args:
        count: of batches.
        seed: of the inputs.
    """
    x = torch.randn(count, 16, 8, generator=torch.Generator().manual_seed(seed))
    return list(zip(x, x[..., :4] * x[..., 4:], -x[..., :4].abs(), strict=True))


def cosine_figure(cosines: Sequence[float]) -> Figure:
    """The cosine between two task gradients at every step.

    Args:
        cosines: in the order of the steps.
    """
    with canvas(6.4, 2.6, font_size=10) as (figure, (axis,)):
        axis.plot(cosines, ".", color=BLUE)
        axis.axhline(0, color=GREY, lw=0.8)
        axis.set_xlabel("training step")
        axis.set_ylabel("cosine of the task gradients")
        return figure
