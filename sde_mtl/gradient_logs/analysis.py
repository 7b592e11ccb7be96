r"""What a gradient log says about conflict, drift deviation and diffusion decay, next to the closed forms.

Per step (serially correlated, so moving-block bootstrap): the share of steps with g_0ᵀg_k < 0, the share at
which linear scalarization harms a task, the angle ∠(g_J, u*), the worst-task improvement of g_J and u*, and the
share at which stage 1 is valid (T5). Next to each stands the closed form of T2 evaluated at the *averaged*
moments (norms, mean inner products): it knows nothing of the steps' scatter, so the two need not agree, and
their difference is what a stochastic theory has to explain.

At frozen parameters (independent micro-batches, plain bootstrap): the diffusion ratio
tr Σ_LS / Σω_i² tr Σ_ii, by three routes: from the exact Gramians; directly as the variance of the projected joint
gradient; and *predicted out of sample*: the closed form T3 at the cross-covariances of the first half of the
micro-batches, against the variance of the joint gradient in the second half.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from optimizers import came_grad_stages
from sde_mtl.gradient_logs.bootstrap import Interval, block_length, bootstrap
from sde_mtl.gradient_logs.empirical import Distortion, EmpiricalSDE, distortion, empirical_sde
from sde_mtl.gradient_logs.reader import FrozenSet, GradientLog
from sde_mtl.theory import t02_drift_deviation as t02
from sde_mtl.theory.t03_diffusion_decay import trace_ratio

PAPER_CONFLICT_RATE = 0.538
"""Share of conflicting steps that the paper reports (arXiv:2605.22635)."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Diffusion:
    """Diffusion ratio at one frozen set of micro-batches.

    Attributes:
        step, micro_batches: which set.
        traces: (K, K) unbiased tr Σ_ij.
        correlation: (K, K) tr Σ_ij / √(tr Σ_ii tr Σ_jj).
        ratio: tr Σ_LS / Σω_i²tr Σ_ii with its interval.
        direct: variance of the projected joint gradient over Σω_i² the variances of the projected task gradients;
            differs from ``ratio``, which is T3 at the exact cross-covariances, by the projection's error alone.
        predicted, held_out: T3 at the first half's moments; ``direct`` on the second half, with its interval.
        signal_to_noise: (K,) ‖E g_i‖² / tr Σ_ii of one micro-batch.
    """

    step: int
    micro_batches: int
    traces: list[list[float]]
    correlation: list[list[float]]
    ratio: Interval
    direct: float
    predicted: float
    held_out: Interval
    signal_to_noise: list[float]


@dataclass(frozen=True)
class LogAnalysis:
    """Everything measured on one log; angles in degrees."""

    name: str
    meta: dict[str, Any]
    steps: int
    block: int
    """Length of the bootstrap's moving blocks, in steps."""
    conflict_rate: Interval
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
        replicates: bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ValueError: for fewer than two tasks or eight steps, or weights that do not fit.
    """
    w = log.task_weights if task_weights is None else np.asarray(task_weights, np.float64)
    tasks, n = len(log.tasks), len(log.steps)
    if w.shape != (tasks,):
        raise ValueError(f"task_weights must be {tasks} numbers for the tasks {log.tasks}, got {w.tolist()}")
    if tasks < 2 or n < 8:
        raise ValueError(f"an analysis needs 2 tasks and 8 steps, {log.folder} has {tasks} and {n}")
    M = log.gramian
    norms = np.sqrt(np.einsum("nii->ni", M))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = M / (norms[:, :, None] * norms[:, None, :])
    stages = came_grad_stages(torch.from_numpy(M), torch.from_numpy(w), rho=rho)
    joint = np.broadcast_to(w, (n, tasks))
    rectified = stages.rectified.numpy()
    angle = _angle(M, joint, rectified)
    worst_joint, worst_rectified = _worst(M, joint), _worst(M, rectified)
    conflict = (M[:, 0, 1:] < 0).any(1)
    block = block_length(cosines[:, 0, 1])

    def interval(series: ArrayLike) -> Interval:
        values = np.asarray(series, np.float64)
        return bootstrap(lambda i: float(np.nanmean(values[i])), n, block=block, replicates=replicates, seed=seed)

    predicted = _closed_form(M, w, rho) if tasks == 2 else None
    return LogAnalysis(
        name=log.name,
        meta=log.meta,
        steps=n,
        block=block,
        conflict_rate=interval(conflict),
        conflict_by_pair={
            f"{log.tasks[i]}–{log.tasks[j]}": interval(M[:, i, j] < 0)
            for i in range(tasks)
            for j in range(i + 1, tasks)
        },
        mean_cosine=interval(cosines[:, 0, 1]),
        harm_rate=interval(((M @ w) < 0).any(1)),
        harm_predicted=None if predicted is None else bool(predicted.harms.any()),
        angle=interval(np.degrees(angle)),
        angle_predicted=None if predicted is None else float(np.degrees(predicted.angle)),
        worst_joint=interval(worst_joint),
        worst_joint_predicted=None if predicted is None else float(predicted.worst_joint),
        worst_rectified=interval(worst_rectified),
        worst_rectified_predicted=None if predicted is None else float(predicted.worst_rectified),
        valid_rate=interval(stages.valid.numpy()),
        norm_ratio=float(np.median(norms[:, 1] / norms[:, 0])),
        diffusion=[_diffusion(frozen, w, replicates, seed) for frozen in log.frozen if len(frozen.losses) >= 8],
        distortion=distortion(log),
        empirical=_empirical(log, w, rho, min(replicates, 1000), seed),
        series={
            "step": log.steps.tolist(),
            "cosine": np.nan_to_num(cosines[:, 0, 1]).tolist(),
            "angle": np.nan_to_num(np.degrees(angle)).tolist(),
        },
    )


def _empirical(log: GradientLog, w: Array, rho: float, replicates: int, seed: int) -> list[EmpiricalSDE]:
    """At every frozen set, with the log's learning rate and the paper's options."""
    rate = float(log.meta.get("learning_rate", 0.0))
    return [
        empirical_sde(frozen, w, options={"rho": rho}, learning_rate=rate, replicates=replicates, seed=seed)
        for frozen in log.frozen
        if len(frozen.losses) >= 8
    ]


def _closed_form(M: Array, w: Array, rho: float) -> t02.Deviation:
    """T2 at the averaged moments: mean squared norms and mean inner product."""
    mean = M.mean(0)
    first, second = np.sqrt(mean[0, 0]), np.sqrt(mean[1, 1])
    return t02.predict(second / first, np.arccos(np.clip(mean[0, 1] / (first * second), -1, 1)), w, rho)


def _diffusion(frozen: FrozenSet, w: Array, replicates: int, seed: int) -> Diffusion:
    p = frozen.projected.astype(np.float64)
    n = len(p)
    inner = frozen.gramian
    mean = frozen.mean_gramian
    if mean is None:
        average = p.mean(0)
        mean = average @ average.T
    traces = n / (n - 1) * (inner.mean(0) - mean)
    own = np.sqrt(np.diag(traces))
    products = np.einsum("aim,bjm->abij", p, p)

    def ratio_of(index: NDArray[np.int64]) -> float:
        """Projected traces, from inner products between the chosen micro-batches alone."""
        chosen = products[np.ix_(index, index)]
        within = np.einsum("aaij->ij", chosen) / len(index)
        return float(trace_ratio(within - chosen.mean((0, 1)), w))

    half = n // 2
    exact = float(trace_ratio(traces, w))
    spread = bootstrap(ratio_of, n, replicates=replicates, seed=seed)
    return Diffusion(
        step=frozen.step,
        micro_batches=n,
        traces=traces.tolist(),
        correlation=(traces / np.outer(own, own)).tolist(),
        ratio=Interval(exact, spread.low + exact - spread.value, spread.high + exact - spread.value),
        direct=_direct(p, w),
        predicted=ratio_of(np.arange(half)),
        held_out=_held_out(p[half:], w, replicates, seed),
        signal_to_noise=np.maximum((np.diag(mean) - np.diag(traces) / n) / np.diag(traces), 0).tolist(),
    )


def _direct(p: Array, w: Array) -> float:
    """Variance of the projected joint gradient itself, over the weighted variances of its parts."""
    joint = np.einsum("k,nkm->nm", w, p)
    own = float((w**2 * p.var(0).sum(-1)).sum())
    return float(joint.var(0).sum()) / own if own > 0 else float("nan")


def _held_out(p: Array, w: Array, replicates: int, seed: int) -> Interval:
    return bootstrap(lambda i: _direct(p[i], w), len(p), replicates=min(replicates, 500), seed=seed)


def _inner(M: Array, x: Array, y: Array) -> Array:
    return np.asarray(np.einsum("ni,nij,nj->n", x, M, y))


def _angle(M: Array, x: Array, y: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = _inner(M, x, y) / np.sqrt(_inner(M, x, x) * _inner(M, y, y))
    return np.asarray(np.arccos(np.clip(cosine, -1, 1)))


def _worst(M: Array, x: Array) -> Array:
    """min_i cos(g_i, Gᵀx)."""
    norms = np.sqrt(np.einsum("nii->ni", M))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.einsum("nij,nj->ni", M, x) / (norms * np.sqrt(_inner(M, x, x))[:, None])
    return np.asarray(cosines.min(1))
