"""Gradient logs with known laws, written without the training code."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

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
) -> Path:
    """Write a log whose projection is the identity."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    g = gradients(rng, steps, correlation=correlation, mean_cosine=mean_cosine)
    meta = {
        "format": "multi-task-gradient-log", "version": 1, "tasks": ["rg", "dc"], "task_weights": [1.0, 2.0],
        "parameters": g.shape[2], "projection": {"kind": "countsketch", "dim": g.shape[2], "seed": 0},
        "optimizer": {"name": name}, "dataset": {"name": "synthetic", "images": "none"},
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta))
    for number, first in enumerate(range(0, steps, shard)):
        part = g[first : first + shard]
        save_file(
            {"step": np.arange(first, first + len(part)), **_tensors(part)}, folder / f"steps-{number:06d}.safetensors"
        )
    frozen = gradients(rng, micro_batches, correlation=correlation, mean_cosine=mean_cosine)
    for number, first in enumerate(range(0, micro_batches, 16)):
        save_file(_tensors(frozen[first : first + 16]), folder / f"frozen-000010-{number:06d}.safetensors")
    mean = frozen.mean(0)
    save_file(
        {"mean_gramian": mean @ mean.T, "count": np.array([micro_batches])}, folder / "frozen-000010-mean.safetensors"
    )
    return folder


def _tensors(g: Array) -> dict[str, NDArray]:
    return {
        "losses": np.ones(g.shape[:2]),
        "gramian": np.einsum("nid,njd->nij", g, g),
        "projected": g.astype(np.float32),
    }
