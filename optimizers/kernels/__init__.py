"""What is compiled, by numba on first use; only :mod:`optimizers.kernels.threads` knows torch."""
