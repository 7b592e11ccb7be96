"""Read a gradient log: what a training run recorded of its per-task gradients.

The format is a folder of ``meta.json`` and safetensors shards: consecutive training steps, and sets of
micro-batch gradients at frozen parameters. Incomplete writes (``*.tmp``) are ignored; everything else is checked.

Version 2 tells groups of parameters apart. Of a log of version 1 only what holds for all parameters can be read; its
:attr:`GradientLog.shared` is None.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

ROWS = ("losses", "gramian", "projected", "gramian_groups", "projected_shared")
FORMAT, VERSIONS = "multi-task-gradient-log", (1, 2)
Array = NDArray[np.float64]


class GradientLogError(ValueError):
    """The folder is no readable gradient log; the message names the file and what to do."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of one part of a model, all of them reached by the same tasks.

    Attributes:
        name: of the part.
        parameters: scalars.
        reached_by: tasks whose gradients are not all zero there.
        shared: whether those are two or more.
    """

    name: str
    parameters: int
    reached_by: tuple[str, ...]
    shared: bool


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
        gramian_groups: (n, G, K, K), exact for each group of parameters;
        mean_gramian_groups: (G, K, K), likewise of the n-average gradients; and
        projected_shared: (n, K, m) projections of the shared parameters; None in logs of version 1.
        projected_groups: (n, G, K, q) projections of each group, q ≤ m; None in logs of version 1.
    """

    step: int
    losses: Array
    gramian: Array
    projected: NDArray[np.float32]
    mean_gramian: Array | None
    basis: Array | None = None
    hessian: Array | None = None
    gramian_groups: Array | None = None
    mean_gramian_groups: Array | None = None
    projected_shared: NDArray[np.float32] | None = None
    projected_groups: NDArray[np.float32] | None = None

    def restricted(self, members: NDArray[np.bool_]) -> "FrozenSet | None":
        """The gradients of the shared parameters alone, whose groups are the ``members`` (G,); None in version 1."""
        if self.gramian_groups is None or self.projected_shared is None:
            return None
        means = self.mean_gramian_groups
        mean = None if means is None else means[members].sum(0)
        gramian = self.gramian_groups[:, members].sum(1)
        return FrozenSet(self.step, self.losses, gramian, self.projected_shared, mean)


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
        groups: G groups of parameters; none in a log of version 1.
        gramian_groups: (n, G, K, K), the Gramians of each group, whose sum is ``gramian``; and
        projected_shared: (n, K, m) float32, projections of the shared parameters; None in a log of version 1.
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
    groups: tuple[ParameterGroup, ...] = ()
    gramian_groups: Array | None = None
    projected_shared: NDArray[np.float32] | None = None

    @property
    def shared(self) -> "GradientLog | None":
        """The same log of the parameters that two tasks or more reach; None if it does not tell them apart.

        Its Gramians differ from those of all parameters in their diagonals only.
        """
        members = np.array([group.shared for group in self.groups], bool)
        if self.gramian_groups is None or self.projected_shared is None or not members.any():
            return None
        sets = [frozen.restricted(members) for frozen in self.frozen]
        return replace(
            self,
            meta={**self.meta, "parameters": sum(group.parameters for group in self.groups if group.shared)},
            gramian=self.gramian_groups[:, members].sum(1),
            projected=self.projected_shared,
            frozen=tuple(batches for batches in sets if batches is not None),
            groups=(),
            gramian_groups=None,
            projected_shared=None,
        )

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
    groups = len(meta.get("groups", []))
    parts = [_read_shard(path, len(tasks), groups, "step") for path in sorted(folder.glob("steps-*.safetensors"))]
    if not parts:
        raise GradientLogError(f"{folder} holds no steps yet; train longer than one shard with --log-gradients")
    steps = np.concatenate([part["step"] for part in parts])
    if (np.diff(steps) <= 0).any():
        at = int(steps[1:][np.diff(steps) <= 0][0])
        raise GradientLogError(f"{folder}: step {at} comes twice or out of order; shards of two runs are mixed")
    frozen = []
    for number in sorted({path.name.split("-")[1] for path in folder.glob("frozen-*-[0-9]*.safetensors")}):
        shards = [
            _read_shard(p, len(tasks), groups) for p in sorted(folder.glob(f"frozen-{number}-[0-9]*.safetensors"))
        ]
        mean = folder / f"frozen-{number}-mean.safetensors"
        joined = _joined(shards, *ROWS, "projected_groups")
        means = _load(mean) if mean.exists() else {}
        curvature = _read_curvature(folder / f"frozen-{number}-curvature.safetensors", joined["projected"].shape)
        basis, hessian = curvature.get("basis"), curvature.get("hessian")
        frozen.append(
            FrozenSet(
                int(number), mean_gramian=means.get("mean_gramian"), **joined, basis=basis, hessian=hessian,
                mean_gramian_groups=means.get("mean_gramian_groups"),
            )
        )  # fmt: skip
    joined = _joined(parts, *ROWS)
    return GradientLog(
        folder=folder,
        meta=meta,
        tasks=tasks,
        task_weights=weights,
        steps=steps,
        frozen=tuple(frozen),
        groups=_groups(meta),
        **joined,
    )


def _joined(parts: list[dict[str, NDArray[Any]]], *names: str) -> dict[str, NDArray[Any]]:
    """These rows of all shards; those that only some shards have, of a run that was resumed by another version, go."""
    return {name: np.concatenate([part[name] for part in parts]) for name in names if all(name in p for p in parts)}


def _groups(meta: dict[str, Any]) -> tuple[ParameterGroup, ...]:
    return tuple(
        ParameterGroup(g["name"], g["parameters"], tuple(g["reached_by"]), g["shared"]) for g in meta.get("groups", [])
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
    if meta.get("format") != FORMAT or meta.get("version") not in VERSIONS:
        says = f"{meta.get('format')!r} version {meta.get('version')!r}"
        raise GradientLogError(f"{path} says {says}, this reader knows {FORMAT!r} versions 1 and 2")
    if not meta.get("tasks") or len(meta["tasks"]) != len(meta.get("task_weights", [])):
        raise GradientLogError(f"{path} must name the tasks and give each a weight")
    return dict(meta)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise GradientLogError(f"{path} is damaged ({error}); remove it to use the rest of the log") from error


def _read_shard(path: Path, tasks: int, groups: int, *more: str) -> dict[str, NDArray[Any]]:
    shard = _load(path)
    missing = {"losses", "gramian", "projected", *more} - shard.keys()
    if missing:
        raise GradientLogError(f"{path} lacks {sorted(missing)}; remove it to use the rest of the log")
    n = len(shard["losses"])
    if shard["gramian"].shape != (n, tasks, tasks) or shard["projected"].shape[:2] != (n, tasks):
        raise GradientLogError(
            f"{path} has Gramians of shape {shard['gramian'].shape}, expected {(n, tasks, tasks)} from meta.json"
        )
    if groups and shard.get("gramian_groups", np.empty((n, groups, tasks, tasks))).shape != (n, groups, tasks, tasks):
        raise GradientLogError(
            f"{path} has Gramians of groups of shape {shard['gramian_groups'].shape}, expected "
            f"{(n, groups, tasks, tasks)} from meta.json; remove it to use the rest of the log"
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
