"""The conflict-averse dual of CAME-Grad's first stage, solved exactly from the Gramian.

    solve_dual, DualSolution    the solution of any batch of problems on any device
    check_rho                   refuses a trust region that contains 0

Behind it are a compiled method for CPUs (:mod:`optimizers.kernels.dual`, run by :mod:`optimizers.dual.on_cpu`) and a
batched one in torch (:mod:`optimizers.dual.batched`, :mod:`optimizers.dual.active_set`, :mod:`optimizers.dual.cone`).
"""

from optimizers.dual.solve import DualSolution, check_rho, solve_dual

__all__ = ["DualSolution", "check_rho", "solve_dual"]
