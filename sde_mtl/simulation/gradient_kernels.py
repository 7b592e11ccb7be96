"""Gradients of the built-in problems of K = 2 tasks for LANES paths side by side, as compiled kernels.

Coordinates are rows: x (d, LANES), and g (2d, LANES) with component a of task k in row k·d + a. Import only where
called.
"""

import math

from optimizers.kernels.compiled import inlined, kernel
from sde_mtl.random.philox_kernel import LANES

QUADRATIC, DOUBLE_WELL, CAGRAD_TOY = range(3)


@kernel
def add_product(y, values, columns, starts, x):
    """y += Mx for M in compressed sparse rows; four columns at a time, and two rows of all columns at a time, to read
    and write x and y less often."""
    row, rows, width = 0, len(starts) - 1, len(x)
    while row < rows:
        at, end = starts[row], starts[row + 1]
        if row + 1 < rows and end - at == width and starts[row + 2] - end == width:
            _add_two_rows(y, row, values, at, end, x)
            row += 2
            continue
        while at + 4 <= end:
            a, b, c, d = values[at], values[at + 1], values[at + 2], values[at + 3]
            i, j, k, m = columns[at], columns[at + 1], columns[at + 2], columns[at + 3]
            for lane in range(LANES):
                y[row, lane] += (a * x[i, lane] + b * x[j, lane]) + (c * x[k, lane] + d * x[m, lane])
            at += 4
        while at < end:
            value, column = values[at], columns[at]
            for lane in range(LANES):
                y[row, lane] += value * x[column, lane]
            at += 1
        row += 1


@inlined
def _add_two_rows(y, row, values, first, second, x):
    """Two full rows of M, whose values begin at ``first`` and ``second``."""
    column = 0
    while column + 4 <= len(x):
        a, b, c, d = values[first], values[first + 1], values[first + 2], values[first + 3]
        e, f, g, h = values[second], values[second + 1], values[second + 2], values[second + 3]
        for lane in range(LANES):
            i, j, k, m = x[column, lane], x[column + 1, lane], x[column + 2, lane], x[column + 3, lane]
            y[row, lane] += (a * i + b * j) + (c * k + d * m)
            y[row + 1, lane] += (e * i + f * j) + (g * k + h * m)
        first, second, column = first + 4, second + 4, column + 4
    while column < len(x):
        a, e = values[first], values[second]
        for lane in range(LANES):
            y[row, lane] += a * x[column, lane]
            y[row + 1, lane] += e * x[column, lane]
        first, second, column = first + 1, second + 1, column + 1


@kernel
def quadratic(g, values, columns, starts, centres, x, offset):
    """g = A_k(x − c_k), A block diagonal in compressed sparse rows, centres (2d,); offset (2d, LANES) is scratch."""
    for row in range(len(g)):
        at = row % len(x)
        for lane in range(LANES):
            offset[row, lane] = x[at, lane] - centres[row]
            g[row, lane] = 0
    add_product(g, values, columns, starts, offset)


@kernel
def double_well(g, parameters, x):
    """:meth:`sde_mtl.problems.landscapes.DoubleWell.gradients`; parameters: height, sharp, flat, offset, float64."""
    height, sharp, flat, offset = parameters[0], parameters[1], parameters[2], parameters[3]
    two = len(x) == 2
    for lane in range(LANES):
        at = float(x[0, lane])
        slope = 2.0 * height * at * (at * at - 1.0)
        if two:
            gate = 1.0 / (1.0 + math.exp(-4.0 * at))
            curvature = sharp + (flat - sharp) * gate
            change = (flat - sharp) * 4.0 * gate * (1.0 - gate)
            near, far = x[1, lane] - offset, x[1, lane] + offset
            g[0, lane], g[1, lane] = slope + 0.25 * change * near * near, 0.5 * curvature * near
            g[2, lane], g[3, lane] = slope + 0.25 * change * far * far, 0.5 * curvature * far
        else:
            g[0, lane], g[1, lane] = slope, slope


@kernel
def cagrad_toy(g, floor, x):
    """:meth:`sde_mtl.problems.landscapes.CAGradToy.gradients`, by hand."""
    for lane in range(LANES):
        a, b = float(x[0, lane]), float(x[1, lane])
        half, whole = math.tanh(0.5 * b), math.tanh(b)
        above, below = max(half, 0.0), max(-half, 0.0)
        slope = 0.5 * (1.0 - half * half)
        rise, fall = (slope if half >= 0.0 else 0.0), (-slope if half <= 0.0 else 0.0)
        steep = 1.0 - whole * whole
        for task in range(2):
            wall = whole - 0.5 * a + (-3.5 if task == 0 else 3.5)
            size = max(abs(wall), floor)
            inverse = 1.0 / wall if abs(wall) >= floor else 0.0
            reach = a - 7.0 if task == 0 else a + 7.0
            bowl = 0.1 * (reach * reach + 0.1 * (b + 8.0) * (b + 8.0)) - 20.0
            g[2 * task, lane] = -0.5 * inverse * above + 0.2 * reach * below
            g[2 * task + 1, lane] = (
                inverse * steep * above + (math.log(size) + 6.0) * rise + 0.02 * (b + 8.0) * below + bowl * fall
            )
