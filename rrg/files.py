"""What a run writes and reads beside JSON: tensors; and paths among the options of a command."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from optimizers.files import write_bytes


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all; tensors may lie on any device."""
    data = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(data))


def check_exist(options: object, *names: str) -> None:
    """Refuse paths that lead nowhere; None is no path.

    Raises:
        ValueError: naming the option and the path.

    Example:
        >>> from types import SimpleNamespace
        >>> check_exist(SimpleNamespace(reports=None, images=Path("nowhere")), "reports", "images")
        Traceback (most recent call last):
        ...
        ValueError: images: nowhere does not exist
    """
    for name in names:
        path: Path | None = getattr(options, name)
        if path is not None and not path.exists():
            raise ValueError(f"{name}: {path} does not exist")
