r"""Directional derivatives of CAME-Grad's update with respect to the gradients, in closed form on each branch.

On a fixed support S of the dual, the multipliers β of u* = μ + Gᵀβ solve a smooth system,

.. math:: (Mβ + b)_i = t \;(i ∈ S), \qquad β^⊤Mβ = ρ²‖μ‖²,

with M = GGᵀ and b = M1/K. Differentiating it along dG gives one linear system in (dβ_S, dt); the chain rule through
energy injection and fusion does the rest. For K = 2 and a clipped α (one task in S) the system reduces to
u* = μ + ρ‖μ‖ g_i/‖g_i‖; an interior α has S = {1, 2}. The derivative does not exist where the support changes, at μ = 0
and where g_α = 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from optimizers import came_grad_stages, gramian
from sde_mtl.problems import AdditiveNoise


@dataclass(frozen=True)
class Sensitivity:
    """CAME-Grad linearized at one matrix of gradients.

    Attributes:
        update: (d,), F(G).
        jacobian: (d, K, d), ``jacobian[a, i, b]`` = ∂F_a/∂G_ib.
        support: (K,) bool, the tasks that the dual weighs.
        margin: distance, relative to ‖μ‖·max‖g‖, of the nearest inactive constraint or weight from changing the
            support; the linearization holds where the noise is small beside it.
    """

    update: Tensor
    jacobian: Tensor
    support: Tensor
    margin: float

    def diffusion(self, noise: AdditiveNoise) -> Tensor:
        """Covariance of the update to first order, JΣJᵀ (d, d) (theory T4)."""
        return torch.einsum("aib,ibjc,djc->ad", self.jacobian, noise.covariance, self.jacobian)


def linearize(
    gradients: Tensor,
    task_weights: Tensor,
    *,
    rho: float = 0.5,
    kappa: float = 1.5,
    nu: float = 0.2,
) -> Sensitivity:
    """The update and its Jacobian (center="mean", fusion="fixed").

    Args:
        gradients: (K, d) float64.
        task_weights: (K,).
        rho, kappa, nu: of CAME-Grad.

    Raises:
        ValueError: where the derivative does not exist: μ = 0, g_J = 0, or g_α = 0.

    Example:
        Where all gradients agree, the update is κ times their weighted sum, and so is its derivative:

        >>> G = torch.tensor([[2.0], [2.0]]).double()
        >>> linearize(G, torch.ones(2).double(), rho=0.0, kappa=1.0).update
        tensor([4.], dtype=torch.float64)
    """
    G = gradients.double()
    w = task_weights.double()
    K, d = G.shape
    M = gramian(G)
    stages = came_grad_stages(M, w, rho=rho, kappa=kappa, nu=nu)
    mean = torch.full((K,), 1.0 / K, dtype=torch.float64)
    beta = stages.dual.multipliers
    alpha = stages.dual.alpha
    combined = alpha @ G
    largest = G.norm(dim=1).max()
    u, joint, mu = (mean + beta) @ G, w @ G, mean @ G
    for name, vector in (("μ", mu), ("g_J", joint), ("g_α", combined)):
        if vector.norm() <= 1e-7 * largest:
            raise ValueError(f"the update has no derivative where {name} = 0")

    support = alpha > 0
    index = support.nonzero()[:, 0]
    s = len(index)
    directions = torch.eye(K * d, dtype=torch.float64).reshape(K * d, K, d)
    dM = directions @ G.T
    dM = dM + dM.mT
    system = torch.zeros(s + 1, s + 1, dtype=torch.float64)
    system[:s, :s] = M[index][:, index]
    system[:s, s] = -1.0
    system[s, :s] = 2 * (M @ beta)[index]
    right = torch.zeros(K * d, s + 1, dtype=torch.float64)
    right[:, :s] = -(dM @ (mean + beta))[:, index]
    right[:, s] = rho**2 * (dM @ mean @ mean) - dM @ beta @ beta
    d_beta = torch.zeros(K * d, K, dtype=torch.float64)
    if rho > 0:
        d_beta[:, index] = torch.linalg.solve(system, right.T).T[:, :s]

    d_u = torch.einsum("k,nkd->nd", mean + beta, directions) + d_beta @ G
    d_joint = torch.einsum("k,nkd->nd", w, directions)
    unit, length = u / u.norm(), u.norm()
    size = joint.norm()
    d_size = d_joint @ joint / size
    d_unit = (d_u - (d_u @ unit)[:, None] * unit) / length
    d_update = kappa * ((1 - nu) * (d_size[:, None] * unit + size * d_unit) + nu * d_joint)
    update = kappa * ((1 - nu) * size * unit + nu * joint)
    slack = (G @ u - (G @ u).min())[~support] / (mu.norm() * largest)
    margin = torch.cat([alpha[support], slack]).min().item()
    return Sensitivity(update, d_update.T.reshape(d, K, d), support, margin)
