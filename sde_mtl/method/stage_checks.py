"""What CAME-Grad's three stages promise exactly, checked on random gradients by routes that share no code."""

import torch

from optimizers import came_grad, came_grad_coefficients, gramian, oracle
from sde_mtl.theory.check import Check
from sde_mtl.theory.t04_effective_diffusion import interior

PRINTED_EPSILON = 1e-8
SMALL = 1e-6
RHO, KAPPA, NU = 0.5, 1.5, 0.2


def printed(gradients: torch.Tensor, task_weights: torch.Tensor) -> torch.Tensor:
    """CAME-Grad with the ε that the paper adds to ‖u*‖ (arXiv:2605.22635, eq. 13), at the default parameters.

    Args:
        gradients: (..., K, d) float64.
        task_weights: (K,) or (..., K).

    Example:
        >>> G = torch.eye(2, dtype=torch.float64)
        >>> size = [printed(s * G, torch.ones(2).double()).norm().item() / s for s in (1.0, 1e-10)]
        >>> size[0] > 2 * size[1]
        True
    """
    r = came_grad(gradients, task_weights, rho=RHO, kappa=KAPPA, nu=NU)
    u, joint = r.rectified, r.joint
    enhanced = KAPPA * joint.norm(dim=-1, keepdim=True) * u / (u.norm(dim=-1, keepdim=True) + PRINTED_EPSILON)
    return (1 - NU) * enhanced + NU * KAPPA * joint


def check(seed: int = 0, problems: int = 200, tasks: int = 4, dimension: int = 30) -> list[Check]:
    """Gramian against gradients, cvxpy, homogeneity, the weighted sum as a special case, lengths, ρ; with controls.

    Args:
        seed: of the gradients.
        problems: how many.
        tasks, dimension: K and d.

    Example:
        >>> all(row.passed for row in check(problems=20))
        True
    """
    rng = torch.Generator().manual_seed(seed)
    G = torch.randn(problems, tasks, dimension, generator=rng, dtype=torch.float64)
    w = torch.rand(problems, tasks, generator=rng, dtype=torch.float64) + 0.1
    r = came_grad(G, w, rho=RHO, kappa=KAPPA, nu=NU)
    from_gramian = torch.einsum("nk,nkd->nd", came_grad_coefficients(gramian(G), w, rho=RHO, kappa=KAPPA, nu=NU), G)
    by_cone = torch.stack([torch.from_numpy(oracle.primal(g.numpy(), RHO)[0]) for g in G[:20]])
    pure, whole = came_grad(G, w, kappa=KAPPA, nu=0.0).update, came_grad(G, w, kappa=1.0, nu=1.0).update
    inside = (r.alpha > 1e-6).all(-1)
    wide = came_grad(G, w, rho=0.9, kappa=KAPPA, nu=NU)
    several = f"{problems} problems, K = {tasks}, d = {dimension}"
    return [
        _row("a", "F = Gᵀc with c from the Gramian alone", from_gramian, _by_vectors(G, w, r.alpha), 1e-12,
             f"equations 8–14 on vectors, {several}"),
        _row("b", "u* of stage 1", r.rectified[:20], by_cone, 1e-5, "cvxpy cone program, 20 problems"),
        _row("c", f"F(sG) = sF(G), s = {SMALL:g}", came_grad(SMALL * G, w).update, SMALL * r.update, 1e-12, several),
        _row("d", f"the same, printed with ε = {PRINTED_EPSILON:g}", printed(SMALL * G, w), SMALL * r.update, 1e-12,
             several, control=True),
        _row("e", "κ = ν = 1 is linear scalarization", whole, r.joint, 1e-12, several),
        _lengths("f", "ν = 0: ‖F‖ = κ‖g_J‖", pure, r.joint, several),
        _lengths("g", f"the same at ν = {NU}", r.update, r.joint, several, control=True),
        _row("h", "all α_i > 0: F does not depend on ρ", wide.update[inside], interior(G, w)[inside], 1e-8,
             f"closed form without ρ against ρ = 0.9, {int(inside.sum())} of {problems} problems"),
        _row("i", "the same where an α_i = 0", wide.update[~inside], r.update[~inside], 1e-8,
             f"ρ = 0.5 against 0.9, {int((~inside).sum())} of {problems} problems", control=True),
    ]  # fmt: skip


def _by_vectors(G: torch.Tensor, w: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """The three stages on vectors of d components, from the dual's α."""
    mean, joint = G.mean(1), torch.einsum("nk,nkd->nd", w, G)
    combined = torch.einsum("nk,nkd->nd", alpha, G)
    u = mean + RHO * mean.norm(dim=-1, keepdim=True) * combined / combined.norm(dim=-1, keepdim=True)
    enhanced = KAPPA * joint.norm(dim=-1, keepdim=True) * u / u.norm(dim=-1, keepdim=True)
    return (1 - NU) * enhanced + NU * KAPPA * joint


def _row(
    letter: str, claim: str, found: torch.Tensor, expected: torch.Tensor, allowed: float, route: str,
    *, control: bool = False,
) -> Check:  # fmt: skip
    """Largest relative distance of vectors; NaN, which never passes, if there are none."""
    apart = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    worst = float(apart.max()) if len(apart) else float("nan")
    return Check(f"stages.{letter}", claim, 0, worst, worst, allowed, "relative", route, control)


def _lengths(
    letter: str, claim: str, found: torch.Tensor, joint: torch.Tensor, route: str, *, control: bool = False
) -> Check:
    ratio = found.norm(dim=-1) / (KAPPA * joint.norm(dim=-1))
    far = float(ratio[(ratio - 1).abs().argmax()])
    return Check(f"stages.{letter}", claim, 1, far, abs(far - 1), 1e-12, "relative", route, control)
