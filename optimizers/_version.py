"""The version of the distribution with which all three packages come."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """What the installed distribution calls itself; ``0+unknown`` for sources that were not installed.

    Example:
        >>> installed_version().split(".")[0]
        '0'
    """
    try:
        return version("sde-mtl")
    except PackageNotFoundError:
        return "0+unknown"
