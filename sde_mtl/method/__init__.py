"""CAME-Grad's dual and stages by independent routes.

dual_routes     α of the dual from all supports, by SLSQP and by cvxpy, and the duality gap of any answer
stage_checks    what the three stages promise exactly, checked on vectors, with negative controls
"""

from sde_mtl.method import dual_routes, stage_checks

__all__ = ["dual_routes", "stage_checks"]
