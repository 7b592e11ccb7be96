"""Compiled: the Cholesky factor R of a growing and shrinking principal submatrix, M_SS = RᵀR, and solves with it.

``R`` is (K, K) storage of which the leading k×k upper triangle is used, with the *reciprocals* of the diagonal on the
diagonal. Rows are contiguous, so that forward solves and rotations run along them. ``p`` and ``q`` are solutions of
Rᵀp = e and Rᵀq = b that follow every change of the support.
"""

import math
from functools import partial

from optimizers.kernels.compiled import inlined, kernel


@partial(kernel, forceinline=True, fastmath={"reassoc", "contract"})
def dot(x, y, first, last):
    """Σ x_i y_i over first ≤ i < last, summed in any order."""
    total = 0.0
    for i in range(first, last):
        total += x[i] * y[i]
    return total


@inlined
def forward(R, x, k):
    """Solve Rᵀx' = x in place."""
    for s in range(k):
        factor = x[s] * R[s, s]
        x[s] = factor
        for t in range(s + 1, k):
            x[t] -= factor * R[s, t]


@inlined
def backward(R, x, k):
    """Solve Rx' = x in place."""
    for s in range(k - 1, -1, -1):
        x[s] = (x[s] - dot(R[s], x, s + 1, k)) * R[s, s]


@inlined
def factorize(A, inverse, R, p, q, b, unit, least):
    """R, p and q of all tasks at once, for A scaled to unit diagonal, e = unit·inverse and b·inverse.

    Args:
        A: (K, K).
        inverse: (K,) reciprocals of the norms.
        least: the smallest squared pivot accepted.

    Returns:
        Whether all pivots were accepted; if not, R, p and q are of no use.
    """
    tasks = len(A)
    for i in range(tasks):
        for j in range(i, tasks):
            R[i, j] = A[i, j] * inverse[i] * inverse[j]
        p[i], q[i] = unit * inverse[i], b[i] * inverse[i]
    for i in range(tasks):
        if not R[i, i] > least:
            return False
        reciprocal = 1.0 / math.sqrt(R[i, i])
        R[i, i] = reciprocal
        p[i] *= reciprocal
        q[i] *= reciprocal
        for j in range(i + 1, tasks):
            R[i, j] *= reciprocal
        for j in range(i + 1, tasks):
            factor = R[i, j]
            for t in range(j, tasks):
                R[j, t] -= factor * R[i, t]
            p[j] -= factor * p[i]
            q[j] -= factor * q[i]
    return True


@inlined
def append(R, p, q, column, e, b, k, least):
    """Append a row of unit diagonal to M_SS; ``column`` (M_Sj on entry) becomes the new column of R.

    Args:
        e, b: the new entries of the right-hand sides of p and q.
        k: size of the support before.
        least: the smallest squared pivot accepted.

    Returns:
        Whether the pivot was accepted; if not, only ``column`` has changed.
    """
    forward(R, column, k)
    pivot = 1.0 - dot(column, column, 0, k)
    if not pivot > least:
        return False
    reciprocal = 1.0 / math.sqrt(pivot)
    for s in range(k):
        R[s, k] = column[s]
    R[k, k] = reciprocal
    p[k] = (e - dot(column, p, 0, k)) * reciprocal
    q[k] = (b - dot(column, q, 0, k)) * reciprocal
    return True


@kernel
def delete(R, p, q, position, k):
    """Delete one of k rows and columns of M_SS, by Givens rotations."""
    for s in range(position):
        for t in range(position, k - 1):
            R[s, t] = R[s, t + 1]
    for t in range(position, k - 1):
        R[position, t] = R[position, t + 1]
    for s in range(position, k - 1):
        a, b = R[s, s], 1.0 / R[s + 1, s + 1]
        for t in range(s + 1, k - 1):
            R[s + 1, t] = R[s + 1, t + 1]
        reciprocal = 1.0 / math.sqrt(a * a + b * b)
        cosine, sine = a * reciprocal, b * reciprocal
        R[s, s] = reciprocal
        for t in range(s + 1, k - 1):
            a, b = R[s, t], R[s + 1, t]
            R[s, t] = cosine * a + sine * b
            R[s + 1, t] = cosine * b - sine * a
        p[s], p[s + 1] = cosine * p[s] + sine * p[s + 1], cosine * p[s + 1] - sine * p[s]
        q[s], q[s + 1] = cosine * q[s] + sine * q[s + 1], cosine * q[s + 1] - sine * q[s]
