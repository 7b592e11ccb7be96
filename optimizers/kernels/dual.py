"""Compiled: the conflict-averse dual of one problem, by the finite active-set method of
:mod:`optimizers.dual.active_set`.

The linear systems are solved with a Cholesky factor that grows and shrinks with the support
(:mod:`optimizers.kernels.cholesky`), so that a step costs O(K²). It starts from equal weights on independent gradients.
With Rᵀp = 1 and Rᵀq = b on a support,

    β = R⁻¹(νp − q),   ν = (p·q + √(p·p (r² − c²)))/p·p,   c² = q·q − (p·q)²/p·p,

minimizes f on the affine hull (book/dual.md, "More tasks"). The answer carries its duality gap; the caller turns to
:mod:`optimizers.dual.active_set` for the rare problem that this leaves unsolved (zero gradients, Pareto stationary
points).
"""

import math
from collections import namedtuple

import numpy as np

from optimizers.kernels import columns, floats
from optimizers.kernels.cholesky import append, backward, delete, dot, factorize, forward
from optimizers.kernels.columns import ALPHA, ITERATIONS, MULTIPLIERS, RESIDUAL, RESOLVABLE, VALUE
from optimizers.kernels.compiled import inlined, kernel
from optimizers.kernels.floats import EPS, ROUNDING, SOLVED
from optimizers.kernels.two_tasks import dual_two_tasks
from optimizers.kernels.validity import is_gramian

LEAST_PIVOT = 1e-10
"""The smallest squared pivot of a gradient of length one that counts as independent of the support's."""
REFINED = 4 * EPS
"""Duality gap, relative to f(α), that needs no Newton step."""

start, iteration_limit = inlined(columns.start), inlined(floats.iteration_limit)

Workspace = namedtuple(
    "Workspace",
    "A R b norms inverse pull trial first size p q column beta support inside",
)


@kernel
def solve_rows(problems, rho, tolerance, rows, first, last):
    """Solve the problems first … last − 1 into their rows, as :func:`optimizers.dual.batched.solve_batch`.

    Args:
        problems: (B, K, K) float64.
        rho: relative radius.
        tolerance: of :func:`optimizers.kernels.validity.is_gramian`.
        rows: (B, ·) float64, at least :func:`optimizers.kernels.columns.dual_width` wide.

    Returns:
        How many have a residual above 1e-14, for two tasks beside what rounding makes; −1 where one is no Gramian.
    """
    tasks = problems.shape[1]
    work = workspace(tasks)
    centre = np.full(tasks, 1.0 / tasks)
    unsolved = 0
    for i in range(first, last):
        if not is_gramian(problems[i], work.norms, tolerance):
            return -1
        solve_problem(problems[i], centre, rho, rows[i], work)
        if not rows[i, RESIDUAL] <= SOLVED + (rows[i, RESOLVABLE] if tasks == 2 else 0.0):
            unsolved += 1
    return unsolved


@kernel
def workspace(tasks):
    """Arrays that problems of K tasks are solved in, one after another."""
    A, R = np.empty((tasks, tasks)), np.empty((tasks, tasks))
    v = np.empty((11, tasks))
    return Workspace(
        A, R, v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10],
        np.empty(tasks, np.int64), np.empty(tasks, np.bool_),
    )  # fmt: skip


@kernel
def solve_problem(M, centre, rho, row, work):
    """Solve one problem into the dual's part of a row (:mod:`optimizers.kernels.columns`).

    Args:
        M: (K, K) float64 Gramian, checked; symmetric up to rounding.
        centre: (K,) coefficients of the trust region's centre.
        rho: relative radius.
        row: float64. A residual of infinity says that no answer was found.
        work: of :func:`workspace`.
    """
    tasks = len(M)
    at = start(ALPHA, tasks)
    alpha = row[at : at + tasks]
    at = start(MULTIPLIERS, tasks)
    multipliers = row[at : at + tasks]
    row[VALUE] = row[RESIDUAL] = row[ITERATIONS] = row[RESOLVABLE] = 0.0
    largest = 0.0
    for i in range(tasks):
        largest = max(largest, M[i, i])
    scale = power_of_two_above(largest)
    A, b, norms = work.A, work.b, work.norms
    unit = 1.0 / scale
    for i in range(tasks):
        for j in range(tasks):
            A[i, j] = 0.5 * (M[i, j] * unit + M[j, i] * unit)
        norms[i] = math.sqrt(max(A[i, i], 0.0))
    square, spread = 0.0, 0.0
    for i in range(tasks):
        b[i] = dot(A[i], centre, 0, tasks)
        square += centre[i] * b[i]
        spread += centre[i] * norms[i]
        multipliers[i] = 0.0
    longest = math.sqrt(largest * unit)
    if square <= ROUNDING * spread * spread:
        alpha[:] = 1.0 / tasks
        return
    centre_norm = math.sqrt(square)
    radius = rho * centre_norm

    iterations, size = 0, 0
    if tasks == 1:
        alpha[0] = 1.0
    elif radius == 0.0:
        alpha[:] = 0.0
        alpha[np.argmin(b)] = 1.0
    elif tasks == 2:
        alpha[0], _ = dual_two_tasks(A[0, 0], A[0, 1], A[1, 1], b[0], b[1], radius)
        alpha[1] = 1.0 - alpha[0]
    else:
        iterations, size = _active_set(radius, alpha, work)
        if iterations < 0:
            row[RESIDUAL], row[ITERATIONS] = np.inf, -iterations
            return

    value, length, worst = _certify(A, b, radius, alpha, multipliers)
    for _ in range(3):
        if size == 0 or value - worst <= REFINED * abs(value):
            break
        trial = work.trial
        if not _newton(radius, length, value, alpha, multipliers, trial, work, size):
            break
        better = _certify(A, b, radius, trial, multipliers)
        if not better[0] - better[2] < value - worst:
            break
        value, length, worst = better
        alpha[:] = trial
    pull = radius / length if length > 0.0 else 0.0
    for i in range(tasks):
        multipliers[i] = pull * alpha[i]
    row[VALUE] = value * scale
    row[RESIDUAL] = max(value - worst, 0.0) / (centre_norm * longest)
    row[ITERATIONS] = iterations
    row[RESOLVABLE] = 4.0 * EPS * (longest / length) ** 2 if length > 0.0 else 0.0


@inlined
def power_of_two_above(x):
    """The smallest power of two above x; 1 for 0.

    Example:
        >>> power_of_two_above(3.0), power_of_two_above(0.0)
        (4.0, 1.0)
    """
    return math.ldexp(1.0, math.frexp(x)[1])


@inlined
def _active_set(radius, alpha, work):
    """Fill the minimizer; the number of supports visited, negative where the method gave up, and the support's size."""
    A, R, b, norms, inverse, pull = work.A, work.R, work.b, work.norms, work.inverse, work.pull
    p, q, column, beta, support, inside = work.p, work.q, work.column, work.beta, work.support, work.inside
    tasks = len(b)
    least = norms.min()
    if least <= 0.0:
        return -1, 0
    for i in range(tasks):
        inverse[i] = 1.0 / norms[i]
    inside[:] = False
    k = 0
    if factorize(A, inverse, R, p, q, b, least, LEAST_PIVOT):
        k = tasks
        for j in range(tasks):
            support[j], inside[j] = j, True
    else:
        for j in range(tasks):
            for s in range(k):
                column[s] = A[support[s], j] * inverse[support[s]] * inverse[j]
            if append(R, p, q, column, inverse[j] * least, b[j] * inverse[j], k, LEAST_PIVOT):
                support[k], inside[j] = j, True
                k += 1
    k = _shed(R, p, q, beta, support, inside, radius, k)
    if k == 0:
        best = np.argmin(b + radius * norms)
        append(R, p, q, column, inverse[best] * least, b[best] * inverse[best], 0, LEAST_PIVOT)
        support[0], inside[best], k = best, True, 1
    for i in range(tasks):
        alpha[i] = 1.0 / k if inside[i] else 0.0
    average = norms.mean()

    entering, limit = -1, iteration_limit(tasks)
    for iteration in range(1, limit):
        level, root = _hull_minimizer(R, p, q, beta, radius, k)
        bounded = root > 0.0
        # α of the minimizer on the affine hull, or a direction along which f falls for ever; the first zero on the way.
        length, leaving = np.inf, -1
        for s in range(k):
            i = support[s]
            step = beta[s] * inverse[i] * least
            if bounded:
                step = step / root - alpha[i]
            if i == entering and alpha[i] == 0.0 and step <= 0.0:
                return -iteration, k
            if step < 0.0 and alpha[i] < -step * length:
                length, leaving = -alpha[i] / step, s
        full = bounded and length >= 1.0
        if not full:
            if leaving < 0:
                return -iteration, k
            total = 0.0
            for s in range(k):
                i = support[s]
                step = beta[s] * inverse[i] * least
                if bounded:
                    step = step / root - alpha[i]
                alpha[i] = max(alpha[i] + length * step, 0.0) if s != leaving else 0.0
                total += alpha[i]
            k = _drop(R, p, q, support, inside, leaving, k)
            for s in range(k):
                alpha[support[s]] /= total
            if k == 0:
                return -iteration, k
            continue
        _set_weights(alpha, beta, support, inverse, k)

        for i in range(tasks):
            pull[i] = 0.0
        for s in range(k):
            pull[support[s]] = beta[s] * inverse[support[s]]
        value = level * least
        candidate, worst = -1, ROUNDING
        for i in range(tasks):
            if not inside[i]:
                size = max(norms[i] * average, abs(value))
                violation = (value - (b[i] + dot(A[i], pull, 0, tasks))) / size
                if violation > worst:
                    candidate, worst = i, violation
        if candidate < 0:
            return iteration, k
        entering = candidate
        for s in range(k):
            column[s] = A[support[s], entering] * inverse[support[s]] * inverse[entering]
        e, pulled = inverse[entering] * least, b[entering] * inverse[entering]
        if not append(R, p, q, column, e, pulled, k, LEAST_PIVOT):
            # g_entering = Σ h_s g_s: move along α-weights (−h, 1), which take g_α straight to or from 0.
            backward(R, column, k)
            total = e
            for s in range(k):
                total -= column[s] * inverse[support[s]] * least
            if value == 0.0 or abs(total) <= 1e-8 * e or (value > 0.0) != (total > 0.0):
                return -iteration, k
            length, leaving = np.inf, -1
            toward = 1.0 if value > 0.0 else -1.0
            for s in range(k):
                i = support[s]
                step = toward * (-column[s] * inverse[i] * least / total - alpha[i])
                if step < 0.0 and alpha[i] < -step * length:
                    length, leaving = -alpha[i] / step, s
            if leaving < 0 or (value > 0.0 and length >= 1.0):
                return -iteration, k
            for s in range(k):
                i = support[s]
                step = toward * (-column[s] * inverse[i] * least / total - alpha[i])
                alpha[i] = max(alpha[i] + length * step, 0.0) if s != leaving else 0.0
            alpha[entering] = length * toward * e / total
            k = _drop(R, p, q, support, inside, leaving, k)
            for s in range(k):
                column[s] = A[support[s], entering] * inverse[support[s]] * inverse[entering]
            if not append(R, p, q, column, e, pulled, k, LEAST_PIVOT):
                return -iteration, k
        support[k], inside[entering] = entering, True
        k += 1
    return -limit, k


@inlined
def _hull_minimizer(R, p, q, beta, radius, k):
    """Fill β of the minimizer on the affine hull; f there and Σβ, or 0 for Σβ where β is a direction without end."""
    pp, pq, qq = dot(p, p, 0, k), dot(p, q, 0, k), dot(q, q, 0, k)
    slack = radius * radius - (qq - pq * pq / pp)
    root = math.sqrt(pp * slack) if slack > 0.0 else 0.0
    level = (pq + root) / pp
    for s in range(k):
        beta[s] = level * p[s] - q[s]
    backward(R, beta, k)
    return level, root


@kernel
def _shed(R, p, q, beta, support, inside, radius, k):
    """Find a support to start from: leave out all tasks of negative weight, until there is none; the new size.

    Where f falls without end, few tasks will remain: the size is 0, and the best single task a better start.
    """
    shed = True
    while shed and k > 1:
        _, root = _hull_minimizer(R, p, q, beta, radius, k)
        if root == 0.0:
            inside[:] = False
            return 0
        shed = False
        for s in range(k - 1, -1, -1):
            if beta[s] < 0.0:
                k, shed = _drop(R, p, q, support, inside, s, k), True
    return k


@kernel
def _drop(R, p, q, support, inside, position, k):
    """Take the task at a position out of the support; the new size."""
    inside[support[position]] = False
    delete(R, p, q, position, k)
    for s in range(position, k - 1):
        support[s] = support[s + 1]
    return k - 1


@inlined
def _set_weights(alpha, beta, support, inverse, k):
    """α = β/Σβ on the support; β is scaled by the gradients' norms."""
    total = 0.0
    for s in range(k):
        total += beta[s] * inverse[support[s]]
    for s in range(k):
        alpha[support[s]] = beta[s] * inverse[support[s]] / total


@inlined
def _certify(A, b, radius, alpha, products):
    """f(α), ‖g_α‖ and min_i g_iᵀu for u = centre + r g_α/‖g_α‖; fills ``products`` with all g_iᵀu."""
    tasks = len(b)
    square, value = 0.0, 0.0
    for i in range(tasks):
        products[i] = dot(A[i], alpha, 0, tasks)
        square += alpha[i] * products[i]
        value += alpha[i] * b[i]
    length = math.sqrt(max(square, 0.0))
    pull = radius / length if length > 0.0 else 0.0
    worst = np.inf
    for i in range(tasks):
        products[i] = b[i] + pull * products[i]
        worst = min(worst, products[i])
    return value + radius * length, length, worst


@kernel
def _newton(radius, length, value, alpha, products, trial, work, k):
    """One Newton step on (Mβ + b)_S = v, βᵀMβ = r² with the factor at hand; whether it stays on the simplex."""
    R, norms, inverse, p, support = work.R, work.norms, work.inverse, work.p, work.support
    first, size = work.first, work.size
    pull = radius / length
    for s in range(k):
        i = support[s]
        first[s] = (value - products[i]) * inverse[i]
        size[s] = pull * alpha[i] * norms[i]
    forward(R, first, k)
    # Rβ, so that scalar products below are those of gradients.
    for s in range(k):
        size[s] = size[s] / R[s, s] + dot(R[s], size, s + 1, k)
    shift = -dot(size, first, 0, k) / dot(size, p, 0, k)
    for s in range(k):
        first[s] += shift * p[s]
    backward(R, first, k)
    total = 0.0
    trial[:] = 0.0
    for s in range(k):
        i = support[s]
        trial[i] = pull * alpha[i] + first[s] * inverse[i]
        if not trial[i] >= 0.0:
            return False
        total += trial[i]
    for s in range(k):
        trial[support[s]] /= total
    return True
