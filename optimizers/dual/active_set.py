"""Exact finite active-set method for the conflict-averse dual, batched.

It works on the Gramian ``M = G Gᵀ`` alone, equilibrated by its diagonal so that tasks whose gradients
differ by many orders of magnitude do not drown each other. A batch advances together: each round solves
one small linear system per unfinished problem, and finished problems leave the batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from optimizers.dual.cone import equilibrated, project_cone
from optimizers.kernels.floats import ROUNDING
from optimizers.linalg import quadratic, times


class ActiveSetSolution(NamedTuple):
    """Solution of :func:`minimize_dual` for a flat batch of ``B`` problems, all float64."""

    alpha: Tensor
    """(B, K) the minimizer on the simplex."""
    multipliers: Tensor
    """(B, K) the β ≥ 0 with u* = centre + Gᵀβ; β = r α / ‖g_α‖ unless g_α = 0."""
    stationary: Tensor
    """(B,) bool, g_α = 0 at the minimum, where β projects the centre onto {u : Gu ≥ 0}."""
    iterations: Tensor
    """(B,) int64, number of linear systems solved."""


def minimize_dual(gramian: Tensor, centre_products: Tensor, radius: Tensor, max_iterations: int) -> ActiveSetSolution:
    r"""Minimize :math:`f(α) = b^⊤α + r\sqrt{α^⊤Mα}` over the simplex, exactly up to rounding.

    On the affine hull of a support :math:`S` the minimizer is known in closed form. With :math:`a_0`
    the minimum-norm point of the hull, :math:`d` the projection of :math:`-b` onto its directions (both
    from one bordered linear system), :math:`p² = a_0^⊤Ma_0` and :math:`c² = d^⊤Md`,

    .. math:: \hat α = a_0 + d\,p/\sqrt{r² - c²} \quad (c < r), \qquad
              \text{unbounded along } d \quad (c ≥ r).

    The method walks from a feasible α towards that point, drops the coordinate that reaches zero
    first, and adds the task whose constraint :math:`g_i^⊤u ≥ f(α)` is violated most. Each full step
    lowers ``f``, so no support returns and the method ends. A task that cannot enter because it equals
    a supporting one up to rounding takes that one's place if this lowers ``f``. Where :math:`g_α = 0`
    the function has a kink; there the projection of the centre onto :math:`\{u : Gu ≥ 0\}` decides
    (:func:`project_cone`).
    For K = 2 this is the closed form of book/dual.md, "Two tasks".

    Args:
        gramian: (B, K, K) float64, of order one.
        centre_products: (B, K) float64, ``b = G·centre``.
        radius: (B,) float64, > 0.
        max_iterations: a guard against cycling by rounding; the caller reads the residual.

    Example:
        >>> M = torch.eye(3, dtype=torch.float64)[None]
        >>> b = M.mean(-1)
        >>> minimize_dual(M, b, torch.tensor([0.2]).double(), 50).alpha
        tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """
    batch, tasks = centre_products.shape
    norms = gramian.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    start = (centre_products + radius[:, None] * norms).argmin(-1)

    solution = ActiveSetSolution(
        torch.zeros_like(centre_products),
        torch.zeros_like(centre_products),
        torch.zeros(batch, dtype=torch.bool, device=gramian.device),
        torch.zeros(batch, dtype=torch.int64, device=gramian.device),
    )
    open_ = torch.arange(batch, device=gramian.device)
    alpha = torch.nn.functional.one_hot(start, tasks).to(gramian.dtype)
    support = alpha > 0
    entering = start
    restarted = torch.zeros(batch, dtype=torch.bool, device=gramian.device)

    for iteration in range(1, max_iterations + 1):
        M, b, r, norm = gramian[open_], centre_products[open_], radius[open_], norms[open_]
        rows = torch.arange(len(open_), device=gramian.device)
        nearest, downhill, solvable = _affine_hull(M, b, norm, support)
        p2 = quadratic(M, nearest)
        p2 = torch.where(p2 > ROUNDING * (nearest.abs() * norm).sum(-1) ** 2, p2, 0.0)
        slack = r**2 - quadratic(M, downhill)
        bounded = slack > 0
        ratio = (p2 / torch.where(bounded, slack, 1.0)).sqrt()[:, None]
        target = nearest + ratio * downhill
        step = torch.where(bounded[:, None], target - alpha, downhill)

        stuck = ~solvable | ((alpha[rows, entering] == 0) & (step[rows, entering] <= 0))
        limits = torch.where(step < 0, -alpha / torch.where(step < 0, step, 1.0), torch.inf)
        limits = torch.where(support, limits, torch.inf)
        length, leaving = limits.min(-1)
        full = bounded & (length >= 1) & ~stuck
        partial = ~full & ~stuck & length.isfinite()
        stuck |= ~full & ~partial

        twin = _twin(M, norm, support, entering)
        exchanged = alpha.clone()
        exchanged[rows, twin] = 0.0
        exchanged[rows, entering] = alpha[rows, entering] + alpha[rows, twin]
        exchanged = torch.where((twin == entering)[:, None], alpha, exchanged)
        gain = _dual(M, b, r, alpha) - _dual(M, b, r, exchanged)
        swap = stuck & (gain > ROUNDING * (norm * norm.mean(-1, keepdim=True)).amax(-1))
        stuck &= ~swap

        moved = alpha + torch.where(partial, length, 0.0)[:, None] * step
        moved[rows[partial], leaving[partial]] = 0.0
        alpha = torch.where(full[:, None], target, torch.where(partial[:, None], moved, alpha))
        alpha = torch.where(swap[:, None], exchanged, alpha)
        alpha = alpha.clamp_min(0)
        alpha = alpha / alpha.sum(-1, keepdim=True)
        support = support.clone()
        support[rows[partial], leaving[partial]] = False
        support[rows[swap], twin[swap]] = False
        support[rows[stuck], entering[stuck]] &= alpha[rows[stuck], entering[stuck]] > 0

        length_g = quadratic(M, alpha).clamp_min(0).sqrt()
        multipliers = alpha * (r / torch.where(length_g > 0, length_g, torch.inf))[:, None]
        products = b + times(M, multipliers)
        value = (alpha * products).sum(-1)
        size = torch.maximum(norm * norm.mean(-1, keepdim=True), value.abs()[:, None])
        violation = (value[:, None] - products) / torch.where(size > 0, size, 1.0)
        violation = torch.where(support, -torch.inf, violation)
        worst, candidate = violation.max(-1)
        kink = full & (p2 == 0)
        done = stuck | (full & ~kink & (worst <= ROUNDING))
        entering = torch.where(full & ~kink & ~done, candidate, entering)
        grow = full & ~kink & ~done
        support[rows[grow], candidate[grow]] = True

        if kink.any():
            at = rows[kink]
            beta = project_cone(M[at], b[at], max_iterations)
            inside = quadratic(M[at], beta) <= r[at] ** 2
            settled = inside | restarted[at]
            multipliers[at[inside]] = beta[inside]
            solution.stationary[open_[at[inside]]] = True
            done[at[settled]] = True
            again = at[~settled]
            alpha[again] = beta[~settled] / beta[~settled].sum(-1, keepdim=True)
            support[again] = alpha[again] > 0
            entering[again] = alpha[again].argmax(-1)
            restarted[again] = True

        if iteration == max_iterations:
            done = torch.ones_like(done)
        finished = open_[done]
        solution.alpha[finished] = alpha[done]
        solution.multipliers[finished] = multipliers[done]
        solution.iterations[finished] = iteration
        if done.all():
            break
        going_on = ~done
        open_, alpha, support = open_[going_on], alpha[going_on], support[going_on]
        entering, restarted = entering[going_on], restarted[going_on]
    return solution


def polish(gramian: Tensor, centre_products: Tensor, radius: Tensor, alpha: Tensor) -> Tensor:
    r"""One Newton step on :math:`(Mβ + b)_S = t,\ β^⊤Mβ = r²` over the support of α.

    It removes the rounding that :func:`minimize_dual` collects where :math:`g_α` is short or
    :math:`r² - c²` cancels. Problems it cannot improve keep their α.

    Args:
        gramian, centre_products, radius: as in :func:`minimize_dual`.
        alpha: (B, K) float64 on the simplex with g_α ≠ 0.

    Returns:
        (B, K) float64 on the simplex.

    Example:
        >>> M = torch.eye(3, dtype=torch.float64)[None]
        >>> near = torch.tensor([[0.333333, 0.333333, 0.333334]]).double()
        >>> polish(M, M.mean(-1), torch.tensor([0.2]).double(), near)
        tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """
    batch, tasks = alpha.shape
    norm = gramian.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    inverse = torch.where(norm > 0, 1.0 / norm, 1.0)
    support = alpha > 0
    length = quadratic(gramian, alpha).clamp_min(0).sqrt()
    usable = length > 0
    beta = alpha * (radius / torch.where(usable, length, 1.0))[:, None]
    pull = times(gramian, beta)
    products = centre_products + pull
    value = (alpha * products).sum(-1)
    system = gramian.new_zeros(batch, tasks + 1, tasks + 1)
    system[:, :tasks, :tasks] = equilibrated(gramian, inverse, support)
    system[:, :tasks, tasks] = torch.where(support, -inverse, 0.0)
    system[:, tasks, :tasks] = torch.where(support, pull * inverse, 0.0)
    right = gramian.new_zeros(batch, tasks + 1)
    right[:, :tasks] = torch.where(support, (value[:, None] - products) * inverse, 0.0)
    right[:, tasks] = (radius**2 - (beta * pull).sum(-1)) / 2
    solved, info = torch.linalg.solve_ex(system, right)
    improved = beta + torch.where(support, solved[:, :tasks] * inverse, 0.0)
    usable &= (info == 0) & improved.isfinite().all(-1) & (improved >= 0).all(-1)
    improved = torch.where(usable[:, None], improved, alpha)
    improved = improved / improved.sum(-1, keepdim=True)
    better = usable & (_gap(gramian, centre_products, radius, improved) < _gap(gramian, centre_products, radius, alpha))
    return torch.where(better[:, None], improved, alpha)


def _affine_hull(M: Tensor, b: Tensor, norm: Tensor, support: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Minimum-norm point and projected −b on the affine hull of each support; solvability."""
    batch, tasks = b.shape
    inverse = torch.where(norm > 0, 1.0 / norm, 1.0)
    scale = torch.where(support, inverse, 0.0).amax(-1)
    border = torch.where(support, inverse, 0.0) / scale[:, None]
    system = M.new_zeros(batch, tasks + 1, tasks + 1)
    system[:, :tasks, :tasks] = equilibrated(M, inverse, support)
    system[:, :tasks, tasks] = border
    system[:, tasks, :tasks] = border
    right = M.new_zeros(batch, tasks + 1, 2)
    right[:, tasks, 0] = 1.0 / scale
    right[:, :tasks, 1] = torch.where(support, -b * inverse, 0.0)
    solved, info = torch.linalg.solve_ex(system, right)
    both = torch.where(support[..., None], solved[:, :tasks] * inverse[..., None], 0.0)
    solvable = (info == 0) & both.isfinite().all(-1).all(-1)
    both = torch.where(solvable[:, None, None], both, 0.0)
    return both[..., 0], both[..., 1], solvable


def _twin(M: Tensor, norm: Tensor, support: Tensor, entering: Tensor) -> Tensor:
    """The supporting task whose gradient is nearest to that of the entering task."""
    rows = torch.arange(len(M), device=M.device)
    distance = norm**2 - 2 * M[rows, entering]
    others = support.clone()
    others[rows, entering] = False
    twin = torch.where(others, distance, torch.inf).argmin(-1)
    return torch.where(others.any(-1), twin, entering)


def _dual(M: Tensor, b: Tensor, r: Tensor, alpha: Tensor) -> Tensor:
    return (alpha * b).sum(-1) + r * quadratic(M, alpha).clamp_min(0).sqrt()


def _gap(M: Tensor, b: Tensor, r: Tensor, alpha: Tensor) -> Tensor:
    """f(α) − min_i g_iᵀu for u = centre + r g_α/‖g_α‖."""
    pull = times(M, alpha)
    length = (alpha * pull).sum(-1).clamp_min(0).sqrt()
    products = b + pull * (r / torch.where(length > 0, length, torch.inf))[:, None]
    return (alpha * b).sum(-1) + r * length - products.amin(-1)
