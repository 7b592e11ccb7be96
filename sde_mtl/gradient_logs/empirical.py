r"""The empirical SDE of a gradient log: what T4 predicts at real gradients, against the logged micro-batches.

At a frozen checkpoint the n micro-batches give the mean and the joint covariance of the projected per-task gradients.
The sample covariance S has rank n − 1 ≪ Km, so it is shrunk towards a diagonal target with the same cross-task traces,

.. math:: \hat Σ = (1-λ)S + λ\,T ⊗ I_m/m, \qquad T_{ij} = \mathrm{tr}\,S_{ij},

low rank plus (block) diagonal, with λ by Ledoit and Wolf's formula (J. Multivariate Analysis 88, 2004). Every trace
tr Σ_ij is kept as it was measured.

For an aggregator F the drift E F and the diffusion tr Cov F of single micro-batches are *predicted* from (ḡ, Σ̂) of
one half of the micro-batches, by the delta method (JΣJᵀ, F + ½D²F:Σ) and by Gaussian gradients (no linearization), and
*measured* on the other half by pushing its micro-batches through F. Where the two predictions differ, the noise is too
large for the delta method; where the Gaussian one is off, the noise is not Gaussian, or the halves differ.

With logged Hessians, g_i(θ) = ḡ_i + H_iθ is simulated near the checkpoint, in the span of what was logged, by the
exact recursion and the effective SDE.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from optimizers.aggregators.base import Aggregator
from optimizers.aggregators.by_name import aggregator
from sde_mtl.gradient_logs.bootstrap import Interval, bootstrap
from sde_mtl.gradient_logs.reader import FrozenSet, GradientLog
from sde_mtl.problems.quadratic import Problem
from sde_mtl.random.normals import normals
from sde_mtl.simulation._simulate import simulate
from sde_mtl.simulation.dynamics import EffectiveSDE, Recursion, aggregate

Array = NDArray[np.float64]
SAMPLES = 1000
DELTA = 1e-3


class EmpiricalNoise:
    """Gaussian gradient noise with the shrunk covariance of a sample of gradients.

    Args:
        sample: (n, K, m) gradients, n ≥ 3.

    Attributes:
        count: n.
        shrinkage: λ.
        traces: (K, K), T.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> noise = EmpiricalNoise(rng.normal(size=(20, 2, 50)))
        >>> noise.sample(torch.arange(4), 0, seed=1).shape, noise.shrinkage > 0.8  # isotropic: the target is the truth
        (torch.Size([4, 2, 50]), True)
    """

    def __init__(self, sample: ArrayLike) -> None:
        x = np.asarray(sample, np.float64)
        if x.ndim != 3 or len(x) < 3:
            raise ValueError(f"sample must be (n, K, m) with n >= 3, got {x.shape}")
        n, self.tasks, self.dimension = x.shape
        self.count = n
        centred = x - x.mean(0)
        self.traces = np.einsum("nim,njm->ij", centred, centred) / (n - 1)
        flat = centred.reshape(n, -1)
        inner = flat @ flat.T
        maximum_likelihood = self.traces * (n - 1) / n
        # ‖S − T‖² and the sampling variance of S, both with S = Σxxᵀ/n, from inner products alone.
        target = (maximum_likelihood**2).sum() / self.dimension
        squared = (inner**2).sum() / n**2
        distance = max(squared - target, 0.0)
        scatter = (np.diag(inner) ** 2).sum() / n**2 - squared / n
        self.shrinkage = float(np.clip(scatter / distance, 0, 1)) if distance > 0 else 1.0
        values, vectors = np.linalg.eigh(self.traces / self.dimension)
        self._rows = torch.from_numpy(flat * np.sqrt((1 - self.shrinkage) / (n - 1)))
        self._root = torch.from_numpy(vectors * np.sqrt(np.maximum(values, 0) * self.shrinkage))

    def sample(self, paths: Tensor, step: int, *, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """ε of the given paths at one step, (n, K, m)."""
        rank = len(self._rows)
        z = normals(paths, step, rank + self.tasks * self.dimension, seed=seed, dtype=dtype)
        low = (z[:, :rank] @ self._rows.to(z)).reshape(-1, self.tasks, self.dimension)
        return low + torch.einsum("ij,njm->nim", self._root.to(z), z[:, rank:].reshape(-1, self.tasks, self.dimension))

    def observe(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """Exact gradients plus ε."""
        return problem.gradients(theta) + self.sample(paths, step, seed=seed, dtype=theta.dtype)

    def gaussian(self, problem: Problem, theta: Tensor, paths: Tensor, step: int, *, seed: int) -> Tensor:
        """ε itself."""
        return self.sample(paths, step, seed=seed, dtype=theta.dtype)


class LocalModel:
    """Quadratic expansion of K losses at a checkpoint, with curvature along a few directions only.

    Args:
        mean: (K, m) gradients ḡ_i at θ = 0.
        basis: (r, m) directions, nearly orthonormal.
        hessian: (K, r, r).

    Example:
        >>> model = LocalModel(np.eye(2), np.eye(2)[:1], np.array([[[2.0]], [[0.0]]]))
        >>> model.gradients(torch.tensor([1.0, 5.0]).double())
        tensor([[3., 0.],
                [0., 1.]], dtype=torch.float64)
    """

    def __init__(self, mean: ArrayLike, basis: ArrayLike, hessian: ArrayLike) -> None:
        self.mean = torch.from_numpy(np.asarray(mean, np.float64))
        q, _ = np.linalg.qr(np.asarray(basis, np.float64).T)
        rotation = q.T @ np.asarray(basis, np.float64).T
        self.basis = torch.from_numpy(q)
        self.hessian = torch.from_numpy(rotation @ np.asarray(hessian, np.float64) @ rotation.T)
        self.tasks, self.dimension = self.mean.shape

    def losses(self, theta: Tensor) -> Tensor:
        """Change of each loss, (..., m) → (..., K)."""
        x = theta @ self.basis.to(theta)
        return theta @ self.mean.to(theta).T + 0.5 * torch.einsum("...a,kab,...b->...k", x, self.hessian.to(theta), x)

    def gradients(self, theta: Tensor) -> Tensor:
        """(..., m) → (..., K, m)."""
        basis = self.basis.to(theta)
        x = theta @ basis
        return self.mean.to(theta) + torch.einsum("kab,...b,ma->...km", self.hessian.to(theta), x, basis)


@dataclass(frozen=True)
class Distortion:
    """How well the projection keeps inner products, over every logged pair of gradients of one step.

    Attributes:
        measured: root mean square of (⟨Sx, Sy⟩ − ⟨x, y⟩)/(‖x‖‖y‖).
        bound: root mean square of its standard deviation's bound √((1 + cos²)/m).
        worst: largest error.
        guarantee: what no fixed pair exceeds with probability 95 % (Chebyshev at the largest bound).
        pairs: how many.
    """

    measured: float
    bound: float
    worst: float
    guarantee: float
    pairs: int


@dataclass(frozen=True)
class Effective:
    """Drift and diffusion of one aggregator on single micro-batches.

    Attributes:
        name: of the aggregator.
        drift: squared length of E F, measured on the second half, with its interval.
        drift_delta, drift_gaussian: predicted from the first half.
        diffusion: tr Cov F, measured on the second half, with its interval.
        diffusion_delta, diffusion_gaussian: predicted from the first half.
    """

    name: str
    drift: Interval
    drift_delta: float
    drift_gaussian: float
    diffusion: Interval
    diffusion_delta: float
    diffusion_gaussian: float


@dataclass(frozen=True)
class Descent:
    """Mean change of each task's loss in the local model after ``steps`` steps at ``learning_rate``, with errors.

    Attributes:
        name: of the aggregator, at its learning rate (matched ηκ).
        recursion, effective: (K,) mean change by the exact recursion and by the effective SDE.
        recursion_error, effective_error: (K,) standard errors.
    """

    name: str
    learning_rate: float
    steps: int
    recursion: list[float]
    recursion_error: list[float]
    effective: list[float]
    effective_error: list[float]


@dataclass(frozen=True)
class EmpiricalSDE:
    """Everything predicted and measured at one frozen checkpoint."""

    step: int
    micro_batches: int
    shrinkage: float
    effective: list[Effective]
    restored: Interval
    """Diffusion of CAME-Grad over that of linear scalarization at the same ηκ, tr Cov F / κ² tr Σ_LS, measured."""
    restored_delta: float
    restored_gaussian: float
    """The same, predicted from the first half."""
    descent: list[Descent]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def distortion(log: GradientLog) -> Distortion:
    """Measure the projection of a log against its exact Gramians, and state the bound."""
    exact, p = log.gramian, log.projected.astype(np.float64)
    norms = np.sqrt(np.einsum("nii->ni", exact))
    scale = norms[:, :, None] * norms[:, None, :]
    upper = np.triu_indices(len(log.tasks))
    used = scale[:, upper[0], upper[1]] > 0
    error = ((np.einsum("nim,njm->nij", p, p) - exact) / np.where(scale > 0, scale, 1))[:, upper[0], upper[1]][used]
    cosine = (exact / np.where(scale > 0, scale, 1))[:, upper[0], upper[1]][used]
    bound = np.sqrt((1 + cosine**2) / p.shape[-1])
    return Distortion(
        float(np.sqrt((error**2).mean())),
        float(np.sqrt((bound**2).mean())),
        float(np.abs(error).max()),
        float(bound.max() / np.sqrt(0.05)),
        error.size,
    )


def empirical_sde(
    frozen: FrozenSet,
    task_weights: ArrayLike,
    *,
    kappa: float = 1.5,
    options: dict[str, float] | None = None,
    learning_rate: float = 0.0,
    steps: int = 50,
    paths: int = 256,
    replicates: int = 1000,
    seed: int = 0,
) -> EmpiricalSDE:
    """Predict and measure at one frozen set.

    Args:
        frozen: with n ≥ 8 micro-batches.
        task_weights: (K,).
        kappa: of CAME-Grad; linear scalarization is simulated at κη.
        options: CAME-Grad's ρ and ν.
        learning_rate: η of the local simulation; 0, or a log without Hessians, leaves it out.
        steps, paths: of the local simulation.
        replicates: bootstrap resamples.
        seed: of everything random.

    Raises:
        ValueError: for fewer than 8 micro-batches.
    """
    p = frozen.projected.astype(np.float64)
    if len(p) < 8:
        raise ValueError(f"an empirical SDE needs 8 micro-batches, the set at step {frozen.step} has {len(p)}")
    w = torch.as_tensor(np.asarray(task_weights), dtype=torch.float64)
    half = len(p) // 2
    first, second = p[:half], p[half:]
    noise = EmpiricalNoise(first)
    came = aggregator("came-grad", kappa=kappa, **(options or {}))
    chosen: dict[str, Aggregator] = {"linear": aggregator("linear"), "came-grad": came}
    epsilon = noise.sample(torch.arange(SAMPLES), 0, seed=seed)
    effective = [
        _effective(name, function, first.mean(0), noise, epsilon, second, w, replicates, seed)
        for name, function in chosen.items()
    ]
    pushed = {name: aggregate(function, torch.from_numpy(p), w).numpy() for name, function in chosen.items()}

    def ratio(index: NDArray[np.int64]) -> float:
        spread = [float(pushed[name][index].var(0).sum()) for name in ("came-grad", "linear")]
        return spread[0] / (kappa**2 * spread[1])

    return EmpiricalSDE(
        frozen.step,
        len(p),
        noise.shrinkage,
        effective,
        bootstrap(ratio, len(p), replicates=replicates, seed=seed),
        effective[1].diffusion_delta / (kappa**2 * effective[0].diffusion_delta),
        effective[1].diffusion_gaussian / (kappa**2 * effective[0].diffusion_gaussian),
        _descent(frozen, chosen, w, kappa, learning_rate, steps, paths, seed),
    )


def _effective(
    name: str, function: Aggregator, mean: Array, noise: EmpiricalNoise, epsilon: Tensor, held_out: Array, w: Tensor,
    replicates: int, seed: int,
) -> Effective:  # fmt: skip
    g = torch.from_numpy(mean)[None]
    h = DELTA * float(g.abs().max() / epsilon.abs().max())
    here = aggregate(function, g, w)
    ahead, behind = aggregate(function, g + h * epsilon, w), aggregate(function, g - h * epsilon, w)
    linearized = (ahead - behind) / (2 * h)
    drift = here[0] + ((ahead - 2 * here + behind) / (2 * h * h)).mean(0)
    spread, mirrored = aggregate(function, g + epsilon, w), aggregate(function, g - epsilon, w)
    diffusion = float(linearized.square().sum(-1).mean())
    excess = diffusion / noise.count  # of ‖F(ḡ)‖² by the error of ḡ itself, to first order
    measured = aggregate(function, torch.from_numpy(held_out), w).numpy()
    products = measured @ measured.T

    def squared_mean(index: NDArray[np.int64]) -> float:
        """Unbiased ‖E F‖², from pairs of distinct micro-batches."""
        distinct = index[:, None] != index[None]
        return float(products[np.ix_(index, index)][distinct].mean())

    def spread_of(index: NDArray[np.int64]) -> float:
        """Unbiased tr Cov F, half the mean squared distance of distinct micro-batches."""
        chosen, distinct = products[np.ix_(index, index)], index[:, None] != index[None]
        own = chosen.diagonal()
        return float((0.5 * (own[:, None] + own[None]) - chosen)[distinct].mean())

    return Effective(
        name,
        bootstrap(squared_mean, len(measured), replicates=replicates, seed=seed),
        float(drift.square().sum()) - excess,
        float(((spread + mirrored) / 2).mean(0).square().sum()) - excess,
        bootstrap(spread_of, len(measured), replicates=replicates, seed=seed),
        diffusion,
        float(spread.var(0).sum()),
    )


def _descent(
    frozen: FrozenSet, chosen: dict[str, Aggregator], w: Tensor, kappa: float, learning_rate: float, steps: int,
    paths: int, seed: int,
) -> list[Descent]:  # fmt: skip
    if frozen.basis is None or frozen.hessian is None or learning_rate <= 0:
        return []
    full = frozen.projected.astype(np.float64)
    span = np.linalg.svd(np.concatenate([full.reshape(-1, full.shape[-1]), frozen.basis]), full_matrices=False)
    inside = span.Vh[1e-6 * span.S[0] < span.S].T  # what was logged spans few of the m dimensions
    p, basis = full @ inside, frozen.basis @ inside
    model, noise = LocalModel(p.mean(0), basis, frozen.hessian), EmpiricalNoise(p)
    found = []
    for name, function in chosen.items():
        eta = learning_rate * (kappa if name == "linear" else 1.0)
        results = []
        for scheme in (Recursion, EffectiveSDE):
            ensemble = simulate(
                scheme(model, noise, function, w, eta), torch.zeros(model.dimension), steps, paths=paths, seed=seed,
                keep=range(paths),
            )  # fmt: skip
            change = model.losses(ensemble.kept[:, -1])
            results += [change.mean(0).tolist(), (change.std(0) / paths**0.5).tolist()]
        found.append(Descent(name, eta, steps, *results))
    return found
