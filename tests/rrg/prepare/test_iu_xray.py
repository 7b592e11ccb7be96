import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rrg.data.archives import DamagedArchive, members
from rrg.data.corpus import load
from rrg.data.study import SPLITS, split_of
from rrg.errors import ReportsUnavailable
from rrg.prepare import iu_xray
from rrg.prepare.iu_xray import IuXrayConfig, prepare_iu_xray

STUDIES = 30


def report(number: int, images: int = 2, findings: str = "The heart is enlarged.") -> bytes:
    """A report in the collection's schema, in own words."""
    parents = "".join(f'<parentImage id="CXR{number}_IM-{number:04}-{view}001"/>' for view in range(1, images + 1))
    return (
        f'<eCitation><uId id="CXR{number}"/><AbstractText Label="FINDINGS">{findings}</AbstractText>{parents}'
        "</eCitation>"
    ).encode()


def png(number: int, view: int, size: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (4 * number, 4 * number, 4 * number + view)).save(file, "PNG")
    return file.getvalue()


def write_archive(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def images_of(number: int, images: int = 2) -> list[tuple[str, bytes]]:
    return [(f"CXR{number}_IM-{number:04}-{view}001.png", png(number, view)) for view in range(1, images + 1)]


@pytest.fixture
def config(tmp_path: Path) -> IuXrayConfig:
    """Thirty usable studies; CXR30 has one view, CXR31 has three, CXR32 no findings."""
    numbers = [(n, 2) for n in range(STUDIES)] + [(30, 1), (31, 3), (32, 2)]
    reports = write_archive(
        tmp_path / "NLMCXR_reports.tgz",
        [(f"ecgen-radiology/{n}.xml", report(n, views, "" if n == 32 else f"Heart {n}.")) for n, views in numbers],
    )
    images = write_archive(tmp_path / "NLMCXR_png.tgz", [i for n, views in numbers for i in images_of(n, views)])
    return IuXrayConfig(tmp_path / "out", reports, images, size=32)


def test_studies_views_and_splits(config: IuXrayConfig) -> None:
    console = Console(record=True, width=150)
    path = prepare_iu_xray(config, console)
    whole = json.loads(path.read_text())
    entries = {entry["id"]: entry for split in SPLITS for entry in whole[split]}
    assert sorted(entries) == sorted(f"CXR{n}" for n in [*range(STUDIES), 31])
    assert entries["CXR31"] == {
        "id": "CXR31", "subject_id": "CXR31", "report": "Heart 31.", "split": split_of("CXR31"),
        "image_path": ["CXR31/0.png", "CXR31/1.png"],
    }  # fmt: skip
    assert all(entry["split"] == split_of(name) for name, entry in entries.items())
    with Image.open(config.out / "images" / "CXR7" / "1.png") as image:
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("L", (43, 32), 28)
    assert whole["info"]["left_out"] == {"no findings section": 1, "fewer images than 2": 1}
    assert whole["info"]["counts"]["images"] == {split: 2 * len(whole[split]) for split in SPLITS}
    assert "CC BY-NC-ND 4.0" in whole["info"]["attribution"]
    assert "IU X-Ray: radiographs" in console.export_text()
    assert not (config.out / "preparing.json").exists()
    assert len(load("r2gen", annotation=path).studies) == 31


def test_one_view_and_files_kept_as_they_are(config: IuXrayConfig) -> None:
    path = prepare_iu_xray(dataclasses.replace(config, views=1, size=0))
    whole = json.loads(path.read_text())
    assert sum(len(whole[split]) for split in SPLITS) == 32
    assert (config.out / "images" / "CXR30" / "0.png").read_bytes() == png(30, 1)
    assert not list(config.out.rglob("1.png"))


def test_folders_instead_of_archives(config: IuXrayConfig, tmp_path: Path) -> None:
    from_archives = prepare_iu_xray(config).read_text()
    for archive, suffix in ((config.reports, ".xml"), (config.images, ".png")):
        assert archive is not None
        (tmp_path / archive.stem).mkdir()
        for name, data in members(archive, suffix):
            (tmp_path / archive.stem / name).write_bytes(data)
    unpacked = dataclasses.replace(
        config, reports=tmp_path / "NLMCXR_reports", images=tmp_path / "NLMCXR_png", out=tmp_path / "again"
    )
    again, first = json.loads(prepare_iu_xray(unpacked).read_text()), json.loads(from_archives)
    assert all(again[split] == first[split] for split in SPLITS)


def test_the_split_of_another_annotation(config: IuXrayConfig, tmp_path: Path) -> None:
    theirs = {"train": [{"id": "CXR3_IM-0003"}, {"id": "CXR1_1_IM-0001"}], "val": [{"id": "CXR5_IM-5"}],
              "test": [{"id": "CXR4_IM-4-0001"}]}  # fmt: skip
    (tmp_path / "r2gen.json").write_text(json.dumps(theirs))
    path = prepare_iu_xray(dataclasses.replace(config, split_from=tmp_path / "r2gen.json"))
    whole = json.loads(path.read_text())
    assert {s: [e["id"] for e in whole[s]] for s in SPLITS} == {"train": ["CXR1", "CXR3"], "val": ["CXR5"],
                                                                "test": ["CXR4"]}  # fmt: skip
    assert whole["info"]["left_out"]["not in the split file"] == 27


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({"train": [{"id": "CXR999_IM-1"}], "val": [], "test": []}, "1 of its 1 studies .* such as CXR999"),
        ({"train": [{"id": "CXR1_IM-1"}], "val": [], "test": [{"id": "CXR1_IM-1"}]}, "CXR1 is in train and test"),
        ({"train": []}, "must hold the lists train, val and test"),
    ],
)
def test_a_split_file_that_does_not_fit(
    config: IuXrayConfig, tmp_path: Path, theirs: dict[str, object], told: str
) -> None:
    (tmp_path / "r2gen.json").write_text(json.dumps(theirs))
    with pytest.raises(ValueError, match=told):
        prepare_iu_xray(dataclasses.replace(config, split_from=tmp_path / "r2gen.json"))
    assert not (config.out / "annotation.json").exists()


def damage(config: IuXrayConfig) -> None:
    """CXR2's second image is missing, CXR3's first is cut."""
    assert config.images is not None
    files = [i for n in [*range(STUDIES), 31] for i in images_of(n)]
    kept = [(name, data[:50] if name == "CXR3_IM-0003-1001.png" else data)
            for name, data in files if name != "CXR2_IM-0002-2001.png"]  # fmt: skip
    write_archive(config.images, kept)


def test_missing_and_broken_images_are_told_or_left_out(config: IuXrayConfig) -> None:
    damage(config)
    with pytest.raises(
        ValueError, match=r"missing: 1 \(CXR2_IM-0002-2001.png\)\n  broken: 1 \(CXR3_IM-0003-1001.png\)"
    ):
        prepare_iu_xray(config)
    assert not (config.out / "annotation.json").exists()
    path = prepare_iu_xray(dataclasses.replace(config, skip_bad=True))
    whole = json.loads(path.read_text())
    assert not {"CXR2", "CXR3"} & {entry["id"] for split in SPLITS for entry in whole[split]}
    assert whole["info"]["left_out"]["images missing or broken"] == 2


@pytest.mark.parametrize("name", ["../CXR1.png", "/CXR1.png"])
def test_an_archive_with_unsafe_names_is_refused(config: IuXrayConfig, name: str) -> None:
    assert config.images is not None
    write_archive(config.images, [(name, png(1, 1))])
    with pytest.raises(DamagedArchive, match="unsafe entry"):
        prepare_iu_xray(config)
    assert not list(config.out.rglob("*.png"))


def test_an_interrupted_preparation_goes_on(config: IuXrayConfig) -> None:
    """The archive is cut in the middle; with the whole one the same command goes on from the images that are there."""
    assert config.images is not None
    whole = config.images.read_bytes()
    config.images.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedArchive, match=r"cannot read .*NLMCXR_png\.tgz"):
        prepare_iu_xray(config)
    there = {path: path.stat().st_mtime_ns for path in config.out.rglob("*.png")}
    assert 0 < len(there) < 62
    assert not (config.out / "annotation.json").exists()
    config.images.write_bytes(whole)
    prepare_iu_xray(config)
    assert len(list(config.out.rglob("*.png"))) == 62
    assert all(path.stat().st_mtime_ns == then for path, then in there.items())


@pytest.mark.slow
def test_a_killed_preparation_leaves_only_whole_files(config: IuXrayConfig) -> None:
    assert config.images is not None
    noise = np.random.default_rng(0).integers(0, 256, (600, 600), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    write_archive(config.images, [(name, file.getvalue()) for n in [*range(STUDIES), 31] for name, _ in images_of(n)])
    config = dataclasses.replace(config, size=500)
    program = (
        "from pathlib import Path; from rrg.prepare import *;"
        f"prepare_iu_xray(IuXrayConfig(Path({str(config.out)!r}), Path({str(config.reports)!r}), "
        f"Path({str(config.images)!r}), size=500))"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    while len(list(config.out.rglob("*.png"))) < 5:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (config.out / "annotation.json").exists()
    for path in config.out.rglob("*.png"):
        Image.open(path).load()
    assert len(load("r2gen", annotation=prepare_iu_xray(config)).studies) == 31


def test_another_data_set_is_not_touched(config: IuXrayConfig) -> None:
    path = prepare_iu_xray(config)
    before = path.read_bytes()
    assert prepare_iu_xray(config) == path, "the same preparation is found done"
    with pytest.raises(FileExistsError, match=r"prepared with other options \(views: 2 → 1\)"):
        prepare_iu_xray(dataclasses.replace(config, views=1))
    path.write_text('{"train": [], "val": [], "test": []}')
    with pytest.raises(FileExistsError, match="holds another annotation"):
        prepare_iu_xray(config)
    path.unlink()
    with pytest.raises(FileExistsError, match="images of another origin"):
        prepare_iu_xray(config)
    assert len(before) > 1000


def test_an_interrupted_preparation_keeps_the_size_of_its_images(config: IuXrayConfig) -> None:
    damage(config)
    with pytest.raises(ValueError, match="missing"):
        prepare_iu_xray(config)
    with pytest.raises(FileExistsError, match="size: 32 → 16"):
        prepare_iu_xray(dataclasses.replace(config, size=16, skip_bad=True))


def test_archives_are_downloaded(config: IuXrayConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a server of our own; the published hash and counts are those of these archives for the moment."""
    assert config.reports is not None
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        fetched = dataclasses.replace(
            config, reports=None, images=None, url=f"http://127.0.0.1:{server.server_address[1]}",
            cache=tmp_path / "cache",
        )  # fmt: skip
        try:
            with pytest.raises(OSError, match="SHA-256"):
                prepare_iu_xray(fetched)
            monkeypatch.setattr(iu_xray, "SHA256", hashlib.sha256(config.reports.read_bytes()).hexdigest())
            with pytest.raises(DamagedArchive, match="holds 66 images, expected 7470"):
                prepare_iu_xray(fetched)
            monkeypatch.setattr(iu_xray, "IMAGES", 66)
            path = prepare_iu_xray(fetched)
        finally:
            server.shutdown()
            thread.join()
    assert sum(len(json.loads(path.read_text())[split]) for split in SPLITS) == 31
    assert sorted(p.name for p in (tmp_path / "cache").rglob("*.tgz")) == ["NLMCXR_png.tgz", "NLMCXR_reports.tgz"]


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size must be >= 0 pixels, got -1"):
        IuXrayConfig(size=-1)
    with pytest.raises(ValueError, match=r"images: .*nowhere does not exist"):
        IuXrayConfig(images=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportsUnavailable, match="no report XML"):
        prepare_iu_xray(IuXrayConfig(tmp_path / "out", tmp_path / "empty", tmp_path / "empty"))
