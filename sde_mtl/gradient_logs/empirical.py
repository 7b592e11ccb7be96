r"""The empirical SDE of a gradient log: what T4 predicts at real gradients, against the logged micro-batches.

For an aggregator F the drift E F and the diffusion tr Cov F of single micro-batches are *predicted* from the mean ḡ and
the shrunk covariance Σ̂ (``local_model.py``) of one half of a checkpoint's micro-batches, by the delta method (JΣJᵀ,
F + ½D²F:Σ) and by Gaussian gradients (no linearization), and *measured* on the other half by pushing its micro-batches
through F. Where the two predictions differ, the noise is too large for the delta method; where the Gaussian one is off,
the noise is not Gaussian, or the halves differ.

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
from sde_mtl.gradient_logs._bootstrap import Interval, bootstrap
from sde_mtl.gradient_logs.local_model import EmpiricalNoise, LocalModel
from sde_mtl.gradient_logs.reader import FrozenSet
from sde_mtl.simulation import EffectiveSDE, Recursion, aggregate, simulate

Array = NDArray[np.float64]
SAMPLES = 1000
"""Of the Gaussian noise from which both predictions are made."""
DELTA = 1e-3
"""Step of the delta method's finite differences, relative to the largest gradient component."""


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
    centre = aggregate(function, g, w)
    ahead, behind = aggregate(function, g + h * epsilon, w), aggregate(function, g - h * epsilon, w)
    linearized = (ahead - behind) / (2 * h)
    drift = centre[0] + ((ahead - 2 * centre + behind) / (2 * h * h)).mean(0)
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
    descents = []
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
        descents.append(Descent(name, eta, steps, *results))
    return descents
