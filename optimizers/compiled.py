"""How kernels are compiled: by numba on first use, kept on disk beside the source, run without the interpreter lock."""

from numba import njit

kernel = njit(cache=True, nogil=True, error_model="numpy")
