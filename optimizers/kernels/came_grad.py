"""Compiled: the three stages of CAME-Grad, one problem after another; see :func:`optimizers.came_grad`."""

import math

import numpy as np

from optimizers.kernels import columns
from optimizers.kernels.columns import (
    ALPHA,
    COEFFICIENTS,
    ENHANCED,
    FUSION,
    ITERATIONS,
    MULTIPLIERS,
    RECTIFIED,
    RESIDUAL,
    RESOLVABLE,
    VALID,
    VALUE,
)
from optimizers.kernels.compiled import inlined, kernel
from optimizers.kernels.dual import power_of_two_above, solve_problem, start, workspace
from optimizers.kernels.floats import LARGE, ROUNDING, SMALL, SOLVED, UNSIGNED
from optimizers.kernels.fusion import adaptive, narrowed
from optimizers.kernels.two_tasks import stages_two_tasks
from optimizers.kernels.validity import is_gramian

dual_width, stages_width = inlined(columns.dual_width), inlined(columns.stages_width)


@kernel
def stage_rows(problems, weights, rho, kappa, nu, weighted, adapted, tolerance, rows, first, last):
    """Fill the rows first … last − 1 with all that leads to the update, see :mod:`optimizers.kernels.columns`.

    Args:
        problems: (B, K, K) float64.
        weights: (1 or B, K) float64, ≥ 0, not all zero.
        rho, kappa, nu: as for :func:`optimizers.came_grad`.
        weighted: whether the centre is the weighted one (theory T7).
        adapted: whether fusion is adaptive (theory T9).
        tolerance: of :func:`optimizers.kernels.validity.is_gramian`.
        rows: (B, :func:`optimizers.kernels.columns.stages_width`) float64.

    Returns:
        How many have a residual above 1e-14, for two tasks beside what rounding makes; −1 where one is no Gramian.
    """
    scratch = _scratch(problems.shape[1])
    unsolved = 0
    for i in range(first, last):
        w = weights[i if len(weights) > 1 else 0]
        if not _stages(problems[i], w, rho, kappa, nu, weighted, adapted, tolerance, rows[i], scratch):
            return -1
        if not rows[i, RESIDUAL] <= SOLVED + (rows[i, RESOLVABLE] if len(w) == 2 else 0.0):
            unsolved += 1
    return unsolved


@kernel
def coefficient_rows(problems, weights, rho, kappa, nu, weighted, adapted, tolerance, rows, first, last):
    """Fill the rows first … last − 1 with the coefficients of the update alone, NaN where the residual is above 1e-14.

    Args:
        rows: (B, K) float64.

    The other arguments and the number returned are those of :func:`stage_rows`.
    """
    tasks = problems.shape[1]
    scratch, row, at = _scratch(tasks), np.empty(stages_width(tasks)), start(COEFFICIENTS, tasks)
    unsolved = 0
    for i in range(first, last):
        M, w = problems[i], weights[i if len(weights) > 1 else 0]
        if tasks == 2:
            if not is_gramian(M, row, tolerance):
                return -1
            stages, _ = _two_tasks(M, w, rho, kappa, nu, weighted, adapted)
            rows[i, 0], rows[i, 1] = stages.c1, stages.c2
            residual = stages.residual - stages.resolvable  # a closed form has no better answer to turn to
        else:
            if not _stages(M, w, rho, kappa, nu, weighted, adapted, tolerance, row, scratch):
                return -1
            for k in range(tasks):
                rows[i, k] = row[at + k]
            residual = row[RESIDUAL]
        if not residual <= SOLVED:
            rows[i, 0] = math.nan
            unsolved += 1
    return unsolved


@inlined
def _scratch(tasks):
    """Arrays that :func:`_stages` works in: of the solver, ‖g_i‖, 1/K, who takes part, their Gramian and solution."""
    return (
        workspace(tasks), np.empty(tasks), np.full(tasks, 1.0 / tasks), np.empty(tasks, np.int64),
        np.empty((tasks, tasks)), np.empty(dual_width(tasks)),
    )  # fmt: skip


@inlined
def _stages(M, w, rho, kappa, nu, weighted, adapted, tolerance, row, scratch):
    """All stages of one problem; whether it is a Gramian at all."""
    work, norms, centre, taking, part, solved = scratch
    tasks = len(M)
    if not is_gramian(M, norms, tolerance):
        return False
    if tasks == 2:
        _fill_two_tasks(M, w, rho, kappa, nu, weighted, adapted, row)
        return True
    alpha, multipliers, rectified = start(ALPHA, tasks), start(MULTIPLIERS, tasks), start(RECTIFIED, tasks)
    if not weighted:
        solve_problem(M, centre, rho, row, work)
        for k in range(tasks):
            row[rectified + k] = centre[k] + row[multipliers + k]
    else:
        # On ω_i g_i (theory T7); a task of weight zero takes no part, but K still counts it. Not a function of its own:
        # to hand all these arrays on would cost a tenth of a microsecond, for two tasks as well.
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
            row[:alpha] = solved[:alpha]
            row[alpha:rectified] = 0.0
            for a in range(active):
                row[alpha + taking[a]] = solved[start(ALPHA, active) + a]
                row[multipliers + taking[a]] = solved[start(MULTIPLIERS, active) + a]
        for k in range(tasks):
            row[rectified + k] = w[k] * (centre[k] + row[multipliers + k])
    _enhance_and_fuse(M, norms, w, kappa, nu, weighted, adapted, row)
    return True


@kernel
def _enhance_and_fuse(M, norms, w, kappa, nu, weighted, adapted, row):
    """Stages 2 and 3 of a row whose dual and rectified coefficients are known."""
    tasks = len(M)
    at = start(RECTIFIED, tasks)
    rectified = row[at : at + tasks]
    at = start(ENHANCED, tasks)
    enhanced = row[at : at + tasks]
    at = start(COEFFICIENTS, tasks)
    fused = row[at : at + tasks]
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
    if adapted:
        nu = adaptive_fusion(M, w, kappa, enhanced, nu)
    for i in range(tasks):
        fused[i] = (1.0 - nu) * enhanced[i] + nu * kappa * w[i]
    row[FUSION], row[VALID] = nu, _is_valid(row[VALUE], largest)


@kernel
def adaptive_fusion(M, w, kappa, enhanced, limit):
    """The largest ν ≤ limit that harms no task (theory T9); ``limit`` where there is none."""
    lower, upper, harmed = 0.0, limit, False
    for i in range(len(M)):
        e, j = 0.0, 0.0
        for k in range(len(M)):
            entry = 0.5 * (M[i, k] + M[k, i])
            e += entry * enhanced[k]
            j += entry * kappa * w[k]
        lower, upper, harmed = narrowed(lower, upper, harmed, e, j)
    return adaptive(lower, upper, harmed, limit)


@inlined
def _is_valid(value, largest):
    """1 if f(α*) ≥ 0 up to rounding (theory T5), else 0; ``largest`` is the largest squared gradient."""
    return 1.0 if value >= -UNSIGNED * largest else 0.0


@inlined
def _two_tasks(M, w, rho, kappa, nu, weighted, adapted):
    """The closed form for unit·M; and unit, a power of two at which products of entries neither overflow nor vanish."""
    largest = max(M[0, 0], M[1, 1])
    unit = 1.0 if SMALL < largest < LARGE or largest == 0.0 else 1.0 / power_of_two_above(largest)
    stages = stages_two_tasks(
        unit * M[0, 0], 0.5 * (unit * M[0, 1] + unit * M[1, 0]), unit * M[1, 1], w[0], w[1],
        rho, kappa, nu, weighted, adapted,
    )  # fmt: skip
    return stages, unit


@inlined
def _fill_two_tasks(M, w, rho, kappa, nu, weighted, adapted, row):
    """The row of two tasks."""
    stages, unit = _two_tasks(M, w, rho, kappa, nu, weighted, adapted)
    row[VALUE], row[RESIDUAL] = stages.value / unit, stages.residual
    row[ITERATIONS], row[RESOLVABLE] = 0.0, stages.resolvable
    _put(row, ALPHA, stages.alpha, 1.0 - stages.alpha)
    _put(row, MULTIPLIERS, stages.beta1, stages.beta2)
    _put(row, RECTIFIED, stages.u1, stages.u2)
    _put(row, ENHANCED, stages.e1, stages.e2)
    _put(row, COEFFICIENTS, stages.c1, stages.c2)
    row[FUSION], row[VALID] = stages.nu, _is_valid(stages.value, unit * max(M[0, 0], M[1, 1]))


@inlined
def _put(row, vector, first, second):
    """Write a vector of two tasks."""
    at = start(vector, 2)
    row[at], row[at + 1] = first, second
