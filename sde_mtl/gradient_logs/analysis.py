r"""What a gradient log says about conflict, drift deviation and diffusion decay, next to the closed forms.

Per step (serially correlated, see ``_serial.py``): the share of steps with g_0ᵀg_k < 0, the share at
which linear scalarization harms a task, the angle ∠(g_J, u*), the worst-task improvement of g_J and u*, and the
share at which stage 1 is valid (T5). Next to each stands the closed form of T2 evaluated at the *averaged*
moments (norms, mean inner products): it knows nothing of the steps' scatter, so the two need not agree, and
their difference is what a stochastic theory has to explain.

At frozen parameters ``diffusion.py`` measures the diffusion ratio (T3), ``products.py`` the products of the expected
gradients, and ``empirical.py`` the effective SDE (T4). ``scopes.py`` does the same for the shared parameters and
for all side by side.
"""

import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from optimizers import came_grad_stages
from sde_mtl.gradient_logs._bootstrap import Interval, block_length
from sde_mtl.gradient_logs._serial import mean_interval, share_interval
from sde_mtl.gradient_logs.angles import angle, cosines, cosines_with
from sde_mtl.gradient_logs.diffusion import Diffusion
from sde_mtl.gradient_logs.empirical import EmpiricalSDE, empirical_sde
from sde_mtl.gradient_logs.projection import Distortion, distortion
from sde_mtl.gradient_logs.reader import GradientLog
from sde_mtl.gradient_logs.scopes import FEWEST, ScopeAnalysis, analyze_scope
from sde_mtl.theory import t02_drift_deviation as t02

PAPER_CONFLICT_RATE = 0.538
"""Share of conflicting steps that the paper reports (arXiv:2605.22635)."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class LogAnalysis:
    """Everything measured on one log, of all its parameters where nothing else is said; angles in degrees."""

    name: str
    meta: dict[str, Any]
    steps: int
    block: int
    """Twice the autocorrelation time of the cosine of the first two tasks, in steps: what figures average over."""
    any_conflict_with_first: Interval
    """Share of steps with g_0ᵀg_k < 0 for a k ≥ 1."""
    conflict_by_pair: dict[str, Interval]
    mean_cosine: Interval
    harm_rate: Interval
    """Share of steps at which linear scalarization increases a task's loss to first order."""
    harm_predicted: bool | None
    """T2's threshold at the averaged moments; None for K > 2."""
    angle: Interval
    """∠(g_J, u*)."""
    angle_predicted: float | None
    worst_joint: Interval
    """min_i cos(g_i, g_J)."""
    worst_joint_predicted: float | None
    worst_rectified: Interval
    """min_i cos(g_i, u*)."""
    worst_rectified_predicted: float | None
    valid_rate: Interval
    """Share of steps with a valid stage 1 (T5)."""
    norm_ratio: float
    """Median ‖g_1‖/‖g_0‖."""
    diffusion: list[Diffusion]
    distortion: Distortion
    """Of the random projection."""
    empirical: list[EmpiricalSDE]
    """One for each frozen set."""
    series: dict[str, list[float]]
    """Per step: step, cosine (of tasks 0 and 1), angle."""
    pair_conflict_share: Interval | None = None
    """Share of the pairs i < j with g_iᵀg_j < 0; None in analyses kept from before it was measured."""
    scopes: dict[str, ScopeAnalysis] = field(default_factory=dict)
    """"shared", unless the log is of version 1, and "all": which parameters, in this order."""

    @property
    def scope(self) -> ScopeAnalysis | None:
        """Of the shared parameters where the log tells them apart, else of all; None in old analyses."""
        return next(iter(self.scopes.values()), None)

    @property
    def conflict_rate(self) -> Interval:
        """Old name of :attr:`any_conflict_with_first`."""
        warnings.warn(
            "LogAnalysis.conflict_rate is deprecated: it is any_conflict_with_first; beside it stands "
            "pair_conflict_share, the share of pairs in conflict",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.any_conflict_with_first

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def analyze(
    log: GradientLog,
    *,
    task_weights: ArrayLike | None = None,
    rho: float = 0.5,
    replicates: int = 2000,
    seed: int = 0,
) -> LogAnalysis:
    """Measure a log.

    Args:
        log: with two or more tasks.
        task_weights: (K,); those of the run by default.
        rho: trust-region radius of u*.
        replicates: bootstrap resamples at frozen parameters, whose micro-batches are independent.
        seed: of the bootstrap.

    Raises:
        ValueError: for fewer than two tasks or eight steps, or weights that do not fit.

    Example:
        Forty steps of random gradients of two tasks:

        >>> from pathlib import Path
        >>> g = np.random.default_rng(0).normal(size=(40, 2, 30))
        >>> log = GradientLog(Path("log"), {}, ("rg", "dc"), np.ones(2), np.arange(40), np.ones((40, 2)),
        ...                   g @ g.transpose(0, 2, 1), g.astype(np.float32), frozen=())
        >>> rate = analyze(log, replicates=100).any_conflict_with_first
        >>> rate.low < 0.5 < rate.high
        True
    """
    w = log.task_weights if task_weights is None else np.asarray(task_weights, np.float64)
    tasks, n = len(log.tasks), len(log.steps)
    if w.shape != (tasks,):
        raise ValueError(f"task_weights must be {tasks} numbers for the tasks {log.tasks}, got {w.tolist()}")
    if tasks < 2 or n < 8:
        raise ValueError(f"an analysis needs 2 tasks and 8 steps, {log.folder} has {tasks} and {n}")
    M = log.gramian
    norms = np.sqrt(np.einsum("nii->ni", M))
    cosine = cosines(M)[:, 0, 1]
    stages = came_grad_stages(torch.from_numpy(M), torch.from_numpy(w), rho=rho)
    joint = np.broadcast_to(w, (n, tasks))
    rectified = stages.rectified.numpy()
    degrees = np.degrees(angle(M, joint, rectified))
    block = block_length(cosine)
    frozen = [batches for batches in log.frozen if len(batches.losses) >= FEWEST]
    rate = float(log.meta.get("learning_rate", 0.0))
    predicted = _closed_form(M, w, rho) if tasks == 2 else None
    by_pair = cosines(M)
    logs = {"shared": log.shared, "all": log}
    scopes = {
        name: analyze_scope(of_scope, w, rho, replicates=replicates, seed=seed)
        for name, of_scope in logs.items()
        if of_scope is not None
    }
    whole = scopes["all"]
    return LogAnalysis(
        name=log.name,
        meta=log.meta,
        steps=n,
        block=block,
        any_conflict_with_first=whole.any_conflict_with_first,
        conflict_by_pair={
            f"{log.tasks[i]}–{log.tasks[j]}": share_interval(M[:, i, j] < 0, by_pair[:, i, j])
            for i in range(tasks)
            for j in range(i + 1, tasks)
        },
        mean_cosine=whole.mean_cosine,
        harm_rate=whole.harm_rate,
        harm_predicted=None if predicted is None else bool(predicted.harms.any()),
        angle=mean_interval(degrees),
        angle_predicted=None if predicted is None else float(np.degrees(predicted.angle)),
        worst_joint=mean_interval(cosines_with(M, joint).min(1)),
        worst_joint_predicted=None if predicted is None else float(predicted.worst_joint),
        worst_rectified=mean_interval(cosines_with(M, rectified).min(1)),
        worst_rectified_predicted=None if predicted is None else float(predicted.worst_rectified),
        valid_rate=share_interval(stages.valid.numpy(), cosine),
        norm_ratio=float(np.median(norms[:, 1] / norms[:, 0])),
        diffusion=whole.diffusion,
        distortion=distortion(log),
        empirical=[
            empirical_sde(
                batches, w, options={"rho": rho}, learning_rate=rate, replicates=min(replicates, 1000), seed=seed
            )
            for batches in frozen
        ],
        series={
            "step": log.steps.tolist(),
            "cosine": np.nan_to_num(cosine).tolist(),
            "angle": np.nan_to_num(degrees).tolist(),
        },
        pair_conflict_share=whole.pair_conflict_share,
        scopes=scopes,
    )


def _closed_form(M: Array, w: Array, rho: float) -> t02.Deviation:
    """T2 at the averaged moments: mean squared norms and mean inner product."""
    mean = M.mean(0)
    first, second = np.sqrt(mean[0, 0]), np.sqrt(mean[1, 1])
    return t02.predict(second / first, np.arccos(np.clip(mean[0, 1] / (first * second), -1, 1)), w, rho)
