"""Download a file that is large: what has arrived survives interruptions, and its size is checked."""

import hashlib
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

BLOCK = 1 << 20


class DownloadFailed(OSError):
    """The file did not arrive whole; the message says how much did, and what to do."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    attempts: int = 5,
    timeout: float = 60.0,
    pause: float = 2.0,
    console: Console | None = None,
) -> Path:
    """Download to ``path``, unless it is there.

    What has arrived is in ``path.part``; this call and later ones go on from it by HTTP Range, or begin again where the
    server does not support that. The final name is taken once the size is the one the server announced.

    Args:
        url: http or https.
        path: file to write; its folder is made.
        sha256: expected, hexadecimal.
        attempts: connections in a row that may bring nothing new.
        timeout: of a silent connection, in seconds.
        pause: before the second such connection, in seconds; it grows with each.
        console: shows progress if given.

    Returns:
        ``path``.

    Raises:
        ValueError: for another kind of URL.
        DownloadFailed: if the file does not arrive whole, or is not the expected one.
        OSError: if it cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"can only download http:// and https:// addresses, not {url!r}")
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with _progress(console) as progress:
        task = progress.add_task(path.name, total=None)
        attempts_left, error = attempts, "nothing arrived"
        while attempts_left:
            before = _size(part)
            try:
                total = _receive(url, part, timeout, progress, task)
            except (HTTPException, urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError) as problem:
                if isinstance(problem, urllib.error.HTTPError) and problem.code < 500:
                    raise DownloadFailed(f"{url}: HTTP {problem.code} {problem.reason}") from problem
                error = str(problem) or type(problem).__name__
            else:
                if total is None or _size(part) == total:
                    break
                error = f"{_size(part)} of {total} bytes arrived"
                if _size(part) > total:
                    part.unlink()
            attempts_left = attempts if _size(part) > before else attempts_left - 1
            time.sleep(pause * (attempts - attempts_left))
        else:
            raise DownloadFailed(
                f"{url}: {error}; {_size(part)} bytes are kept in {part}, the same command goes on from there"
            )
    if sha256 is not None and (digest := _digest(part)) != sha256:
        part.unlink()
        raise DownloadFailed(f"{url} has SHA-256 {digest}, expected {sha256}; not used")
    part.replace(path)
    return path


def _receive(url: str, part: Path, timeout: float, progress: Progress, task: TaskID) -> int | None:
    """Append what one connection brings; the announced size of the whole, None if there was none."""
    request = urllib.request.Request(url)
    have = _size(part)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the part is not shorter than the file
            raise
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if whole is None or int(whole[1]) != have:
            part.unlink()
            raise ConnectionError(f"{have} bytes were kept of a file that has changed; they are dropped") from error
        return have
    with response:
        length = response.headers.get("Content-Length")
        total = None if length is None else int(length)
        if response.status == 206:
            sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if sent is None or int(sent[1]) != have:
                part.unlink()
                raise ConnectionError(f"the server answered another range than {have}-; the part is dropped")
            total = int(sent[2])
        else:
            have = 0
        with part.open("ab" if have else "wb") as file:
            progress.update(task, completed=have, total=total)
            while block := response.read(BLOCK):
                file.write(block)
                progress.advance(task, len(block))
            file.flush()
            os.fsync(file.fileno())
    return total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=console, disable=console is None,
    )  # fmt: skip
