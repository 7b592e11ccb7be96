"""Clarabel called directly on min bᵀα + rt subject to α ∈ Δ, ‖Lᵀα‖ ≤ t, with M = LLᵀ of trace one.

Once with matrices and solver built anew for each Gramian, and once with all of that kept and only the numbers replaced:
no presolve, no equilibration and no iterative refinement, which were measured to cost time here and gain no accuracy.
"""

import clarabel
import numpy as np
from scipy import sparse

from peers.dual_problem import Answer, Array, DualProblem, Solver, coefficients, factor

PACKAGES = ("clarabel", "scipy")


def solvers(tasks: int, rho: float) -> dict[str, Solver]:
    cones = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(tasks), clarabel.SecondOrderConeT(tasks + 1)]
    quadratic = sparse.csc_matrix((tasks + 1, tasks + 1))
    offset = np.zeros(2 * tasks + 2)
    offset[0] = 1.0
    rows = np.zeros((2 * tasks + 2, tasks + 1))
    rows[0, :tasks] = 1.0
    rows[1 : 1 + tasks, :tasks] = -np.eye(tasks)
    rows[1 + tasks, tasks] = -1.0
    rows[2 + tasks :, :tasks] = -np.triu(np.ones((tasks, tasks)))
    pattern = sparse.csc_matrix(rows)
    lower = np.tril_indices(tasks)  # row by row in L is column by column in −Lᵀ, as the pattern stores it
    factor_at = pattern.indices >= 2 + tasks
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    kept_settings = clarabel.DefaultSettings()
    kept_settings.verbose = False
    kept_settings.presolve_enable = False
    kept_settings.equilibrate_enable = False
    kept_settings.iterative_refinement_enable = False
    kept = clarabel.DefaultSolver(quadratic, np.zeros(tasks + 1), pattern, offset, cones, kept_settings)

    def prepare(problem: DualProblem) -> tuple[Array, float, Array, Array]:
        M = problem.array / np.trace(problem.array)
        radius = rho * np.sqrt(M.mean())
        return M, radius, np.append(M.mean(1), radius), factor(M)

    def anew(problem: DualProblem) -> Answer:
        M, radius, cost, root = prepare(problem)
        rows[2 + tasks :, :tasks] = -root.T
        solver = clarabel.DefaultSolver(quadratic, cost, sparse.csc_matrix(rows), offset, cones, settings)
        found = solver.solve().x
        return lambda: coefficients(M, np.asarray(found[:tasks]), radius)

    def updated(problem: DualProblem) -> Answer:
        M, radius, cost, root = prepare(problem)
        pattern.data[factor_at] = -root[lower]
        kept.update(q=cost, A=pattern.data)
        found = kept.solve().x
        return lambda: coefficients(M, np.asarray(found[:tasks]), radius)

    return {"Clarabel": anew, "Clarabel, kept": updated}
