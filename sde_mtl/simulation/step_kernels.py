"""Many steps of many paths in one call, as compiled kernels; :mod:`sde_mtl.simulation.fused` prepares their arguments.

Paths go in groups of LANES, coordinates in rows, so that every inner loop is a vector loop over paths. A path's
arithmetic does not depend on its place, its company or how the steps are divided into calls. Import only where called.
"""

import numpy as np

from optimizers.kernels.compiled import kernel
from optimizers.kernels.floats import LARGE, SMALL
from optimizers.kernels.two_tasks import stages_two_tasks
from sde_mtl.random.philox_kernel import LANES, draw
from sde_mtl.simulation.gradient_kernels import CAGRAD_TOY, DOUBLE_WELL, add_product, cagrad_toy, double_well, quadratic

UP, DOWN = 2.0**500, 2.0**-500


@kernel
def load(x, live, paths, theta, alive, begin, first_path):
    """LANES rows of theta from ``begin`` on; past the end, a path at 0 that nobody reads."""
    for lane in range(LANES):
        inside = begin + lane < len(theta)
        paths[lane] = np.uint32(first_path + begin + lane)
        live[lane] = 1 if inside and alive[begin + lane] else 0
        for row in range(len(x)):
            x[row, lane] = theta[begin + lane, row] if inside else 0


@kernel
def store(x, live, theta, alive, begin):
    for lane in range(min(LANES, len(theta) - begin)):
        alive[begin + lane] = live[lane] > 0
        for row in range(len(x)):
            theta[begin + lane, row] = x[row, lane]


@kernel
def settle(x, change, live, bound):
    """x += change; a path that is NaN or not below the bound rests at 0 from now on."""
    for row in range(len(x)):
        for lane in range(LANES):
            x[row, lane] += change[row, lane]
            live[lane] = live[lane] if abs(x[row, lane]) < bound else 0
    for row in range(len(x)):
        for lane in range(LANES):
            x[row, lane] = x[row, lane] if live[lane] > 0 else 0


@kernel
def advance_linear(theta, alive, first_path, step, count, keys, bound, drift, noise):
    """θ += b + Aθ + Bz, ``count`` times, z standard normal.

    Args:
        theta: (n, d) float32 or float64, in place.
        alive: (n,) bool, in place.
        first_path: number of the first path.
        step, count: first step and number of steps.
        keys: two uint32.
        bound: of every |coordinate|.
        drift: b (d,), then A (d, d) as values, columns, starts, in theta's dtype.
        noise: number of normals, whether they come as :func:`sde_mtl.random.normals_in_pairs`, then B (d, ·) as
            values, columns, starts.
    """
    offset, drift_values, drift_columns, drift_starts = drift
    normals, in_pairs, noise_values, noise_columns, noise_starts = noise
    d = theta.shape[1]
    x, change, live = np.empty((d, LANES), theta.dtype), np.empty((d, LANES), theta.dtype), np.empty(LANES, theta.dtype)
    z, paths = np.empty((4 * ((normals + 3) // 4), LANES), theta.dtype), np.empty(LANES, np.uint32)
    for begin in range(0, len(theta), LANES):
        load(x, live, paths, theta, alive, begin, first_path)
        for now in range(step, step + count):
            second = now % 2 if in_pairs else 0
            if not second or now == step:
                draw(z.reshape(-1), paths, np.uint32(now // 2 if in_pairs else now), keys[0], keys[1])
            for row in range(d):
                for lane in range(LANES):
                    change[row, lane] = offset[row]
            add_product(change, drift_values, drift_columns, drift_starts, x)
            add_product(change, noise_values, noise_columns, noise_starts, z[2 * second :])
            settle(x, change, live, bound)
        store(x, live, theta, alive, begin)


@kernel
def coefficients(c, g, weights, options):
    """CAME-Grad's coefficients (2, LANES) float64 from the gradients (2d, LANES) of two tasks."""
    d = len(g) // 2
    rho, kappa, nu, weighted, adaptive = options
    w1, w2 = weights[0], weights[1]
    m = np.zeros((3, LANES))
    for a in range(d):
        for lane in range(LANES):
            first, second = np.float64(g[a, lane]), np.float64(g[d + a, lane])
            m[0, lane] += first * first
            m[1, lane] += first * second
            m[2, lane] += second * second
    for lane in range(LANES):  # coefficients do not depend on the scale of the gradients
        largest = max(m[0, lane], m[2, lane])
        unit = UP if largest < SMALL else (DOWN if largest > LARGE else 1.0)
        m[0, lane] *= unit
        m[1, lane] *= unit
        m[2, lane] *= unit
    # Two loops with a literal each, for LLVM to vectorize both.
    if adaptive:
        for lane in range(LANES):
            stages = stages_two_tasks(m[0, lane], m[1, lane], m[2, lane], w1, w2, rho, kappa, nu, weighted, True)
            c[0, lane], c[1, lane] = stages.c1, stages.c2
    else:
        for lane in range(LANES):
            stages = stages_two_tasks(m[0, lane], m[1, lane], m[2, lane], w1, w2, rho, kappa, nu, weighted, False)
            c[0, lane], c[1, lane] = stages.c1, stages.c2


@kernel
def advance_recursion(theta, alive, first_path, step, count, keys, bound, problem, noise, rule):
    """θ −= ηGᵀc with observed gradients G of two tasks, ``count`` times; arguments as in :func:`advance_linear`, and

    Args:
        problem: its kind, parameters (4,) float64, centres (2d,), A (2d, 2d) as values, columns, starts.
        noise: its factor (2d, 2d) as values, columns, starts.
        rule: learning rate, task weights (2,) float64, whether c is CAME-Grad's (else the weights), its options.
    """
    kind, parameters, centres, curvature_values, curvature_columns, curvature_starts = problem
    noise_values, noise_columns, noise_starts = noise
    learning_rate, weights, came_grad, options = rule
    d = theta.shape[1]
    x, change, live = np.empty((d, LANES), theta.dtype), np.empty((d, LANES), theta.dtype), np.empty(LANES, theta.dtype)
    g, c, paths = np.empty((2 * d, LANES), theta.dtype), np.empty((2, LANES)), np.empty(LANES, np.uint32)
    z = np.empty((4 * ((2 * d + 3) // 4), LANES), theta.dtype)
    offset = np.empty((2 * d, LANES), theta.dtype)
    for lane in range(LANES):
        c[0, lane], c[1, lane] = weights[0], weights[1]
    for begin in range(0, len(theta), LANES):
        load(x, live, paths, theta, alive, begin, first_path)
        for now in range(step, step + count):
            draw(z.reshape(-1), paths, np.uint32(now), keys[0], keys[1])
            if kind == DOUBLE_WELL:
                double_well(g, parameters, x)
            elif kind == CAGRAD_TOY:
                cagrad_toy(g, parameters[0], x)
            else:
                quadratic(g, curvature_values, curvature_columns, curvature_starts, centres, x, offset)
            add_product(g, noise_values, noise_columns, noise_starts, z)
            if came_grad:
                coefficients(c, g, weights, options)
            for row in range(d):
                for lane in range(LANES):
                    update = c[0, lane] * g[row, lane] + c[1, lane] * g[d + row, lane]
                    change[row, lane] = -learning_rate * update
            settle(x, change, live, bound)
        store(x, live, theta, alive, begin)
