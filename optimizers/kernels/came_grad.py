"""Compiled: the three stages of CAME-Grad, one problem after another; see :func:`optimizers.came_grad`."""

import math

import numpy as np

from optimizers.kernels.compiled import inlined, kernel
from optimizers.kernels.dual import ROUNDING, SOLVED, solve_problem, workspace
from optimizers.kernels.two_tasks import stages_two_tasks
from optimizers.kernels.validity import is_gramian

EPS = 2.0**-52
SMALL, LARGE = 1e-100, 1e100
"""Gramians within need no scaling before their entries are multiplied."""


@kernel
def stage_rows(  # type: ignore[no-untyped-def]
    problems, weights, rho, kappa, nu, weighted, adaptive, tolerance, columns, first, last
):
    """Fill rows first … last − 1 of ``columns`` with the columns of
    :class:`optimizers.aggregators._came_grad_update.CAMEGradCoefficients`.

    Args:
        problems: (B, K, K) float64.
        weights: (1 or B, K) float64, ≥ 0, not all zero.
        rho, kappa, nu: as for :func:`optimizers.came_grad`.
        weighted: whether the centre is the weighted one (theory T7).
        adaptive: whether fusion is adaptive (theory T9).
        tolerance: of :func:`optimizers.kernels.validity.is_gramian`.
        columns: (B, 5K + 6) float64.

    Returns:
        How many have a residual above 1e-14; −1 where one is no Gramian.
    """
    tasks = problems.shape[1]
    scratch = _scratch(tasks)
    unsolved = 0
    for i in range(first, last):
        w, row = weights[i if len(weights) > 1 else 0], columns[i]
        if not _stages(problems[i], w, rho, kappa, nu, weighted, adaptive, tolerance, row, scratch):
            return -1
        if not row[2 * tasks + 1] <= SOLVED:
            unsolved += 1
    return unsolved


@kernel
def coefficient_rows(  # type: ignore[no-untyped-def]
    problems, weights, rho, kappa, nu, weighted, adaptive, tolerance, coefficients, first, last
):
    """As :func:`stage_rows`, but only the coefficients (B, K), NaN where the residual is above 1e-14."""
    tasks = problems.shape[1]
    scratch, row = _scratch(tasks), np.empty(5 * tasks + 6)
    unsolved = 0
    for i in range(first, last):
        M, w = problems[i], weights[i if len(weights) > 1 else 0]
        if tasks == 2:
            if not is_gramian(M, row, tolerance):
                return -1
            found = _two_tasks(M, w, rho, kappa, nu, weighted, adaptive)
            coefficients[i, 0], coefficients[i, 1], gap = found[11], found[12], found[4]
        else:
            if not _stages(M, w, rho, kappa, nu, weighted, adaptive, tolerance, row, scratch):
                return -1
            for k in range(tasks):
                coefficients[i, k] = row[4 * tasks + 4 + k]
            gap = row[2 * tasks + 1]
        if not gap <= SOLVED:
            coefficients[i, 0] = math.nan
            unsolved += 1
    return unsolved


@inlined
def _scratch(tasks):  # type: ignore[no-untyped-def]
    """Arrays that :func:`_stages` works in: of the solver, ‖g_i‖, 1/K, who takes part, their Gramian and solution."""
    return (
        workspace(tasks), np.empty(tasks), np.full(tasks, 1.0 / tasks), np.empty(tasks, np.int64),
        np.empty((tasks, tasks)), np.empty(2 * tasks + 4),
    )  # fmt: skip


@inlined
def _stages(M, w, rho, kappa, nu, weighted, adaptive, tolerance, row, scratch):  # type: ignore[no-untyped-def]
    """All stages of one problem; whether it is a Gramian at all."""
    work, norms, centre, taking, part, solved = scratch
    tasks = len(M)
    if not is_gramian(M, norms, tolerance):
        return False
    if tasks == 2:
        _fill_two_tasks(M, w, rho, kappa, nu, weighted, adaptive, row)
        return True
    if not weighted:
        solve_problem(M, centre, rho, row, work)
        for k in range(tasks):
            row[2 * tasks + 4 + k] = centre[k] + row[tasks + k]
    else:
        active = 0
        for k in range(tasks):
            if w[k] > 0.0:
                taking[active] = k
                active += 1
        for a in range(active):
            for b in range(active):
                part[a, b] = w[taking[a]] * M[taking[a], taking[b]] * w[taking[b]]
        if active == tasks:
            solve_problem(part, centre, rho, row, work)
        else:
            solve_problem(part[:active, :active].copy(), centre[:active], rho, solved, workspace(active))
            row[: 2 * tasks] = 0.0
            for a in range(active):
                row[taking[a]], row[tasks + taking[a]] = solved[a], solved[active + a]
            row[2 * tasks : 2 * tasks + 4] = solved[2 * active : 2 * active + 4]
        for k in range(tasks):
            row[2 * tasks + 4 + k] = w[k] * (centre[k] + row[tasks + k])
    _enhance_and_fuse(M, norms, w, kappa, nu, weighted, adaptive, row)
    return True


@kernel
def _enhance_and_fuse(M, norms, w, kappa, nu, weighted, adaptive, row):  # type: ignore[no-untyped-def]
    """Stages 2 and 3 of a row whose dual and rectified coefficients are known."""
    tasks = len(M)
    at = 2 * tasks + 4
    rectified, enhanced, fused = row[at : at + tasks], row[at + tasks : at + 2 * tasks], row[at + 2 * tasks : -2]
    centre_square, spread, square, joint_square, largest = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(tasks):
        to_centre, to_rectified, to_joint = 0.0, 0.0, 0.0
        for j in range(tasks):
            entry = M[i, j] + M[j, i]
            to_centre += entry
            to_rectified += entry * rectified[j]
            to_joint += entry * w[j]
        centre_square += to_centre
        spread += (w[i] if weighted else 1.0) * norms[i]
        square += 0.5 * rectified[i] * to_rectified
        joint_square += 0.5 * w[i] * to_joint
        largest = max(largest, M[i, i])
    centre_square = joint_square if weighted else 0.5 * centre_square
    vanishing = centre_square <= ROUNDING * spread * spread or square <= 0.0
    speed = 0.0 if vanishing else kappa * math.sqrt(max(joint_square, 0.0)) / math.sqrt(square)
    for i in range(tasks):
        if vanishing:
            rectified[i] = 0.0
        enhanced[i] = speed * rectified[i]
    if adaptive:
        nu = _adaptive_fusion(M, w, kappa, enhanced, nu)
    for i in range(tasks):
        fused[i] = (1.0 - nu) * enhanced[i] + nu * kappa * w[i]
    row[-2] = nu
    row[-1] = 1.0 if row[2 * tasks] >= -16.0 * EPS * largest else 0.0


@kernel
def _adaptive_fusion(M, w, kappa, enhanced, limit):  # type: ignore[no-untyped-def]
    """The largest ν ≤ limit that harms no task (theory T9); ``limit`` where there is none."""
    tasks = len(M)
    lower, upper = 0.0, limit
    for i in range(tasks):
        e, j = 0.0, 0.0
        for k in range(tasks):
            entry = 0.5 * (M[i, k] + M[k, i])
            e += entry * enhanced[k]
            j += entry * kappa * w[k]
        if abs(e) <= 16.0 * EPS * (abs(e) + abs(j)):
            e = 0.0
        if j < e:
            upper = min(upper, -e / (j - e))
        elif j > e:
            lower = max(lower, -e / (j - e))
        elif e < 0.0:
            return limit
    return upper if lower <= upper and upper >= 0.0 else limit


@inlined
def _two_tasks(M, w, rho, kappa, nu, weighted, adaptive):  # type: ignore[no-untyped-def]
    """:func:`optimizers.kernels.two_tasks.stages_two_tasks` at a safe scale."""
    unit = _unit(M)
    return stages_two_tasks(
        unit * M[0, 0], 0.5 * (unit * M[0, 1] + unit * M[1, 0]), unit * M[1, 1], w[0], w[1],
        rho, kappa, nu, weighted, adaptive,
    )  # fmt: skip


@inlined
def _fill_two_tasks(M, w, rho, kappa, nu, weighted, adaptive, row):  # type: ignore[no-untyped-def]
    a, beta1, beta2, value, gap, resolvable, u1, u2, e1, e2, used, c1, c2 = _two_tasks(
        M, w, rho, kappa, nu, weighted, adaptive
    )
    unit = _unit(M)
    row[0], row[1], row[2], row[3] = a, 1.0 - a, beta1, beta2
    row[4], row[5], row[6], row[7] = value / unit, gap, 0.0, resolvable
    row[8], row[9], row[10], row[11], row[12], row[13] = u1, u2, e1, e2, c1, c2
    row[14] = used
    row[15] = 1.0 if value >= -16.0 * EPS * unit * max(M[0, 0], M[1, 1]) else 0.0


@inlined
def _unit(M):  # type: ignore[no-untyped-def]
    """A power of two that brings a Gramian to where products of its entries neither overflow nor vanish."""
    largest = max(M[0, 0], M[1, 1])
    return 1.0 if SMALL < largest < LARGE or largest == 0.0 else math.ldexp(1.0, -math.frexp(largest)[1])
