r"""Conflict, harm and CAME-Grad's hidden weights, measured on some of the parameters: the shared ones, or all.

Task heads have zero gradients for the other tasks. They leave every product of two tasks' gradients as it is, and so
every conflict rate; but they lengthen the gradients, so that cosines shrink, g_iᵀg_J = Σω_kg_iᵀg_k grows by the squared
length of the head's gradient, harm becomes rare, and CAME-Grad's coefficients are others. The claims are about the
parameters that tasks share.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from optimizers import came_grad_stages
from optimizers.aggregators import CAMEGradOptions
from sde_mtl.gradient_logs._bootstrap import Interval
from sde_mtl.gradient_logs._serial import mean_interval, ratio_interval, share_interval
from sde_mtl.gradient_logs.angles import cosines, cosines_with
from sde_mtl.gradient_logs.diffusion import Diffusion, diffusion_at
from sde_mtl.gradient_logs.products import FrozenProducts, frozen_products
from sde_mtl.gradient_logs.reader import GradientLog

Array = NDArray[np.float64]
FEWEST = 8
"""Micro-batches that a frozen set needs to be measured."""


@dataclass(frozen=True)
class ScopeAnalysis:
    """What was measured on some of the parameters; shares and intervals are over the training steps.

    Attributes:
        parameters: how many scalars.
        any_conflict_with_first: share of steps with g_0ᵀg_k < 0 for a k ≥ 1.
        pair_conflict_share: share of the pairs i < j with g_iᵀg_j < 0.
        conflict_by_chance: what ``any_conflict_with_first`` is for K − 1 independent symmetric products,
            1 − 2^{−(K−1)}.
        mean_cosine: of the first two tasks.
        harm_rate: share of steps with g_iᵀg_J < 0 for a task i, on the step's own micro-batch.
        harm_by_task: K shares.
        valid_rate: share of steps with a valid stage 1 of CAME-Grad (T5).
        weights: K, ω over its sum.
        mean_weights: K, E c over its sum, c CAME-Grad's coefficients at each step: the weights of the linear
            scalarization that CAME-Grad is on average (T13). Of a run of another optimizer, what they would be.
        hidden_factors: K, (c̄_i/c̄_0)/(ω_i/ω_0): by how much CAME-Grad weighs a task more than ω says.
        coefficients: n×K, c over its sum at each step; NaN where that is not positive.
        options: of CAME-Grad: those of the run, or the authors'.
        diffusion: tr Σ_LS/Σω_i²tr Σ_ii at each frozen set.
        frozen: unbiased products at each frozen set.
    """

    parameters: int
    any_conflict_with_first: Interval
    pair_conflict_share: Interval
    conflict_by_chance: float
    mean_cosine: Interval
    harm_rate: Interval
    harm_by_task: list[Interval]
    valid_rate: Interval
    weights: list[float]
    mean_weights: list[Interval]
    hidden_factors: list[Interval]
    coefficients: list[list[float]]
    options: dict[str, Any]
    diffusion: list[Diffusion]
    frozen: list[FrozenProducts]


def analyze_scope(log: GradientLog, w: Array, rho: float, *, replicates: int = 2000, seed: int = 0) -> ScopeAnalysis:
    """Measure the parameters that a log is of: of :attr:`GradientLog.shared` the shared ones.

    Args:
        log: with two or more tasks and eight or more steps.
        w: (K,) task weights.
        rho: of CAME-Grad, unless the run's own options say it.
        replicates: bootstrap resamples at frozen parameters.
        seed: of the bootstrap.

    Example:
        Forty steps of independent gradients of three tasks; the first conflicts with one of two others by chance:

        >>> from pathlib import Path
        >>> g = np.random.default_rng(0).normal(size=(40, 3, 30))
        >>> log = GradientLog(Path("log"), {}, ("rg", "dc", "ita"), np.ones(3), np.arange(40), np.ones((40, 3)),
        ...                   g @ g.transpose(0, 2, 1), g.astype(np.float32), frozen=())
        >>> found = analyze_scope(log, np.ones(3), 0.5)
        >>> found.conflict_by_chance, found.any_conflict_with_first.low < 0.75 < found.any_conflict_with_first.high
        (0.75, True)
    """
    M, tasks = log.gramian, len(log.tasks)
    options = came_grad_options(log, rho)
    stages = came_grad_stages(torch.from_numpy(M), torch.from_numpy(w), **options)
    c = stages.coefficients.numpy()
    total = c.sum(1)
    joint = M @ w
    rows, columns = np.triu_indices(tasks, 1)
    cosine = cosines(M)
    with_joint = cosines_with(M, np.broadcast_to(w, (len(M), tasks)))
    frozen = [batches for batches in log.frozen if len(batches.losses) >= FEWEST]
    names = tuple(group.name for group in log.groups)
    return ScopeAnalysis(
        parameters=int(log.meta.get("parameters", 0)),
        any_conflict_with_first=share_interval((M[:, 0, 1:] < 0).any(1), cosine[:, 0, 1:].min(1)),
        pair_conflict_share=share_interval((M[:, rows, columns] < 0).mean(1), cosine[:, rows, columns].mean(1)),
        conflict_by_chance=1 - 0.5 ** (tasks - 1),
        mean_cosine=mean_interval(cosine[:, 0, 1]),
        harm_rate=share_interval((joint < 0).any(1), with_joint.min(1)),
        harm_by_task=[share_interval(joint[:, i] < 0, with_joint[:, i]) for i in range(tasks)],
        valid_rate=share_interval(stages.valid.numpy(), with_joint.min(1)),
        weights=(w / w.sum()).tolist(),
        mean_weights=[ratio_interval(c[:, i], total) for i in range(tasks)],
        hidden_factors=[ratio_interval(c[:, i] * w[0], c[:, 0] * w[i]) for i in range(tasks)],
        coefficients=np.where(total[:, None] > 0, c / np.where(total > 0, total, 1)[:, None], np.nan).tolist(),
        options=options,
        diffusion=[diffusion_at(batches, w, replicates=replicates, seed=seed) for batches in frozen],
        frozen=[frozen_products(batches, w, options=options, groups=names) for batches in frozen],
    )


def came_grad_options(log: GradientLog, rho: float) -> dict[str, Any]:
    """Options of CAME-Grad: those that the log's run had, the authors' with the given ρ otherwise.

    Example:
        >>> from pathlib import Path
        >>> none = np.empty((0, 2, 2))
        >>> log = GradientLog(Path("log"), {"optimizer": {"name": "came-grad", "nu": 0.6}}, ("rg", "dc"), np.ones(2),
        ...                   np.arange(0), none, none, none, frozen=())
        >>> came_grad_options(log, 0.5)
        {'rho': 0.5, 'kappa': 1.5, 'nu': 0.6, 'center': 'mean', 'fusion': 'fixed'}
    """
    own = log.meta.get("optimizer", {})
    options = {"rho": rho, **(own if own.get("name") == "came-grad" else {})}
    options.pop("name", None)
    return dict(vars(CAMEGradOptions(**options)))
