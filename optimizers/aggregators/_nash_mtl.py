"""Nash-MTL: the Nash bargaining solution among tasks (Navon et al., ICML 2022, arXiv:2202.01017)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizers.aggregators.base import unit_gramian
from optimizers.dual.active_set import minimize_dual
from optimizers.errors import report_unsolved
from optimizers.kernels.floats import EPS, TOLERANCE, iteration_limit
from optimizers.linalg import quadratic, times

STATIONARY = 64 * EPS
MAX_ITERATIONS = 200
HALVINGS = 2.0 ** -torch.arange(0.0, 12.0, dtype=torch.float64)


@dataclass(frozen=True)
class NashSolution:
    """Answer of :func:`solve_nash`; every field is batched over the leading dimensions.

    Attributes:
        alpha: (..., K) float64, the α > 0 with α_i(Mα)_i = p_i; 0 for tasks that take no part, and for all where the
            point is Pareto stationary.
        residual: (...) float64, max_i |α_i(Mα)_i/p_i − 1| over the tasks that take part.
        iterations: (...) int64, Newton steps.
        converged: (...) bool, residual ≤ 1e-12 + min(0.01, 8Kε·max_i α_i(|M|α)_i/p_i) with ε = 2⁻⁵²; the second
            term is what rounding leaves of a product Mα that cancels: near Pareto-stationary points, or where powers
            are many orders of magnitude apart.
        stationary: (...) bool, no direction improves every task: 0 lies within 1.2e-7 of the convex hull of the unit
            gradients (its square within 64ε), nearer than a float64 Gramian can tell.
    """

    alpha: Tensor
    residual: Tensor
    iterations: Tensor
    converged: Tensor
    stationary: Tensor


def nash_mtl(
    gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None, *, asymmetric: bool = False
) -> Tensor:
    r"""Coefficients of the u that maximizes :math:`\sum_i \log g_i^⊤u` in a ball: the α > 0 with Mα = 1/α.

    Claim 3.1 of Navon et al. Its solution is the minimizer of the strictly convex
    :math:`½α^⊤Mα - \sum_i \log α_i`, found here by :func:`solve_nash` to rounding; the paper stops after a few
    steps of the convex–concave procedure.

    * Weights: on the gradients ω_i g_i, as for the other methods, they **change nothing**: the bargaining solution does
      not depend on the units of the tasks' utilities; only ω_i = 0 counts, which excludes the task. With
      ``asymmetric=True`` they are bargaining powers: u maximizes Σω_i log g_iᵀu, and α solves Mα = ω/α.
    * Assumes that some direction improves every task (the paper: gradients independent unless Pareto stationary);
      linearly dependent ones are allowed. Every task improves: g_iᵀu = 1/α_i > 0 (ω_i/α_i if asymmetric).
    * At Pareto-stationary points there is no agreement: coefficients 0, so u = 0. Everywhere else ‖u‖² = K, the number
      of tasks that take part (Σω_i if asymmetric), however near such a point is: the method needs a decaying learning
      rate, or clipping, which the paper uses. F is homogeneous of degree zero, in every single gradient.
    * Tasks with a zero gradient cannot gain and take no part, their coefficient is 0, although the point is then
      Pareto stationary. Duplicates share: g_1 = g_2 gives α_1 = α_2. Opposite gradients are Pareto stationary.
    * Cost: an active-set solve for stationarity and about ten Newton steps, each O(K³).

    Args:
        gramian: (..., K, K) float32 or float64; computed in float64.
        task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.
        asymmetric: whether the weights are bargaining powers.

    Returns:
        (..., K) float64, inversely proportional to the gradients.

    Raises:
        ValueError: for a matrix that is no Gramian, or bad weights.

    Warns:
        SolverWarning: where the residual is above its tolerance; :func:`solve_nash` says where and how far.

    Example:
        >>> nash_mtl(torch.tensor([[4.0, 0.0], [0.0, 9.0]]))
        tensor([0.5000, 0.3333], dtype=torch.float64)
        >>> nash_mtl(torch.eye(2), [1.0, 4.0], asymmetric=True)
        tensor([1., 2.], dtype=torch.float64)
    """
    solution = solve_nash(gramian, task_weights, asymmetric=asymmetric)
    if not solution.converged.all():
        failed = ~solution.converged
        report_unsolved(
            f"Nash-MTL's equation was solved to a relative residual of {solution.residual[failed].max().item():.1e} "
            f"only, in {int(failed.sum())} problem(s); check the Gramian for entries that are not inner products, "
            "and bargaining powers for some that are almost 0",
            stacklevel=2,
        )
    return solution.alpha


def solve_nash(
    gramian: Tensor,
    task_weights: Tensor | Sequence[float] | None = None,
    *,
    asymmetric: bool = False,
    max_iterations: int = MAX_ITERATIONS,
) -> NashSolution:
    r"""Solve :math:`α_i(Mα)_i = p_i`, with p = 1, or ω if ``asymmetric``.

    With :math:`α_i = β_i/‖g_i‖` the matrix becomes that of the cosines. Scaled so that min p = 1 the objective
    :math:`½β^⊤Cβ - \sum p_i\log β_i` is self-concordant, and Newton's method with the step 1/(1+λ), λ its decrement,
    converges from everywhere, quadratically from λ < ¼ on with the full step (Boyd and Vandenberghe, section 9.6).
    Before, that step or one of the halvings of the longest feasible one is taken, whichever lowers the objective most.

    Args, raises: as :func:`nash_mtl`.
        max_iterations: Newton steps at most.

    Example:
        >>> solve_nash(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).stationary
        tensor(True)
    """
    cosines, norms, weights, present = unit_gramian(gramian, task_weights)
    batch, tasks = norms.shape[:-1], norms.shape[-1]
    C, taking_part = cosines.reshape(-1, tasks, tasks), present.reshape(-1, tasks)
    powers = weights.reshape(-1, tasks) if asymmetric else torch.ones_like(norms).reshape(-1, tasks)
    least = torch.where(taking_part, powers, torch.inf).amin(-1, keepdim=True)
    least = torch.where(least.isfinite(), least, 1.0)
    p = torch.where(taking_part, powers / least, 0.0)

    stationary = _is_stationary(C, taking_part)
    beta = p.sqrt()
    iterations = torch.zeros(len(C), dtype=torch.int64, device=C.device)
    residual = torch.zeros(len(C), dtype=C.dtype, device=C.device)
    converged = stationary.clone()
    open_ = (~stationary).nonzero()[:, 0]
    beta[open_] = _on_ray(C[open_], beta[open_], p[open_])
    best = beta.clone()
    residual[open_] = torch.inf
    for iteration in range(max_iterations + 1):
        if not len(open_):
            break
        M, b, q = C[open_], beta[open_], p[open_]
        now, rounding = _residual(M, b, q)
        better = now < residual[open_]
        best[open_[better]], residual[open_[better]] = b[better], now[better]
        iterations[open_] = iteration
        done = (now <= TOLERANCE + rounding) & ((now <= 4 * tasks * EPS) | ~better)
        converged[open_] |= now <= TOLERANCE + rounding
        open_, M, b, q = open_[~done], M[~done], b[~done], q[~done]
        beta[open_] = _newton(M, b, q)
    scale = least.sqrt() / torch.where(taking_part, norms.reshape(-1, tasks), 1.0)
    alpha = torch.where(taking_part & ~stationary[:, None], best * scale, 0.0)
    return NashSolution(
        alpha=alpha.reshape(*batch, tasks),
        residual=residual.reshape(batch),
        iterations=iterations.reshape(batch),
        converged=converged.reshape(batch),
        stationary=stationary.reshape(batch),
    )


def _is_stationary(C: Tensor, present: Tensor) -> Tensor:
    """Whether 0 lies in the convex hull of the unit gradients that take part, as far as C can tell; (B,)."""
    nobody = ~present.any(-1)
    first = present.to(torch.int8).argmax(-1, keepdim=True)
    index = torch.where(present, torch.arange(C.shape[-1], device=C.device), first)
    rows = C.gather(-2, index[:, :, None].expand_as(C))
    M = rows.gather(-1, index[:, None, :].expand_as(C))
    solved = minimize_dual(M, torch.zeros_like(M[..., 0]), M.new_ones(len(M)), iteration_limit(C.shape[-1]))
    return nobody | (quadratic(M, solved.alpha) <= STATIONARY)


def _on_ray(C: Tensor, beta: Tensor, p: Tensor) -> Tensor:
    """The multiple of β that minimizes the objective."""
    square = quadratic(C, beta)
    floor = STATIONARY * beta.sum(-1) ** 2
    return beta * (p.sum(-1) / torch.maximum(square, floor)).sqrt()[:, None]


def _newton(C: Tensor, beta: Tensor, p: Tensor) -> Tensor:
    """One step, in the relative change s of β: (BCB + P)s = p − BCβ."""
    scaled = C * beta[:, :, None] * beta[:, None, :]
    slope = p - scaled.sum(-1)
    hessian = scaled + torch.diag_embed(torch.where(p > 0, p, 1.0))
    factor, _ = torch.linalg.cholesky_ex(hessian)
    s = torch.cholesky_solve(slope[..., None], factor)[..., 0]
    decrement = (s * slope).sum(-1).clamp_min(0).sqrt()
    bend = (s * times(scaled, s)).sum(-1)
    longest = 0.99 / torch.maximum((-s).amax(-1), s.new_tensor(0.99))
    steps = torch.cat([(1 / (1 + decrement))[:, None], longest[:, None] * HALVINGS.to(C.device)], -1)
    logarithms = (p[:, None, :] * (steps[..., None] * s[:, None, :]).log1p()).sum(-1)
    change = steps * ((p - slope) * s).sum(-1)[:, None] + steps**2 * bend[:, None] / 2 - logarithms
    searched = steps.gather(-1, change.argmin(-1, keepdim=True))[:, 0]
    step = torch.where(decrement < 0.25, 1.0, searched)
    moved = beta * (1 + step[:, None] * s)
    usable = moved.isfinite().all(-1) & ((moved > 0) | (p == 0)).all(-1)
    return torch.where(usable[:, None], moved, beta)


def _residual(C: Tensor, beta: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """max_i |β_i(Cβ)_i/p_i − 1|, and what rounding may make of it."""
    divisor = torch.where(p > 0, p, 1.0)
    products = torch.where(p > 0, beta * times(C, beta) / divisor - 1.0, 0.0)
    sizes = torch.where(p > 0, beta * times(C.abs(), beta) / divisor, 0.0)
    return products.abs().amax(-1), (8 * C.shape[-1] * EPS * sizes.amax(-1)).clamp_max(0.01)
