import csv
import gzip
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from rrg.data.corpus import load
from rrg.data.study import SPLITS
from rrg.prepare.mimic_cxr import MimicCxrConfig, prepare_mimic_cxr

STUDIES = {
    # study: (subject, split, views by image)
    "50000001": ("10000001", "train", {"a1": "LATERAL", "a2": "AP", "a3": "PA"}),
    "50000002": ("10000001", "train", {"b1": "AP"}),
    "50000003": ("10000002", "validate", {"c1": "PA", "c2": "LL"}),
    "50000004": ("11000003", "test", {"d1": "PA"}),
    "50000005": ("11000004", "test", {"e1": "LATERAL"}),
    "50000006": ("11000005", "train", {"f1": "PA"}),
}


def note(study: str) -> str:
    """In own words. The last study has no findings section."""
    if study == "50000006":
        return " FINAL REPORT\n HISTORY: cough.\n\n IMPRESSION: Normal.\n"
    return (
        f" WET READ: Edema.\n                FINAL REPORT\n FINDINGS:  Heart {study}\n is enlarged.\n IMPRESSION: x\n"
    )


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def config(tmp_path: Path) -> MimicCxrConfig:
    """A folder in PhysioNet's layout."""
    root = tmp_path / "jpg"
    splits, metadata = [], []
    for study, (subject, split, views) in STUDIES.items():
        folder = root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"
        folder.mkdir(parents=True)
        folder.with_suffix(".txt").write_text(note(study))
        for dicom, view in views.items():
            Image.new("L", (30, 40), 99).save(folder / f"{dicom}.jpg")
            splits.append({"dicom_id": dicom, "study_id": study, "subject_id": subject, "split": split})
            metadata.append({"dicom_id": dicom, "subject_id": subject, "ViewPosition": view, "Rows": "40"})
    write_csv(root / "mimic-cxr-2.0.0-split.csv.gz", splits)
    write_csv(root / "mimic-cxr-2.0.0-metadata.csv", metadata)
    return MimicCxrConfig(root, out=tmp_path / "out")


def entries_of(path: Path) -> dict[str, dict[str, object]]:
    whole = json.loads(path.read_text())
    return {entry["id"]: entry for split in SPLITS for entry in whole[split]}


def test_frontal_views_by_study(config: MimicCxrConfig) -> None:
    console = Console(record=True, width=150)
    path = prepare_mimic_cxr(config, console)
    entries = entries_of(path)
    assert list(entries) == ["50000001", "50000002", "50000003", "50000004"]
    assert entries["50000001"] == {
        "id": "50000001", "study_id": 50000001, "subject_id": 10000001, "split": "train",
        "report": "Heart 50000001 is enlarged.",
        "image_path": ["p10/p10000001/s50000001/a3.jpg", "p10/p10000001/s50000001/a2.jpg"],
    }  # fmt: skip
    assert entries["50000003"]["split"] == "val"
    info = json.loads(path.read_text())["info"]
    assert info["left_out"] == {"images of other views": 3, "studies without a findings section": 1}
    assert info["counts"]["studies"] == {"train": 2, "val": 1, "test": 1}
    assert info["counts"]["images"] == {"train": 3, "val": 1, "test": 1}
    assert "may be shared" in console.export_text()


def test_the_prepared_folder_can_be_trained_on(config: MimicCxrConfig) -> None:
    corpus = load("r2gen", annotation=prepare_mimic_cxr(config))
    assert [study.patient for study in corpus.split("train")] == ["10000001", "10000001"]
    assert (config.out / "images").is_symlink(), "images are used where they are"


def test_all_views_and_an_entry_for_each(config: MimicCxrConfig) -> None:
    path = prepare_mimic_cxr(replace(config, views="all", entries="image"))
    entries = entries_of(path)
    assert list(entries) == ["a3", "a2", "a1", "b1", "c1", "c2", "d1", "e1"]
    assert entries["c2"]["image_path"] == ["p10/p10000002/s50000003/c2.jpg"]
    counts = json.loads(path.read_text())["info"]["counts"]
    assert counts["studies"]["train"] == 2
    assert counts["entries"]["train"] == 4


def test_reports_from_the_zip_are_the_same(config: MimicCxrConfig, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mimic-cxr-reports.zip", "w") as archive:
        for file in config.root.rglob("*.txt"):
            archive.write(file, file.relative_to(config.root))
            file.unlink()
    from_zip = replace(config, reports=tmp_path / "mimic-cxr-reports.zip")
    assert len(entries_of(prepare_mimic_cxr(from_zip))) == 4
    (tmp_path / "mimic-cxr-reports.zip").write_text("no archive")
    with pytest.raises(ValueError, match=r"cannot read .*mimic-cxr-reports\.zip"):
        prepare_mimic_cxr(replace(from_zip, out=tmp_path / "other"))


def test_missing_files_are_told_or_left_out(config: MimicCxrConfig) -> None:
    (config.root / "files/p10/p10000001/s50000002.txt").unlink()
    (config.root / "files/p10/p10000001/s50000001/a2.jpg").unlink()
    with pytest.raises(ValueError, match=r"missing report: 1 \(p10/p10000001/s50000002\.txt\)") as caught:
        prepare_mimic_cxr(config)
    assert "missing image: 1 (p10/p10000001/s50000001/a2.jpg)" in str(caught.value)
    assert not (config.out / "annotation.json").exists()
    with pytest.raises(ValueError, match="train split is empty"):
        prepare_mimic_cxr(replace(config, skip_bad=True))
    (config.root / "files/p10/p10000001/s50000002.txt").write_text(note("50000002"))
    path = prepare_mimic_cxr(replace(config, skip_bad=True))
    assert "50000001" not in entries_of(path)
    assert json.loads(path.read_text())["info"]["left_out"]["studies whose report or images are missing"] == 1


def test_a_patient_in_two_splits_is_refused(config: MimicCxrConfig) -> None:
    path = config.root / "mimic-cxr-2.0.0-split.csv.gz"
    rows = list(csv.DictReader(gzip.decompress(path.read_bytes()).decode().splitlines()))
    for row in rows:
        row["split"] = "test" if row["study_id"] == "50000002" else row["split"]
    write_csv(path, rows)
    with pytest.raises(ValueError, match="patient 10000001 is also in test"):
        prepare_mimic_cxr(config)
    assert not (config.out / "annotation.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("mimic-cxr-2.0.0-metadata.csv", "dicom_id,view\na,b\n", r"lacks the columns \['ViewPosition'\]"),
        ("mimic-cxr-2.0.0-metadata.csv", None, "has no mimic-cxr-2.0.0-metadata.csv"),
        ("mimic-cxr-2.0.0-split.csv.gz", "not gzip", "cannot read .*split.csv.gz"),
        ("mimic-cxr-2.1.0-split.csv", "dicom_id,study_id,subject_id,split\na1,1,2,dev\n", "has split 'dev'"),
    ],
)
def test_damaged_tables_are_named(config: MimicCxrConfig, name: str, content: str | None, told: str) -> None:
    if content is None:
        (config.root / name).unlink()
    else:
        (config.root / name).write_text(content)
    with pytest.raises(ValueError, match=told):
        prepare_mimic_cxr(config)


def test_a_folder_of_other_images_is_not_touched(config: MimicCxrConfig, tmp_path: Path) -> None:
    path = prepare_mimic_cxr(config)
    assert prepare_mimic_cxr(config) == path
    with pytest.raises(FileExistsError, match="views: frontal → all"):
        prepare_mimic_cxr(replace(config, views="all"))
    (tmp_path / "mine" / "images").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="images of another origin"):
        prepare_mimic_cxr(replace(config, out=tmp_path / "mine"))
    with pytest.raises(ValueError, match=r"root: .* does not exist"):
        MimicCxrConfig(tmp_path / "nowhere")
