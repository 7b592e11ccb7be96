"""Sequential quadratic programming from the uniform start, the way of CAGrad's authors and of LibMTL.

The objective is on the raw Gramian, with their 1e-8 under each root, and its derivative is left to finite differences.
"""

import numpy as np
from scipy.optimize import minimize

from peers.dual_problem import Answer, Array, DualProblem, Solver, coefficients

PACKAGES = ("scipy",)
SMALL = 1e-8


def solvers(tasks: int, rho: float) -> dict[str, Solver]:
    uniform = np.full(tasks, 1.0 / tasks)
    simplex = {"type": "eq", "fun": lambda alpha: 1.0 - alpha.sum()}
    bounds = [(0.0, 1.0)] * tasks

    def solve(problem: DualProblem) -> Answer:
        M = problem.array
        b = M @ uniform
        radius = rho * np.sqrt(M.mean() + SMALL) + SMALL

        def objective(alpha: Array) -> float:
            return alpha @ b + radius * np.sqrt(alpha @ M @ alpha + SMALL)

        alpha = minimize(objective, uniform, method="SLSQP", bounds=bounds, constraints=simplex).x
        return lambda: coefficients(M, alpha, radius)

    return {"SLSQP": solve}
