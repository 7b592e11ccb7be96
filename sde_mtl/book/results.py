"""Results that cost minutes or a GPU to make and are kept: of the book and of the benchmarks."""

from pathlib import Path

PACKAGED = Path(__file__).parent / "kept_results"
"""In an installed wheel."""
CHECKOUT = tuple(Path(__file__).parents[2] / folder for folder in ("book/results", "benchmarks/results"))


def cached_result(name: str) -> Path:
    """Path of a kept result, whether this package was installed from a wheel or from a checkout.

    Args:
        name: of the file.

    Raises:
        FileNotFoundError: with the names there are.

    Example:
        >>> cached_result("report-generators-cpu-x86-64-2-cores.json").suffix
        '.json'
    """
    folders = [folder for folder in (PACKAGED, *CHECKOUT) if folder.is_dir()]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    known = sorted({path.name for folder in folders for path in folder.iterdir()})
    raise FileNotFoundError(f"no kept result {name!r}; there are {', '.join(known) or 'none'}")
