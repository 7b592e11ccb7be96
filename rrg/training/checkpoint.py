"""Checkpoints without pickle: tensors in safetensors, the rest in JSON, a folder that appears whole or not at all.

checkpoints/step-000300/model.safetensors   weights
                        state.safetensors   tensors of the optimizer and random states
                        state.json          everything else of that state
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from optimizers.files import write_json
from rrg.files import write_tensors

KEEP = 2


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or belongs to another model; the message says which file."""


def save(folder: Path, step: int, model: nn.Module, state: dict[str, Any]) -> Path:
    """Write ``folder/step-NNNNNN`` and remove all but the newest :data:`KEEP` checkpoints.

    Args:
        folder: of the run's checkpoints, created if missing.
        step: number of steps made.
        model: its ``state_dict`` is saved; tensors shared between names are stored once.
        state: nested dictionaries and lists of tensors and plain values; floats are kept exactly.

    Returns:
        the checkpoint's folder.

    Raises:
        ValueError: for values that are neither tensors nor plain.
    """
    final = folder / f"step-{step:06d}"
    temporary = folder / f"{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    plain = _pack(state, "state", tensors)
    try:
        write_tensors(temporary / "model.safetensors", dict(_unshared(model)))
        write_tensors(temporary / "state.safetensors", tensors)
        write_json(temporary / "state.json", plain)
    except OSError:  # a full disk: make room again
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    for old in steps(folder)[:-KEEP]:
        shutil.rmtree(old)
    return final


def steps(folder: Path) -> list[Path]:
    """Complete checkpoints in the folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".tmp")


def step_of(checkpoint: Path) -> int:
    """Number of steps that a checkpoint's run had made.

    Example:
        >>> step_of(Path("checkpoints/step-000300"))
        300
    """
    return int(checkpoint.name.split("-")[1])


def latest(folder: Path) -> Path:
    """Newest checkpoint.

    Raises:
        CheckpointError: if there is none.
    """
    written = steps(folder)
    if not written:
        raise CheckpointError(f"no checkpoint in {folder}; train first, or look in another folder")
    return written[-1]


def load_model(checkpoint: Path, model: nn.Module) -> None:
    """Load the weights into a model of the same architecture.

    Raises:
        CheckpointError: if the file is missing, damaged, or has other names or shapes.
    """
    path = checkpoint / "model.safetensors"
    saved = _read_tensors(path)
    expected = dict(_unshared(model))
    different = sorted(
        name
        for name in saved.keys() | expected.keys()
        if name not in saved or name not in expected or saved[name].shape != expected[name].shape
    )
    if different:
        raise CheckpointError(f"{path} does not fit the model: {len(different)} tensors differ, first {different[0]}")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(saved[name])


def load_state(checkpoint: Path) -> dict[str, Any]:
    """What :func:`save` was given as ``state``, tensors on the CPU.

    Raises:
        CheckpointError: if a file is missing or damaged.
    """
    path = checkpoint / "state.json"
    try:
        plain = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; use an older checkpoint") from error
    state = _unpack(plain, _read_tensors(checkpoint / "state.safetensors"))
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state of a run; use an older checkpoint")
    return state


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; use an older checkpoint") from error


def _unshared(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and persistent buffers, shared ones under their first name only."""
    seen: set[int] = set()
    unshared = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unshared.append((name, tensor.detach()))
    return unshared


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON form of the value: containers tagged by kind, tensors moved out under their path."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        items = [[k, _pack(v, f"{name}.{k}", tensors)] for k, v in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        return {"list": [_pack(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"cannot save {name}: {type(value).__name__} is neither tensor nor plain value")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "list" in value:
        return [_unpack(v, tensors) for v in value["list"]]
    return {k: _unpack(v, tensors) for k, v in value["dict"]}
