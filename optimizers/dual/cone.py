"""Projection onto the cone of directions that harm no task, batched, from the Gramian."""

import torch
from torch import Tensor

from optimizers.kernels.floats import ROUNDING
from optimizers.linalg import times


def project_cone(gramian: Tensor, centre_products: Tensor, max_iterations: int) -> Tensor:
    r"""Multipliers β ≥ 0 of the projection of the centre onto the cone :math:`\{u : Gu ≥ 0\}`.

    The projection is :math:`u = \text{centre} + G^⊤β` with β minimizing :math:`½β^⊤Mβ + b^⊤β` over
    β ≥ 0 (Moreau). Lawson and Hanson's active-set method, on the Gramian.

    Args:
        gramian: (B, K, K) float64, of order one.
        centre_products: (B, K) float64, ``b = G·centre``.
        max_iterations: bound on the number of linear systems per problem.

    Returns:
        (B, K) float64.

    Example:
        Gradients (1,0), (−1,0), (0,1) allow only u₁ = 0: the centre (0, ⅓) is there already.

        >>> G = torch.tensor([[1., 0.], [-1., 0.], [0., 1.]]).double()
        >>> project_cone((G @ G.T)[None], (G @ G.mean(0))[None], 50)
        tensor([[0., 0., 0.]], dtype=torch.float64)
    """
    batch = len(centre_products)
    norms = gramian.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    size = norms.amax(-1, keepdim=True)
    answer = torch.zeros_like(centre_products)
    support = torch.zeros_like(centre_products, dtype=torch.bool)
    entering = torch.zeros(batch, dtype=torch.int64, device=gramian.device)
    moving = torch.zeros(batch, dtype=torch.bool, device=gramian.device)
    done = torch.zeros(batch, dtype=torch.bool, device=gramian.device)
    rows = torch.arange(batch, device=gramian.device)
    for _ in range(max_iterations):
        products = centre_products + times(gramian, answer)
        scaled = products / torch.where(norms > 0, norms * size, 1.0)
        scaled = torch.where(support | (norms == 0), torch.inf, scaled)
        least, candidate = scaled.min(-1)
        done |= ~moving & ~(least < -ROUNDING)
        if done.all():
            break
        grow = ~moving & ~done
        support[rows[grow], candidate[grow]] = True
        entering = torch.where(grow, candidate, entering)

        target, solvable = _unconstrained(gramian, centre_products, norms, support)
        done |= ~solvable | ((answer[rows, entering] == 0) & (target[rows, entering] <= 0))
        negative = support & (target <= 0)
        limits = torch.where(negative, answer / torch.where(negative, answer - target, 1.0), torch.inf)
        length, leaving = limits.min(-1)
        moving = (length < torch.inf) & ~done
        moved = answer + torch.where(moving, length, 0.0)[:, None] * (target - answer)
        moved[rows[moving], leaving[moving]] = 0.0
        answer = torch.where(done[:, None], answer, torch.where(moving[:, None], moved.clamp_min(0), target))
        support[rows[moving], leaving[moving]] = False
    return answer


def _unconstrained(M: Tensor, b: Tensor, norm: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Solve M_SS β_S = −b_S on each support; solvability."""
    inverse = torch.where(norm > 0, 1.0 / norm, 1.0)
    system = equilibrated(M, inverse, support)
    right = torch.where(support, -b * inverse, 0.0)
    solved, info = torch.linalg.solve_ex(system, right)
    solved = torch.where(support, solved * inverse, 0.0)
    solvable = (info == 0) & solved.isfinite().all(-1)
    return torch.where(solvable[:, None], solved, 0.0), solvable


def equilibrated(M: Tensor, inverse: Tensor, support: Tensor) -> Tensor:
    """Unit-diagonal M on the support, identity off it."""
    both = support[:, :, None] & support[:, None, :]
    scaled = torch.where(both, M * inverse[:, :, None] * inverse[:, None, :], 0.0)
    return scaled + torch.diag_embed((~support).to(M.dtype))
