"""Nonconvex objectives: CAGrad's two-dimensional toy problem and double wells of controllable sharpness.

Like :class:`sde_mtl.problems.quadratic.Quadratic`, each has ``tasks``, ``dimension``, ``losses(theta)`` (..., d) →
(..., K) and ``gradients(theta)`` (..., d) → (..., K, d).
"""

import torch
from torch import Tensor

FLOOR = 5e-6


class CAGradToy:
    r"""The two-task toy problem of CAGrad (Liu et al., NeurIPS 2021, arXiv:2110.14048, appendix).

    Two deep valleys that pull in different directions, joined by a smooth gate c_1 = max(tanh(θ_2/2), 0),
    c_2 = max(tanh(−θ_2/2), 0): above the axis logarithmic walls, below it parabolic bowls. From most starts the
    averaged gradient stalls in a valley; conflict-averse directions do not.

    Example:
        >>> toy = CAGradToy()
        >>> toy.gradients(torch.tensor([[-8.5, 7.5], [9.0, 9.0]]).double()).shape
        torch.Size([2, 2, 2])
    """

    tasks, dimension = 2, 2

    def losses(self, theta: Tensor) -> Tensor:
        """(..., 2) → (..., 2)."""
        x, y = theta[..., 0], theta[..., 1]
        above, below = torch.tanh(y / 2).clamp_min(0), torch.tanh(-y / 2).clamp_min(0)
        first = (0.5 * (-x - 7) - torch.tanh(-y)).abs().clamp_min(FLOOR).log() + 6
        second = (0.5 * (-x + 3) - torch.tanh(-y) + 2).abs().clamp_min(FLOOR).log() + 6
        left = ((-x + 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
        right = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
        return torch.stack([first * above + left * below, second * above + right * below], -1)

    def gradients(self, theta: Tensor) -> Tensor:
        """(..., 2) → (..., 2, 2), by automatic differentiation."""
        with torch.enable_grad():
            at = theta.detach().requires_grad_()
            losses = self.losses(at)
            rows = [torch.autograd.grad(losses[..., k].sum(), at, retain_graph=k == 0)[0] for k in range(2)]
        return torch.stack(rows, -2)


class DoubleWell:
    r"""K = 2 tasks that share a double well in θ_1 and disagree along θ_2.

    .. math:: L_{1,2}(θ) = ½W(θ_1) + ½·½λ(θ_1)(θ_2 ∓ s)², \qquad W(x) = h(x²-1)²,

    where λ goes smoothly from ``sharp`` in the left well to ``flat`` in the right one. With ω = (1, 1) the weighted
    sum is W + ½λ(θ_2² + s²). ``dimension=1`` drops θ_2.

    Args:
        height: h > 0 of the barrier.
        sharp, flat: curvature λ along θ_2 in the left and in the right well.
        offset: s, half the distance of the tasks' minimizers along θ_2.
        dimension: 1 or 2.

    Raises:
        ValueError: for a height or curvature that is not positive, or another dimension.

    Example:
        >>> DoubleWell(height=1.0, dimension=1).gradients(torch.tensor([2.0]).double())
        tensor([[12.],
                [12.]], dtype=torch.float64)
    """

    tasks = 2

    def __init__(
        self, height: float, *, sharp: float = 1.0, flat: float = 1.0, offset: float = 0.0, dimension: int = 2
    ) -> None:
        for name, value in (("height", height), ("sharp", sharp), ("flat", flat)):
            if not value > 0:
                raise ValueError(f"{name} = {value} must be > 0")
        if dimension not in (1, 2):
            raise ValueError(f"dimension = {dimension} must be 1 or 2")
        self.height, self.sharp, self.flat, self.offset, self.dimension = height, sharp, flat, offset, dimension

    def losses(self, theta: Tensor) -> Tensor:
        """(..., d) → (..., 2)."""
        x = theta[..., 0]
        well = 0.5 * self.height * (x**2 - 1) ** 2
        if self.dimension == 1:
            return torch.stack([well, well], -1)
        curvature = self._curvature(x)
        y = theta[..., 1]
        return torch.stack([well + 0.25 * curvature * (y - s) ** 2 for s in (self.offset, -self.offset)], -1)

    def gradients(self, theta: Tensor) -> Tensor:
        """(..., d) → (..., 2, d)."""
        x = theta[..., 0]
        slope = 2 * self.height * x * (x**2 - 1)
        if self.dimension == 1:
            return torch.stack([slope, slope], -1)[..., None]
        curvature, change = self._curvature(x), self._change(x)
        y = theta[..., 1]
        rows = []
        for s in (self.offset, -self.offset):
            rows.append(torch.stack([slope + 0.25 * change * (y - s) ** 2, 0.5 * curvature * (y - s)], -1))
        return torch.stack(rows, -2)

    def _curvature(self, x: Tensor) -> Tensor:
        return self.sharp + (self.flat - self.sharp) * torch.sigmoid(4 * x)

    def _change(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(4 * x)
        return (self.flat - self.sharp) * 4 * gate * (1 - gate)
