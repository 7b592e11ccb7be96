import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from rrg.data import openi
from rrg.data.openi import MEMBER, clean, fetch, read_reports
from rrg.errors import ReportsUnavailable


def xml(identifier: str, findings: str, impression: str = "", mesh: tuple[str, ...] = ("normal",)) -> bytes:
    """A report in the collection's schema, in own words."""
    tags = "".join(f"<major>{tag}</major>" for tag in mesh)
    return (
        f'<?xml version="1.0"?><eCitation><uId id="{identifier}"/><MedlineCitation><Article><Abstract>'
        f'<AbstractText Label="FINDINGS">{findings}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{impression}</AbstractText></Abstract></Article></MedlineCitation>'
        f'<MeSH>{tags}</MeSH><parentImage id="{identifier}_1"/></eCitation>'
    ).encode()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_folder_and_archive_read_alike(tmp_path: Path) -> None:
    files = {f"reports/{n}.xml": xml(f"CXR{n}", "Heart is normal.", mesh=("Nodule/lung/left",)) for n in (2, 1)}
    for name, data in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    from_folder = read_reports(tmp_path / "folder")
    assert from_folder == read_reports(archive(tmp_path / "own.tgz", files))
    assert [r.id for r in from_folder] == ["CXR1", "CXR2"]
    assert from_folder[0].mesh == ("nodule/lung/left",)
    assert from_folder[0].images == ("CXR1_1",)


@pytest.mark.parametrize("name", ["../evil.xml", "/etc/evil.xml", "a/../../evil.xml"])
def test_entries_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReportsUnavailable, match="unsafe entry"):
        read_reports(archive(tmp_path / "evil.tgz", {name: xml("CXR1", "x")}))


def test_links_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "link.tgz", "w:gz") as tar:
        link = tarfile.TarInfo("a.xml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(ReportsUnavailable, match=r"unsafe entry .a\.xml."):
        read_reports(tmp_path / "link.tgz")


def test_truncated_archive_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "cut.tgz", {f"{n}.xml": xml(f"CXR{n}", "x" * 5000) for n in range(50)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ReportsUnavailable, match=r"cannot read .*cut\.tgz"):
        read_reports(path)


def test_malformed_and_malicious_xml_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<eCitation><uId")
    with pytest.raises(ReportsUnavailable, match=r"a\.xml is not a well-formed"):
        read_reports(tmp_path)
    (tmp_path / "a.xml").write_text('<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><x>&c;</x>')
    with pytest.raises(ReportsUnavailable, match=r"a\.xml"):
        read_reports(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ReportsUnavailable, match="no report XML"):
        read_reports(tmp_path)
    with pytest.raises(ReportsUnavailable, match="does not exist"):
        read_reports(tmp_path / "nowhere")


def fake_pip(monkeypatch: pytest.MonkeyPatch, payload: bytes | None) -> list[list[str]]:
    """Replace ``pip download`` by one that brings a wheel with the payload, or fails."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if payload is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "torchxrayvision-1.5.7-py3-none-any.whl", "w") as wheel:
            wheel.writestr(MEMBER, payload)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(openi.subprocess, "run", run)
    return calls


def test_without_network_the_reason_and_the_ways_out_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pip(monkeypatch, None)
    with pytest.raises(ReportsUnavailable, match=r"No matching distribution.*--reports PATH.*--dataset phantom"):
        fetch(tmp_path)
    assert list(tmp_path.rglob("*.tgz")) == []


def test_another_archive_than_the_published_one_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pip(monkeypatch, b"other bytes")
    with pytest.raises(ReportsUnavailable, match="SHA-256"):
        fetch(tmp_path)
    assert list(tmp_path.rglob("*.tgz")) == []


def test_the_archive_is_fetched_once_and_a_damaged_cache_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    payload = archive(tmp_path / "own.tgz", {"1.xml": xml("CXR1", "x")}).read_bytes()
    monkeypatch.setattr(openi, "SHA256", openi.hashlib.sha256(payload).hexdigest())
    calls = fake_pip(monkeypatch, payload)
    path = fetch(tmp_path / "cache")
    assert fetch(tmp_path / "cache") == path
    assert len(calls) == 1
    assert "--no-deps" in calls[0]
    path.write_bytes(b"damaged")
    assert fetch(tmp_path / "cache").read_bytes() == payload
    assert len(calls) == 2


def test_the_published_archive_must_have_the_published_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    payload = archive(tmp_path / "own.tgz", {"1.xml": xml("CXR1", "x")}).read_bytes()
    monkeypatch.setattr(openi, "SHA256", openi.hashlib.sha256(payload).hexdigest())
    fake_pip(monkeypatch, payload)
    with pytest.raises(ReportsUnavailable, match=r"\(1, 1, 1, 0\).*expected \(3955, 3425, 7470, 2955\)"):
        read_reports(cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Heart size normal.  Lungs clear.", "heart size normal . lungs clear ."),
        ("1. No effusion\n2. No XXXX pneumothorax!", "no effusion . no pneumothorax ."),
        ("A 2.5 cm nodule, T8-T9; stable?", "a 2.5 cm nodule t8-t9 . stable ."),
        ("XXXX.", ""),
        ("", ""),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned
