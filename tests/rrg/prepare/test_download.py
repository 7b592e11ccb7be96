import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from rrg.prepare.download import DownloadFailed
from rrg.prepare.download import download as patient_download

PAYLOAD = np.random.default_rng(0).bytes(300_000)
download = partial(patient_download, pause=0)


class Server(ThreadingHTTPServer):
    """Serves PAYLOAD, and misbehaves as told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.payload, self.ranges, self.cut, self.announced = PAYLOAD, True, [0], 0
        self.statuses: list[int] = []
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.tgz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start = int(asked.split("=")[1].strip("-")) if asked and server.ranges else 0
        if start >= len(server.payload):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.payload)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.payload[start:]
        self.send_response(206 if asked and server.ranges else 200)
        if asked and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(server.payload) - 1}/{len(server.payload)}")
        self.send_header("Content-Length", str(len(body) + server.announced))
        self.end_headers()
        cut = server.cut.pop(0) if server.cut else 0
        self.wfile.write(body[: len(body) - cut])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_file_arrives_whole_and_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.tgz"
    assert download(server.url, path, sha256=hashlib.sha256(PAYLOAD).hexdigest()).read_bytes() == PAYLOAD
    assert download(server.url, path) == path
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["file.tgz"]


def test_a_cut_connection_is_continued(server: Server, tmp_path: Path) -> None:
    server.cut = [200_000, 50_000]
    assert download(server.url, tmp_path / "f").read_bytes() == PAYLOAD
    assert server.asked == [None, "bytes=100000-", "bytes=250000-"]


def test_a_killed_download_is_continued_by_the_next(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(PAYLOAD[:123_456])
    assert download(server.url, tmp_path / "f").read_bytes() == PAYLOAD
    assert server.asked == ["bytes=123456-"]


def test_a_server_without_ranges_begins_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cut = [200_000]
    assert download(server.url, tmp_path / "f").read_bytes() == PAYLOAD
    assert server.asked == [None, "bytes=100000-"]


def test_a_wrong_size_is_told_and_nothing_takes_the_final_name(server: Server, tmp_path: Path) -> None:
    server.announced, server.ranges = 7, False
    with pytest.raises(DownloadFailed, match=r"300000 of 300007 bytes arrived; 300000 bytes are kept in .*f\.part"):
        download(server.url, tmp_path / "f", attempts=2)
    assert [p.name for p in tmp_path.iterdir()] == ["f.part"]


def test_a_part_that_is_whole_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(PAYLOAD)
    assert download(server.url, tmp_path / "f").read_bytes() == PAYLOAD
    assert server.asked == [f"bytes={len(PAYLOAD)}-"]


def test_a_part_of_another_file_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(PAYLOAD + b"more")
    assert download(server.url, tmp_path / "f").read_bytes() == PAYLOAD


def test_another_file_than_expected_is_not_used(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"has SHA-256 [0-9a-f]{64}, expected 00; not used"):
        download(server.url, tmp_path / "f", sha256="00")
    assert list(tmp_path.iterdir()) == []


def test_a_busy_server_is_asked_again_a_missing_file_is_not(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 500]
    assert download(server.url, tmp_path / "f").read_bytes() == PAYLOAD
    server.statuses = [404, 404]
    with pytest.raises(DownloadFailed, match="HTTP 404"):
        download(server.url, tmp_path / "g")
    assert server.statuses == [404]


def test_without_network(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"refused.*the same command goes on"):
        download("http://127.0.0.1:9/file.tgz", tmp_path / "f", attempts=1)
    with pytest.raises(ValueError, match="can only download http"):
        download("file:///etc/hostname", tmp_path / "f")


def test_a_full_disk_keeps_what_arrived(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the disk's own; the part stays for the next call."""
    (tmp_path / "f.part").write_bytes(PAYLOAD[:1000])
    opened: Callable[..., object] = Path.open

    def full(path: Path, mode: str = "r", *args: object) -> object:
        if "a" in mode:
            raise OSError(28, "No space left on device")
        return opened(path, mode, *args)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left") as caught:
        download(server.url, tmp_path / "f")
    assert not isinstance(caught.value, DownloadFailed)
    assert (tmp_path / "f.part").stat().st_size == 1000
