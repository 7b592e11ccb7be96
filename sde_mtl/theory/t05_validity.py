r"""T5, geometric validity is conditional: when the conflict-averse direction improves every task.

Stage 1 is valid, :math:`\min_i g_i^⊤u^* ≥ 0`, iff the dual value f(α*) ≥ 0 (strong duality). For K = 2 iff

.. math:: \min_i \cos(μ, g_i) ≥ -ρ.

Proof for K = 2. f(α) ≥ 0 iff cos(g_α, μ) ≥ −ρ, for every α. Walk from μ = (g_1 + g_2)/2 along the segment
towards an end, v(t) = μ + tδ: cos(v(t), μ) decreases in t (its derivative has the sign of
t((μᵀδ)² − ‖μ‖²‖δ‖²) ≤ 0), so it is smallest at one of the two ends. For K > 2 the condition on the vertices
is necessary, not sufficient: the minimum may lie inside the simplex.

The paper's unconditional guarantee is therefore false: d = 1, g = (1, −10), ρ = ½ gives u* = −2.25. Fusion
can undo validity too: g = ((−2,−2), (−1,2)), ρ = ¼, ω = (0.8, 0.2), κ = 1, ν = 0.9 gives products
(5.7389, −0.2426).

(arXiv:2605.22635, section 4; theory T5.) What it does not say: how often real gradients are of the invalid
kind; a gradient log does, with the products of noisy gradients in place of exact ones.
"""

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray

import optimizers
from optimizers import came_grad, gramian
from sde_mtl.theory.check import Check, require


def derive() -> sympy.Expr:
    """Derivative of cos(μ + tδ, μ) in t, times a positive factor; never positive for t > 0.

    Raises:
        DerivationError: if it has not the form t·((μᵀδ)² − ‖μ‖²‖δ‖²).

    Example:
        >>> derive()
        t*(-D*N + p**2)
    """
    N, D, t = sympy.symbols("N D t", positive=True)  # ‖μ‖², ‖δ‖², t
    p = sympy.Symbol("p", real=True)  # μᵀδ
    square = N + 2 * t * p + t**2 * D
    cosine = (N + t * p) / sympy.sqrt(N * square)
    slope = sympy.factor(sympy.simplify(sympy.diff(cosine, t) * sympy.sqrt(N) * square ** sympy.Rational(3, 2)))
    require(sympy.expand(slope - t * (p**2 - N * D)) == 0, "T5, monotone cosine")
    return slope


def is_valid(M: ArrayLike, rho: float = 0.5) -> NDArray[np.bool_]:
    """The K = 2 condition min_i cos(μ, g_i) ≥ −ρ from the (..., 2, 2) Gramian; True where μ = 0.

    Example:
        >>> bool(is_valid([[1.0, -10.0], [-10.0, 100.0]]))
        False
    """
    M = np.asarray(M, np.float64)
    if M.shape[-2:] != (2, 2):
        raise ValueError(f"the condition is for K = 2, got a Gramian of shape {M.shape}")
    products = M.mean(-1)
    length = np.sqrt(np.maximum(products.mean(-1), 0))
    norms = np.sqrt(np.einsum("...ii->...i", M))
    return np.asarray((products >= -rho * length[..., None] * norms).all(-1))


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Certificates against cvxpy and each other; both counterexamples; vertices do not suffice for K = 3."""
    derive()
    rng = np.random.default_rng(seed)
    first = came_grad(torch.tensor([[1.0], [-10.0]]).double(), rho=0.5)
    by_cone = float(optimizers.oracle.primal([[1.0], [-10.0]], 0.5)[0][0])
    G = torch.tensor([[-2.0, -2.0], [-1.0, 2.0]]).double()
    fused = came_grad(G, [0.8, 0.2], rho=0.25, kappa=1.0, nu=0.9)
    products = (G @ fused.update).tolist()

    pairs = rng.normal(size=(5000, 2, 3)) * np.exp(rng.uniform(-2, 2, size=(5000, 2, 1)))
    M = gramian(torch.from_numpy(pairs))
    by_solver = came_grad(torch.from_numpy(pairs), rho=0.5).valid.numpy()
    disagree = int((is_valid(M.numpy()) != by_solver).sum())
    too_lax = int((is_valid(M.numpy(), 0.6) != by_solver).sum())

    triples = rng.normal(size=(120, 3, 3)) * np.exp(rng.uniform(-2, 2, size=(120, 3, 1)))
    certificate = came_grad(torch.from_numpy(triples), rho=0.5).dual_value.numpy()
    cone = np.array([optimizers.oracle.primal(g, 0.5)[1] for g in triples])
    clear = np.abs(cone) > 1e-6
    opposed = int(((certificate >= 0) != (cone >= 0))[clear].sum())

    many = torch.from_numpy(rng.normal(size=(20_000, 3, 3)))
    mean = many.mean(1, keepdim=True)
    cosines = torch.nn.functional.cosine_similarity(many, mean, dim=-1).amin(-1)
    valid = came_grad(many, rho=0.3).valid
    vertices_only = int(((cosines >= -0.3) & ~valid).sum())
    unnecessary = int(((cosines < -0.3) & valid).sum())
    return [
        Check("T5.a", "counterexample: u* harms task 0 in d = 1", -2.25, first.rectified.item(),
              abs(first.rectified.item() + 2.25), 1e-12, "absolute", "optimizers.came_grad"),
        Check("T5.b", "the same by the cone program", -2.25, by_cone, abs(by_cone + 2.25), 1e-7, "absolute",
              "cvxpy"),
        Check("T5.c", "counterexample: fusion harms task 1 although u* is valid", -0.2426, products[1],
              max(abs(products[1] + 0.2426), abs(products[0] - 5.7389)) if fused.valid else float("nan"),
              5e-5, "absolute", "optimizers.came_grad; four printed digits"),
        Check("T5.d", "K = 2: valid iff min cos(μ, g_i) ≥ −ρ; disagreements", 0, disagree, disagree, 0,
              "count", f"dual value of 5,000 random pairs, {by_solver.mean():.0%} valid"),
        Check("T5.e", "the same with ρ = 0.6 for 0.5", 0, too_lax, too_lax, 0, "count", "5,000 random pairs",
              control=True),
        Check("T5.f", "K = 3: valid iff f(α*) ≥ 0; disagreements", 0, opposed, opposed, 0, "count",
              f"primal cone program, {int(clear.sum())} random triples, {(cone < 0).mean():.0%} invalid"),
        Check("T5.g", "K = 3: the vertex condition is necessary; violations", 0, unnecessary, unnecessary,
              0, "count", "20,000 random triples"),
        Check("T5.h", "K = 3: the vertex condition is sufficient", 0, vertices_only, vertices_only, 0,
              "count", "20,000 random triples", control=True),
    ]  # fmt: skip
