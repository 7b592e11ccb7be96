import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rrg.data import problems
from rrg.data.annotations import proportional, read_annotation
from rrg.data.corpus import load
from rrg.data.labels.rules import label
from rrg.data.problems import DamagedAnnotation, Entry
from rrg.data.study import SPLITS

SIZES = {"train": 7, "val": 2, "test": 3}


def make(folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """A small data set in R2Gen's format, changed before it is written."""
    (folder / "images").mkdir(exist_ok=True)
    whole: dict[str, Any] = {split: [] for split in SPLITS}
    for number in range(sum(SIZES.values())):
        split = "train" if number < 7 else "val" if number < 9 else "test"
        name = f"CXR{number}"
        Image.fromarray(np.full((20, 30), number, dtype=np.uint8)).save(folder / "images" / f"{name}.png")
        whole[split].append({"id": name, "report": f"Heart {number} is enlarged.", "image_path": [f"{name}.png"],
                             "split": split})  # fmt: skip
    if change is not None:
        change(whole)
    path = folder / "annotation.json"
    path.write_text(json.dumps(whole))
    return path


def kinds(error: DamagedAnnotation) -> dict[str, list[str]]:
    return {kind: [p.place for p in group] for kind, group in problems.by_kind(error.problems).items()}


def test_studies_are_as_written(tmp_path: Path) -> None:
    corpus = load("r2gen", annotation=make(tmp_path))
    study = corpus.split("val")[0]
    assert (study.id, study.report, study.findings) == ("CXR7", "heart 7 is enlarged .", ())
    assert study.full_text == "Heart 7 is enlarged."
    assert study.labels == label("Heart 7 is enlarged.")
    assert study.images == (tmp_path / "images" / "CXR7.png",)
    assert corpus.images == "radiographs"
    assert corpus.provenance["counts"] == {"studies": SIZES, "entries": SIZES, "images": SIZES}
    assert corpus.provenance["skipped"] == {}
    assert len(corpus.provenance["sha256"]) == 64


def test_labels_come_from_the_report_before_it_is_cleaned(tmp_path: Path) -> None:
    """A comma ends the scope of a negation; cleaning drops it."""
    text = "No effusion: pneumonia in the left lung"
    path = make(tmp_path, lambda whole: whole["val"][0].update(report=text))
    assert load("r2gen", annotation=path).split("val")[0].labels == label(text)


def test_one_path_two_views_and_another_folder(tmp_path: Path) -> None:
    def change(whole: dict[str, Any]) -> None:
        whole["train"][0]["image_path"] = "CXR0.png"
        whole["train"][1]["image_path"] = ["CXR1.png", "CXR0.png"]

    path = make(tmp_path, change)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(DamagedAnnotation, match=r"images does not exist; pass --images"):
        load("r2gen", annotation=path)
    studies = load("r2gen", annotation=path, images=tmp_path / "elsewhere").split("train")
    assert [[file.name for file in study.images] for study in studies[:2]] == [["CXR0.png"], ["CXR1.png", "CXR0.png"]]


def test_mimic_entries_share_their_study(tmp_path: Path) -> None:
    def change(whole: dict[str, Any]) -> None:
        for entry in whole["train"]:
            entry |= {"study_id": 50414267, "subject_id": 10000032}

    corpus = load("r2gen", annotation=make(tmp_path, change))
    assert corpus.provenance["counts"]["studies"] == {**SIZES, "train": 1}
    assert corpus.provenance["counts"]["entries"] == SIZES
    assert {study.patient for study in corpus.split("train")} == {"10000032"}


def test_info_says_what_the_images_are(tmp_path: Path) -> None:
    info = {"images": "radiographs matched to reports by label", "attribution": "whom to thank"}
    corpus = load("r2gen", annotation=make(tmp_path, lambda whole: whole.update(info=info)))
    assert corpus.images == "radiographs matched to reports by label"
    assert corpus.provenance["attribution"] == "whom to thank"
    with pytest.raises(DamagedAnnotation, match="info must be an object whose images is text"):
        load("r2gen", annotation=make(tmp_path, lambda whole: whole.update(info={"images": 3})))


def spoil(folder: Path) -> Path:
    """Every kind of problem."""

    def change(whole: dict[str, Any]) -> None:
        train = whole["train"]
        train[0]["image_path"] = ["nowhere.png"]
        (folder / "images" / "CXR1.png").write_bytes((folder / "images" / "CXR1.png").read_bytes()[:45])
        train[2] |= {"report": " XXXX. ", "image_path": ["nowhere.png", "CXR2.png"]}
        train[3]["id"] = "CXR10"
        train[4]["image_path"] = ["../annotation.json"]
        train[5]["report"] = None
        whole["test"][0]["subject_id"] = 5
        whole["val"][0]["subject_id"] = "5"

    return make(folder, change)


SPOILED = {
    "missing image": ["train[0]", "train[2]"],
    "broken image": ["train[1]"],
    "empty report": ["train[2]"],
    "duplicated id": ["train[3]"],
    "path leaves the images folder": ["train[4]"],
    "malformed entry": ["train[5]"],
    "patient in two splits": ["val[0]"],
}


def test_all_problems_are_told_at_once_and_listed(tmp_path: Path) -> None:
    with pytest.raises(DamagedAnnotation, match=r"8 problems in 12 entries(.|\n)*--skip-bad") as caught:
        load("r2gen", annotation=spoil(tmp_path))
    assert kinds(caught.value) == SPOILED
    for told in ("nowhere.png: no such file", "also test[1]", "field report must be text, got None",
                 "patient 5 is also in test", "nothing is left of ' XXXX. '"):  # fmt: skip
        assert told in str(caught.value)
    listed = json.loads((tmp_path / "annotation.problems.json").read_text())
    assert {problem["kind"] for problem in listed} == set(SPOILED)


def test_a_sound_annotation_has_none(tmp_path: Path) -> None:
    """Negative control."""
    load("r2gen", annotation=make(tmp_path))
    assert not (tmp_path / "annotation.problems.json").exists()


def test_bad_entries_are_skipped_counted_and_told(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    corpus = load("r2gen", annotation=spoil(tmp_path), skip_bad=True, console=console)
    assert corpus.provenance["skipped"] == {"entries": 7, **{kind: len(places) for kind, places in SPOILED.items()}}
    assert [len(corpus.split(split)) for split in SPLITS] == [1, 1, 3]
    assert "7 entries are left out" in console.export_text()


def test_an_empty_split_is_an_error_even_then(tmp_path: Path) -> None:
    def change(whole: dict[str, Any]) -> None:
        for entry in whole["val"]:
            entry["report"] = ""

    with pytest.raises(ValueError, match="leave the val split empty"):
        load("r2gen", annotation=make(tmp_path, change), skip_bad=True)


@pytest.mark.parametrize(
    ("verify", "found"),
    [
        ("decode", {"broken image": ["train[1]", "train[2]", "train[3]"], "missing image": ["train[0]"]}),
        ("open", {"broken image": ["train[2]", "train[3]"], "missing image": ["train[0]"]}),
        ("exists", {"missing image": ["train[0]"], "broken image": ["train[3]"]}),
    ],
)
def test_how_far_images_are_looked_at(tmp_path: Path, verify: problems.Verify, found: dict[str, list[str]]) -> None:
    path = make(tmp_path)
    images = tmp_path / "images"
    (images / "CXR0.png").unlink()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(images / "CXR1.png")
    (images / "CXR1.png").write_bytes((images / "CXR1.png").read_bytes()[:2000])
    (images / "CXR2.png").write_text("no image")
    (images / "CXR3.png").write_bytes(b"")
    with pytest.raises(DamagedAnnotation) as caught:
        load("r2gen", annotation=path, verify=verify)
    assert kinds(caught.value) == found


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("image_path", None, "field image_path must be a path or a list of paths, got None"),
        ("image_path", [], r"field image_path .* got \[\]"),
        ("image_path", [3], r"field image_path .* got \[3\]"),
        ("id", None, "field id must be text or a number, got None"),
        ("id", [], r"field id must be text or a number, got \[\]"),
        ("subject_id", 1.5, "field subject_id must be text or a number, got 1.5"),
        ("split", "test", "field split is 'test' in the list train"),
    ],
)
def test_malformed_fields_are_named(tmp_path: Path, field: str, value: object, told: str) -> None:
    path = make(tmp_path, lambda whole: whole["train"][6].update({field: value}))
    with pytest.raises(DamagedAnnotation, match=rf"malformed entry: 1 \(train\[6\].*{told}"):
        load("r2gen", annotation=path)


@pytest.mark.parametrize("path", ["/etc/hostname", "a/../../b.png", "..\\b.png", "a\0.png"])
def test_paths_stay_inside(tmp_path: Path, path: str) -> None:
    with pytest.raises(DamagedAnnotation) as caught:
        load("r2gen", annotation=make(tmp_path, lambda whole: whole["test"][0].update(image_path=path)))
    assert kinds(caught.value) == {"path leaves the images folder": ["test[0]"]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"train": [', "is not JSON"),
        ("\x00", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must hold the lists train, val and test, got 'list'"),
        ('{"train": [], "test": []}', r"got \['test', 'train'\]"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "annotation.json").write_text(text)
    with pytest.raises(DamagedAnnotation, match=told):
        load("r2gen", annotation=tmp_path / "annotation.json")


def test_entries_of_a_benchmark_are_kept_over_those_of_training(tmp_path: Path) -> None:
    """One id in all splits, and a study in two: what stands in test stays."""

    def change(whole: dict[str, Any]) -> None:
        for split in SPLITS:
            whole[split][0]["id"] = "same"
        whole["train"][1]["study_id"] = whole["val"][1]["study_id"] = "s1"

    corpus = load("r2gen", annotation=make(tmp_path, change), skip_bad=True)
    assert [study.split for study in corpus.studies if study.id == "same"] == ["test"]
    assert corpus.provenance["skipped"] == {"entries": 3, "duplicated id": 2, "patient in two splits": 1}


def test_the_list_goes_elsewhere_where_the_folder_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = problems.write_json

    def refuse(path: Path, value: object) -> None:
        if path.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        write(path, value)

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(problems, "write_json", refuse)
    monkeypatch.setattr(problems.tempfile, "tempdir", str(tmp_path / "temporary"))
    with pytest.raises(DamagedAnnotation):
        load("r2gen", annotation=spoil(tmp_path))
    assert len(json.loads(next((tmp_path / "temporary").rglob("*.json")).read_text())) == 8


def test_the_list_goes_where_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DamagedAnnotation, match=r"mine\.json"):
        read_annotation(spoil(tmp_path), problems=tmp_path / "mine.json")
    assert len(json.loads((tmp_path / "mine.json").read_text())) == 8


def test_a_share_of_every_split(tmp_path: Path) -> None:
    entries = [Entry(f"{split}[{n}]", split, "", "", ()) for split in SPLITS for n in range(10 * SIZES[split])]
    kept = proportional(entries, 12)
    assert [sum(entry.split == split for entry in kept) for split in SPLITS] == list(SIZES.values())
    assert [entry for entry in entries if entry in kept] == kept
    assert proportional(entries, None) == proportional(entries, 500) == entries
    with pytest.raises(ValueError, match="limit = 2 must be >= 3"):
        proportional(entries, 2)
    (tmp_path / "images").mkdir()
    path = make(tmp_path)
    (tmp_path / "images" / "CXR6.png").unlink()
    assert len(load("r2gen", annotation=path, limit=10).studies) == 10, "images beyond the limit are not looked at"


def test_an_annotation_is_needed() -> None:
    with pytest.raises(ValueError, match=r"needs an annotation\.json; pass --annotation"):
        load("r2gen")
