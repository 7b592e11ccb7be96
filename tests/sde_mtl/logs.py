"""Gradient logs with known laws, written without the training code."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sde_mtl.gradient_logs import FrozenSet

Array = NDArray[np.float64]


def gradients(
    rng: np.random.Generator, n: int, *, correlation: float, mean_cosine: float = 0.3, noise: float = 3.0, d: int = 40
) -> Array:
    """(n, 2, d): unit means at the given cosine, isotropic noise of total variance noise² with cross-correlation."""
    mean = np.zeros((2, d))
    mean[0, 0] = 1.0
    mean[1, :2] = mean_cosine, np.sqrt(1 - mean_cosine**2)
    root = np.linalg.cholesky([[1, correlation], [correlation, 1]])
    return mean + noise / np.sqrt(d) * np.einsum("ij,njd->nid", root, rng.normal(size=(n, 2, d)))


def split_frozen(
    rng: np.random.Generator,
    n: int,
    means: Array,
    *,
    noise: float,
    together: float = 0.0,
    head: float = 0.0,
    d: int = 60,
) -> FrozenSet:
    """Micro-batches of K tasks whose shared gradients have the given means and noise of total variance noise².

    Args:
        means: (K, r) of the first coordinates.
        noise: root of tr Σ_ii.
        together: correlation of the tasks' noise in one micro-batch.
        head: length of each task's own gradient, in coordinates of its own.
    """
    tasks = len(means)
    root = np.linalg.cholesky((1 - together) * np.eye(tasks) + together)
    shared = noise / np.sqrt(d) * np.einsum("ij,njd->nid", root, rng.normal(size=(n, tasks, d)))
    shared[:, :, : means.shape[1]] += means
    own = np.broadcast_to(head * np.eye(tasks), (n, tasks, tasks))
    parts = [np.einsum("nid,njd->nij", part, part) for part in (shared, own)]
    mean_parts = [part.mean(0) @ part.mean(0).T for part in (shared, own)]
    g = np.concatenate([shared, own], 2)
    return FrozenSet(
        0, np.ones((n, tasks)), parts[0] + parts[1], g, mean_parts[0] + mean_parts[1],
        gramian_groups=np.stack(parts, 1), mean_gramian_groups=np.stack(mean_parts), projected_shared=shared,
        projected_groups=np.stack([np.pad(shared, ((0, 0), (0, 0), (0, tasks))),
                                   np.pad(own, ((0, 0), (0, 0), (d, 0)))], 1),
    )  # fmt: skip


def write_log(
    folder: Path,
    *,
    steps: int = 60,
    correlation: float = 0.0,
    micro_batches: int = 40,
    seed: int = 0,
    name: str = "linear",
    shard: int = 25,
    mean_cosine: float = 0.3,
    head: float | None = None,
) -> Path:
    """Write a log whose projection is the identity: of version 1, or 2 with heads of the given length."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    g = gradients(rng, steps, correlation=correlation, mean_cosine=mean_cosine)
    meta = {
        "format": "multi-task-gradient-log", "version": 1, "tasks": ["rg", "dc"], "task_weights": [1.0, 2.0],
        "parameters": g.shape[2], "projection": {"kind": "countsketch", "dim": g.shape[2], "seed": 0},
        "optimizer": {"name": name}, "dataset": {"name": "synthetic", "images": "none"},
    }  # fmt: skip
    if head is not None:
        meta["version"] = 2
        meta["groups"] = [
            {"name": "trunk", "tensors": [0], "parameters": 40, "reached_by": ["rg", "dc"], "shared": True},
            {"name": "head (rg)", "tensors": [1], "parameters": 1, "reached_by": ["rg"], "shared": False},
            {"name": "head (dc)", "tensors": [2], "parameters": 1, "reached_by": ["dc"], "shared": False},
        ]
    (folder / "meta.json").write_text(json.dumps(meta))
    for number, first in enumerate(range(0, steps, shard)):
        part = g[first : first + shard]
        save_file(
            {"step": np.arange(first, first + len(part)), **_tensors(part, head)},
            folder / f"steps-{number:06d}.safetensors",
        )
    frozen = gradients(rng, micro_batches, correlation=correlation, mean_cosine=mean_cosine)
    for number, first in enumerate(range(0, micro_batches, 16)):
        save_file(_tensors(frozen[first : first + 16], head), folder / f"frozen-000010-{number:06d}.safetensors")
    means = _tensors(frozen.mean(0, keepdims=True), head)
    kept = {f"mean_{name}": means[name][0] for name in ("gramian", "gramian_groups") if name in means}
    save_file({**kept, "count": np.array([micro_batches])}, folder / "frozen-000010-mean.safetensors")
    return folder


def _tensors(g: Array, head: float | None = None) -> dict[str, NDArray]:
    n, tasks, _ = g.shape
    trunk = np.einsum("nid,njd->nij", g, g)
    tensors = {"losses": np.ones((n, tasks)), "gramian": trunk, "projected": g.astype(np.float32)}
    if head is not None:
        own = [np.broadcast_to(head**2 * np.diag(row), trunk.shape) for row in np.eye(tasks)]
        tensors["gramian"] = trunk + sum(own)
        tensors["gramian_groups"] = np.stack([trunk, *own], 1)
        heads = np.broadcast_to(head * np.eye(tasks), (n, tasks, tasks))
        tensors["projected"] = np.concatenate([g, heads], 2).astype(np.float32)
        tensors["projected_shared"] = np.concatenate([g, 0 * heads], 2).astype(np.float32)
        alone = [np.pad(heads * row, ((0, 0), (0, 0), (g.shape[2], 0))) for row in np.eye(tasks)]
        tensors["projected_groups"] = np.stack([tensors["projected_shared"], *alone], 1).astype(np.float32)
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
