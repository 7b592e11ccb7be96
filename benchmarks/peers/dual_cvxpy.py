"""cvxpy with one parametrized problem for each K, canonicalized once (DPP), solved by Clarabel."""

import cvxpy as cp
import numpy as np

from peers.dual_problem import Answer, DualProblem, Solver, coefficients, factor

PACKAGES = ("cvxpy", "clarabel")


def solvers(tasks: int, rho: float) -> dict[str, Solver]:
    alpha = cp.Variable(tasks, nonneg=True)
    linear, root = cp.Parameter(tasks), cp.Parameter((tasks, tasks))
    compiled = cp.Problem(cp.Minimize(linear @ alpha + cp.norm(root @ alpha)), [cp.sum(alpha) == 1])

    def solve(problem: DualProblem) -> Answer:
        M = problem.array / np.trace(problem.array)
        radius = rho * np.sqrt(M.mean())
        linear.value = M.mean(1)
        root.value = radius * factor(M).T
        compiled.solve(solver=cp.CLARABEL, ignore_dpp=False)
        found = alpha.value
        return lambda: coefficients(M, found, radius)

    return {"cvxpy, cached DPP": solve}
