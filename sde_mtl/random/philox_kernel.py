"""Philox4x32-10 and Box–Muller as compiled kernels: :func:`sde_mtl.random.normals` on the CPU, many lanes at
once.

Import only where called: numba compiles on first use and keeps the result on disk.
"""

import numpy as np

from optimizers.kernels.compiled import inlined, kernel
from sde_mtl.random.box_muller import box_muller

LANES = 64
"""Paths advanced side by side: a few vector registers a variable, and all of a step in the first-level cache."""

MULTIPLIER0, MULTIPLIER1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL0, WEYL1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
WORD = np.uint64(32)


@inlined
def philox(x0, x1, x2, x3, key0, key1):
    """Four words from four counter words and two key words, all uint32; see :func:`sde_mtl.random.philox`."""
    for _ in range(10):
        first, second = np.uint64(x0) * MULTIPLIER0, np.uint64(x2) * MULTIPLIER1
        x0, x1, x2, x3 = (
            np.uint32(np.uint32(second >> WORD) ^ x1 ^ key0),
            np.uint32(second),
            np.uint32(np.uint32(first >> WORD) ^ x3 ^ key1),
            np.uint32(first),
        )
        key0, key1 = np.uint32(key0 + WEYL0), np.uint32(key1 + WEYL1)
    return x0, x1, x2, x3


@kernel
def draw(z, paths, step, key0, key1):
    """Normals of one step for LANES uint32 path numbers.

    Args:
        z: (4·blocks·LANES,) float32 or float64, filled; component i of a lane is z[i·LANES + lane]. It is flat so that
            the distance of two components is a constant, without which LLVM cannot tell their stores apart.
    """
    zero = z.dtype.type(0)
    for block in range(len(z) // (4 * LANES)):
        at = 4 * LANES * block
        for lane in range(LANES):
            a, b, c, d = philox(paths[lane], step, np.uint32(block), np.uint32(0), key0, key1)
            z[at + lane], z[at + LANES + lane] = box_muller(a, b, zero)
            z[at + 2 * LANES + lane], z[at + 3 * LANES + lane] = box_muller(c, d, zero)


@kernel
def fill_normals(out, paths, step, key0, key1):
    """Normals of any paths into out (n, components), float32 or float64; paths (n,) int64."""
    n, components = out.shape
    z = np.empty(4 * ((components + 3) // 4) * LANES, out.dtype)
    numbers = np.empty(LANES, np.uint32)
    for begin in range(0, n, LANES):
        size = min(LANES, n - begin)
        for lane in range(LANES):
            numbers[lane] = np.uint32(paths[begin + min(lane, size - 1)])
        draw(z, numbers, step, key0, key1)
        for lane in range(size):
            for component in range(components):
                out[begin + lane, component] = z[component * LANES + lane]
