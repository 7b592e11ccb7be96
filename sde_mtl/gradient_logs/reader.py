"""Read a gradient log: what a training run recorded of its per-task gradients.

The format is a folder of ``meta.json`` and safetensors shards: consecutive training steps, and sets of
micro-batch gradients at frozen parameters. Incomplete writes (``*.tmp``) are ignored; everything else is checked.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

FORMAT, VERSION = "multi-task-gradient-log", 1
Array = NDArray[np.float64]


class GradientLogError(ValueError):
    """The folder is no readable gradient log; the message names the file and what to do."""


@dataclass(frozen=True)
class FrozenSet:
    """Per-task gradients of n micro-batches at the parameters of one training step.

    Attributes:
        step: the training step.
        losses: (n, K).
        gramian: (n, K, K), exact.
        projected: (n, K, m) float32 random projections.
        mean_gramian: (K, K), the exact Gramian of the n-average gradients; None if the run was killed before.
        basis: (r, m) projections of r orthonormal directions, and
        hessian: (K, r, r) each task's Hessian along them; None unless the run logged curvature.
    """

    step: int
    losses: Array
    gramian: Array
    projected: NDArray[np.float32]
    mean_gramian: Array | None
    basis: Array | None = None
    hessian: Array | None = None


@dataclass(frozen=True)
class GradientLog:
    """Contents of a log with K tasks.

    Attributes:
        folder: where it was read.
        meta: contents of ``meta.json``.
        tasks: names of the K tasks.
        task_weights: (K,).
        steps: (n,) int64 training steps, increasing.
        losses: (n, K).
        gramian: (n, K, K), exact inner products of the task gradients.
        projected: (n, K, m) float32.
        frozen: sets of micro-batch gradients, by step.
    """

    folder: Path
    meta: dict[str, Any]
    tasks: tuple[str, ...]
    task_weights: Array
    steps: NDArray[np.int64]
    losses: Array
    gramian: Array
    projected: NDArray[np.float32]
    frozen: tuple[FrozenSet, ...]

    @property
    def name(self) -> str:
        """Name of the optimizer that trained."""
        return str(self.meta.get("optimizer", {}).get("name", self.folder.name))


def read_log(folder: str | Path) -> GradientLog:
    """Read and check a gradient log.

    Args:
        folder: of the log.

    Raises:
        GradientLogError: for a missing or foreign ``meta.json``, a damaged shard, numbers that are not finite, a
            Gramian that is none, or a log without steps.
    """
    folder = Path(folder)
    meta = _read_meta(folder)
    tasks, weights = tuple(meta["tasks"]), np.asarray(meta["task_weights"], np.float64)
    parts = [_read_shard(path, len(tasks), "step") for path in sorted(folder.glob("steps-*.safetensors"))]
    if not parts:
        raise GradientLogError(f"{folder} holds no steps yet; train longer than one shard with --log-gradients")
    steps = np.concatenate([part["step"] for part in parts])
    if (np.diff(steps) <= 0).any():
        at = int(steps[1:][np.diff(steps) <= 0][0])
        raise GradientLogError(f"{folder}: step {at} comes twice or out of order; shards of two runs are mixed")
    frozen = []
    for number in sorted({path.name.split("-")[1] for path in folder.glob("frozen-*-[0-9]*.safetensors")}):
        shards = [_read_shard(p, len(tasks)) for p in sorted(folder.glob(f"frozen-{number}-[0-9]*.safetensors"))]
        mean = folder / f"frozen-{number}-mean.safetensors"
        joined = {key: np.concatenate([shard[key] for shard in shards]) for key in shards[0]}
        mean_gramian = _load(mean)["mean_gramian"] if mean.exists() else None
        curvature = _read_curvature(folder / f"frozen-{number}-curvature.safetensors", joined["projected"].shape)
        basis, hessian = curvature.get("basis"), curvature.get("hessian")
        frozen.append(FrozenSet(int(number), mean_gramian=mean_gramian, **joined, basis=basis, hessian=hessian))
    return GradientLog(
        folder=folder,
        meta=meta,
        tasks=tasks,
        task_weights=weights,
        steps=steps,
        losses=np.concatenate([part["losses"] for part in parts]),
        gramian=np.concatenate([part["gramian"] for part in parts]),
        projected=np.concatenate([part["projected"] for part in parts]),
        frozen=tuple(frozen),
    )


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not folder.is_dir():
        raise GradientLogError(f"{folder} is no folder; give the 'gradients' folder of a run with --log-gradients")
    try:
        meta = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise GradientLogError(f"{path} is missing; give the 'gradients' folder of a training run") from error
    except ValueError as error:
        raise GradientLogError(f"{path} is damaged: {error}") from error
    if meta.get("format") != FORMAT or meta.get("version") != VERSION:
        says = f"{meta.get('format')!r} version {meta.get('version')!r}"
        raise GradientLogError(f"{path} says {says}, this reader knows {FORMAT!r} version {VERSION}")
    if not meta.get("tasks") or len(meta["tasks"]) != len(meta.get("task_weights", [])):
        raise GradientLogError(f"{path} must name the tasks and give each a weight")
    return dict(meta)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise GradientLogError(f"{path} is damaged ({error}); remove it to use the rest of the log") from error


def _read_shard(path: Path, tasks: int, *more: str) -> dict[str, NDArray[Any]]:
    shard = _load(path)
    missing = {"losses", "gramian", "projected", *more} - shard.keys()
    if missing:
        raise GradientLogError(f"{path} lacks {sorted(missing)}; remove it to use the rest of the log")
    n = len(shard["losses"])
    if shard["gramian"].shape != (n, tasks, tasks) or shard["projected"].shape[:2] != (n, tasks):
        raise GradientLogError(
            f"{path} has Gramians of shape {shard['gramian'].shape}, expected {(n, tasks, tasks)} from meta.json"
        )
    for name, array in shard.items():
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise GradientLogError(f"{path}: {name} of row {row} is not finite; remove the shard to use the rest")
    if (np.einsum("nii->ni", shard["gramian"]) < 0).any():
        raise GradientLogError(f"{path}: a squared gradient norm is negative; the file was not written by training")
    return shard


def _read_curvature(path: Path, shape: tuple[int, ...]) -> dict[str, Array]:
    """Basis and Hessians of a frozen set whose projections have ``shape`` (n, K, m); empty if none were logged."""
    if not path.exists():
        return {}
    curvature = _load(path)
    missing = {"basis", "hessian"} - curvature.keys()
    if missing:
        raise GradientLogError(f"{path} lacks {sorted(missing)}; remove it to use the rest of the log")
    basis, hessian = curvature["basis"].astype(np.float64), curvature["hessian"]
    if basis.shape[1:] != shape[2:] or hessian.shape != (shape[1], len(basis), len(basis)):
        raise GradientLogError(
            f"{path} has a basis of shape {basis.shape} and Hessians of {hessian.shape}, expected (r, {shape[2]}) and "
            f"({shape[1]}, r, r); remove it to use the rest of the log"
        )
    if not np.isfinite(basis).all() or not np.isfinite(hessian).all():
        raise GradientLogError(f"{path} is not finite; remove it to use the rest of the log")
    return {"basis": basis, "hessian": hessian}
