"""Files of a .tgz, streamed: nothing is unpacked to disk, and unsafe names are refused."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


class DamagedArchive(ValueError):
    """An archive that is truncated, no archive, or holds names that would leave a folder."""


def members(path: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Name, without folders, and contents of each file with the suffix, in the order of the archive.

    Args:
        path: a .tar, .tgz or .tar.gz.
        suffix: such as ``.xml``.

    Raises:
        DamagedArchive: as soon as the damage is met; for an absolute name, a name with ``..``, or a link.

    Example:
        >>> import io, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.tgz"
        ...     with tarfile.open(path, "w:gz") as archive:
        ...         archive.addfile(tarfile.TarInfo("reports/1.xml"), io.BytesIO())
        ...     list(members(path, ".xml"))
        [('1.xml', b'')]
    """
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or member.issym() or member.islnk():
                    raise DamagedArchive(f"{path} holds the unsafe entry {member.name!r}; not used")
                file = archive.extractfile(member) if member.isfile() and name.suffix == suffix else None
                if file is not None:
                    yield name.name, file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DamagedArchive(f"cannot read {path}: {error}; delete it or give an intact copy") from error
