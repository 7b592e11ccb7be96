"""Paths among the options of a command."""

from pathlib import Path


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
