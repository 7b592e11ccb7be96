"""Compiled: inner products and weighted sums of task gradients where they lie, parameter by parameter.

Gradients are given by their addresses, (P, K) uint64, 0 where a task does not reach a parameter. Those of one parameter
are ``sizes[p]`` consecutive entries each, in the same order. The caller keeps them alive.
"""

from functools import partial

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from optimizers.kernels.compiled import kernel

BLOCK = 4096
"""Entries of each task that are worked on at a time, so that they are read from memory once."""

# A sum over entries may be taken in any order, so that it is vectorised; NaN and infinities are kept.
reduction = partial(kernel, fastmath={"reassoc", "contract"})


@intrinsic
def _pointer(typing_context, address, kind):
    target = types.CPointer(kind.dtype)

    def cast(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(target))

    return target(address, kind), cast


@kernel
def _entries(address, first, count, kind):
    """``count`` entries from the ``first``-th on, of the dtype of ``kind``."""
    return carray(_pointer(address + np.uint64(first * kind.itemsize), kind), count)


@reduction
def _two(x, y):
    """x·x, x·y, y·y in float64."""
    xx, xy, yy = 0.0, 0.0, 0.0
    for j in range(len(x)):
        a, b = np.float64(x[j]), np.float64(y[j])
        xx += a * a
        xy += a * b
        yy += b * b
    return xx, xy, yy


@reduction
def _four(x, y, v, w):
    """x·v, x·w, y·v, y·w in float64."""
    xv, xw, yv, yw = 0.0, 0.0, 0.0, 0.0
    for j in range(len(x)):
        a, b, c, d = np.float64(x[j]), np.float64(y[j]), np.float64(v[j]), np.float64(w[j])
        xv += a * c
        xw += a * d
        yv += b * c
        yw += b * d
    return xv, xw, yv, yw


@kernel
def gramian_range(addresses, sizes, kind, first, last):
    """(K, K) float64 Gramian of entries first … last − 1, counted over all parameters, exactly symmetric.

    Args:
        addresses, sizes: as above; (P, K) uint64 and (P,) int64.
        kind: an array of the gradients' dtype, float32 or float64.
    """
    parameters, tasks = addresses.shape
    total = np.zeros((tasks, tasks))
    present = np.empty(tasks + 1, np.int64)
    begin = 0
    for p in range(parameters):
        lower, upper = max(first - begin, 0), min(last - begin, sizes[p])
        begin += sizes[p]
        if lower >= upper:
            continue
        count = _present(addresses[p], present)
        present[count] = present[max(count - 1, 0)]  # the last of an odd number is paired with itself
        for at in range(lower, upper, BLOCK):
            n = min(BLOCK, upper - at)
            for i in range(0, count, 2):
                a, b = present[i], present[i + 1]
                x, y = _entries(addresses[p, a], at, n, kind), _entries(addresses[p, b], at, n, kind)
                aa, ab, bb = _two(x, y)
                total[a, a] += aa
                if a != b:
                    total[b, a] += ab
                    total[b, b] += bb
                for j in range(0, i, 2):
                    c, d = present[j], present[j + 1]
                    v, w = _entries(addresses[p, c], at, n, kind), _entries(addresses[p, d], at, n, kind)
                    ac, ad, bc, bd = _four(x, y, v, w)
                    total[a, c] += ac
                    total[a, d] += ad
                    if a != b:
                        total[b, c] += bc
                        total[b, d] += bd
    for i in range(tasks):
        for j in range(i):
            total[j, i] = total[i, j]
    return total


@kernel
def weighted_sum_range(addresses, sizes, factors, outputs, kind, first, last):
    """Write Σ c_k g_k, summed in float64, of entries first … last − 1 to the (P,) addresses ``outputs``."""
    parameters, tasks = addresses.shape
    present = np.empty(tasks + 1, np.int64)
    sums = np.empty(BLOCK)
    begin = 0
    for p in range(parameters):
        lower, upper = max(first - begin, 0), min(last - begin, sizes[p])
        begin += sizes[p]
        if lower >= upper:
            continue
        count = _present(addresses[p], present)
        for at in range(lower, upper, BLOCK):
            n = min(BLOCK, upper - at)
            out = _entries(outputs[p], at, n, kind)
            if count == 1:
                _scale(_entries(addresses[p, present[0]], at, n, kind), factors[present[0]], out)
                continue
            sums[:] = 0.0
            for i in range(0, count - 1, 2):
                a, b = present[i], present[i + 1]
                x, y = _entries(addresses[p, a], at, n, kind), _entries(addresses[p, b], at, n, kind)
                _add_two(x, factors[a], y, factors[b], sums)
            if count % 2:
                a = present[count - 1]
                _add(_entries(addresses[p, a], at, n, kind), factors[a], sums)
            for j in range(n):
                out[j] = sums[j]
    return 0


@kernel
def _present(addresses, present):
    """List the tasks with an address in ``present``; how many."""
    count = 0
    for k in range(len(addresses)):
        if addresses[k] != 0:
            present[count] = k
            count += 1
    return count


@kernel
def _scale(x, factor, out):
    for j in range(len(x)):
        out[j] = factor * x[j]


@kernel
def _add(x, factor, sums):
    for j in range(len(x)):
        sums[j] += factor * x[j]


@kernel
def _add_two(x, of_x, y, of_y, sums):
    for j in range(len(x)):
        sums[j] += of_x * x[j] + of_y * y[j]
