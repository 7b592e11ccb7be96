"""Counter-based normals: the number at (seed, path, step, component) depends on nothing else.

``normals`` draws them, compiled on the CPU; :mod:`sde_mtl.random.philox_kernel` draws them inside other kernels.
"""

from sde_mtl.random._normals import MASK, key_words, normals, normals_in_pairs, philox, portable_normals

__all__ = ["MASK", "key_words", "normals", "normals_in_pairs", "philox", "portable_normals"]
