"""The gradient log of a training run, as :mod:`sde_mtl.gradient_logs` reads it."""
