r"""T9, adaptive fusion (new): the largest share of the joint gradient that harms nobody.

.. math:: ν^* = \max\{ν ≤ ν_{max} : (1-ν)\,e_i + ν\,j_i ≥ 0 \;∀i\}, \qquad e_i = g_i^⊤u_{en},\; j_i = κ\,g_i^⊤g_J .

Where stage 1 is valid (e_i ≥ 0) every constraint is linear in ν and holds at ν = 0, hence

.. math:: ν^* = \min\Bigl(ν_{max}, \min_{i:\,j_i<0} \frac{e_i}{e_i - j_i}\Bigr).

Where it is not valid some ν may still be harmless (an interval); ``fusion="adaptive"`` takes the largest such ν, and
ν_max if there is none, that is, the paper's update.

What it does not say: first order and exact gradients only; a finite step, the noise of a micro-batch, or an optimizer
that rescales F can harm a task that F does not.
"""

import numpy as np
import sympy
import torch

from optimizers import came_grad, came_grad_stages, gramian
from sde_mtl.theory.check import Check, require


def derive() -> sympy.Expr:
    """The ν at which a valid task's improvement vanishes.

    Raises:
        DerivationError: if the constraint is not decreasing in ν for e ≥ 0 > j.

    Example:
        >>> derive()
        e/(e - j)
    """
    nu = sympy.Symbol("nu", real=True)
    e = sympy.Symbol("e", nonnegative=True)
    j = sympy.Symbol("j", negative=True)
    improvement = (1 - nu) * e + nu * j
    require(sympy.diff(improvement, nu).is_negative, "T9, decreasing in ν")
    (root,) = sympy.solve(improvement, nu)
    return sympy.simplify(root)


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Against bisection on the products themselves; harm with and without; the audit's counterexample."""
    derive()
    rng = np.random.default_rng(seed)
    n, limit = 4000, 0.9
    G = torch.from_numpy(rng.normal(size=(n, 3, 5)) * np.exp(rng.uniform(-1, 1, size=(n, 3, 1))))
    w = torch.from_numpy(rng.uniform(0.1, 5, size=(n, 3)))
    M = gramian(G)
    stages = came_grad_stages(M, w, nu=limit, fusion="adaptive")
    adaptive, fixed = came_grad(G, w, nu=limit, fusion="adaptive"), came_grad(G, w, nu=limit)
    valid = stages.valid
    size = G.norm(dim=-1) * adaptive.update.norm(dim=-1)[:, None]
    least = float((torch.einsum("nkd,nd->nk", G, adaptive.update) / size)[valid].min())
    harmed = int((torch.einsum("nkd,nd->nk", G, fixed.update) < 0).any(1)[valid].sum())

    low, high = torch.zeros(n).double(), torch.full((n,), limit).double()
    enhanced, joint = adaptive.enhanced, 1.5 * adaptive.joint

    def harmless(nu: torch.Tensor) -> torch.Tensor:
        update = (1 - nu)[:, None] * enhanced + nu[:, None] * joint
        return (torch.einsum("nkd,nd->nk", G, update) >= 0).all(1)

    low = torch.where(harmless(high), high, low)
    for _ in range(60):
        middle = (low + high) / 2
        good = harmless(middle)
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    strict = valid & (stages.dual.value > 1e-6)
    error = (stages.fusion - low).abs()[strict]
    worst = int(error.argmax())
    pair = torch.tensor([[-2.0, -2.0], [-1.0, 2.0]]).double()
    rescued = came_grad(pair, [0.8, 0.2], rho=0.25, kappa=1.0, nu=0.9, fusion="adaptive")
    product = float((pair @ rescued.update).min())
    return [
        Check("T9.a", "ν* = min of ratios", float(low[strict][worst]), float(stages.fusion[strict][worst]),
              float(error.max()), 1e-6, "absolute", f"bisection on {int(strict.sum())} random triples, worst"),
        Check("T9.b", "no task is harmed where stage 1 is valid: least cos(g_i, F)", 0.0, least, max(0.0, -least),
              1e-12, "absolute", f"{int(valid.sum())} random triples"),
        Check("T9.c", "the audit's counterexample is rescued: least product", 0.0, product, max(0.0, -product), 1e-12,
              "absolute", "optimizers.came_grad, fusion adaptive"),
        Check("T9.d", "fixed ν = 0.9 harms none of them", 0, harmed, harmed, 0, "count",
              f"{int(valid.sum())} random triples", control=True),
    ]  # fmt: skip
