import json
import os
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from rrg.data import openi
from rrg.data.corpus import load
from rrg.data.labels.rules import label
from rrg.data.study import CONDITIONS, SPLITS, LabelState, Split, split_of
from rrg.prepare.matching import NIH, Candidate, match, read_candidates
from rrg.prepare.pair import PairConfig, prepare_pair

NIH_CXR = Path(os.environ.get("SDE_MTL_NIH_CXR") or Path(__file__).parents[4] / "shared/data/nih_cxr")
TEXTS = {
    "normal": "The lungs are clear. No effusion.",
    "heart": "The heart is enlarged.",
    "both": "The heart is enlarged. Small left pleural effusion.",
    "device": "The heart is enlarged. A pacemaker is present.",
    "unsure": "Possible left pleural effusion.",
}
SPLITS_OF_REPORTS = {"train": 8, "val": 3, "test": 4}


@pytest.fixture
def config(tmp_path: Path) -> PairConfig:
    """Two hundred images of a hundred patients, and reports of each kind in every split."""
    (tmp_path / "cxr" / "images").mkdir(parents=True)
    labels = ["No Finding", "Cardiomegaly", "Cardiomegaly|Effusion", "Hernia|Effusion", "Pneumothorax", "Infiltration"]
    lines = ["file,patient_id,view,labels"]
    for n in range(200):
        Image.new("L", (20, 30), n).save(tmp_path / "cxr" / "images" / f"{n}.png")
        lines.append(f"images/{n}.png,p{n // 2},PA,{labels[n % 6]}")
    (tmp_path / "cxr" / "index.csv").write_text("\n".join(lines))
    reports = {
        split: [
            {"id": f"{kind}-{split}-{k}", "report": text, "image_path": "x.png"}
            for kind, text in TEXTS.items()
            for k in range(SPLITS_OF_REPORTS[split])
        ]
        for split in SPLITS
    }
    (tmp_path / "reports.json").write_text(json.dumps(reports))
    return PairConfig(tmp_path / "cxr" / "index.csv", reports=tmp_path / "reports.json", out=tmp_path / "out")


def pairs_of(path: Path) -> dict[str, dict[str, str]]:
    whole = json.loads(path.read_text())
    return {entry["id"]: entry for split in SPLITS for entry in whole[split]}


def test_pixels_and_text_have_the_same_findings(config: PairConfig) -> None:
    pairs = pairs_of(prepare_pair(config))
    kinds = defaultdict(set)
    for name, pair in pairs.items():
        kinds[int(name[7:-4]) % 6].add(pair["report_id"].split("-")[0])
    assert kinds == {0: {"normal"}, 1: {"heart"}, 2: {"both"}}
    assert {pair["matched"] for pair in pairs.values()} == {"equal"}


def test_every_output_calls_it_matched_by_label(config: PairConfig) -> None:
    console = Console(record=True, width=150)
    path = prepare_pair(config, console)
    assert "radiographs matched to reports by label" in console.export_text()
    assert json.loads(path.read_text())["info"]["images"] == "radiographs matched to reports by label"
    corpus = load("r2gen", annotation=path)
    assert corpus.images == "radiographs matched to reports by label"
    assert corpus.studies[0].images[0].is_file()


def test_nothing_is_in_two_splits(config: PairConfig) -> None:
    pairs = pairs_of(prepare_pair(config))
    for what in ("subject_id", "report_id"):
        assert {len(splits) for splits in _splits(pairs, what).values()} == {1}
    assert all(pair["split"] == pair["report_id"].split("-")[1] for pair in pairs.values())
    assert all(pair["split"] == split_of(pair["subject_id"]) for pair in pairs.values())


def _splits(pairs: dict[str, dict[str, str]], what: str) -> dict[str, set[str]]:
    found = defaultdict(set)
    for pair in pairs.values():
        found[pair[what]].add(pair["split"])
    return found


def test_what_is_left_out_is_counted(config: PairConfig) -> None:
    info = json.loads(prepare_pair(config).read_text())["info"]
    assert info["left_out"] == {"images labelled Hernia": 33, "images without a matching report": 66}
    assert info["details"]["matched by equal conditions"] == 101
    used = {pair["report_id"] for pair in pairs_of(config.out / "annotation.json").values()}
    assert info["details"]["distinct reports"] == len(used)


def test_reports_are_used_equally_often(config: PairConfig) -> None:
    used = Counter(pair["report_id"] for pair in pairs_of(prepare_pair(config)).values())
    for kind in ("normal", "heart", "both"):
        for split in SPLITS:
            times = [used[f"{kind}-{split}-{k}"] for k in range(SPLITS_OF_REPORTS[split])]
            assert max(times) - min(times) <= 1


def test_nearest_takes_what_overlaps_most() -> None:
    conditions = {"a": {"Edema"}, "b": {"Edema", "Pneumonia"}, "c": {"Fracture"}}
    candidates = [Candidate(name, name, "train", frozenset(some)) for name, some in conditions.items()]
    images: list[tuple[Split, frozenset[str]]] = [("train", frozenset(some)) for some in (
        {"Edema"}, {"Edema", "Pneumonia", "Atelectasis"}, {"Cardiomegaly"}, set())]  # fmt: skip
    assert [found and found.id for found in match(images, candidates)] == ["a", None, None, None]
    assert [found and found.id for found in match(images, candidates, nearest=True)] == ["a", "b", None, None]


def test_the_seed_decides(config: PairConfig, tmp_path: Path) -> None:
    made = [pairs_of(prepare_pair(replace(config, seed=seed, out=tmp_path / f"out{i}")))
            for i, seed in enumerate((3, 3, 4))]  # fmt: skip
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_a_report_of_what_the_labels_cannot_tell_is_not_used(config: PairConfig) -> None:
    names = {candidate.id.split("-")[0] for candidate in read_candidates(config.reports, frozenset(NIH.values()))}
    assert names == {"normal", "heart", "both"}
    every = {candidate.id.split("-")[0] for candidate in read_candidates(config.reports, frozenset(CONDITIONS))}
    assert every == {"normal", "heart", "both", "device"}, "and uncertain ones never"


def test_images_can_be_copied(config: PairConfig) -> None:
    path = prepare_pair(replace(config, size=10))
    assert not (config.out / "images").is_symlink()
    with Image.open(config.out / "images/images/1.png") as image:
        assert image.size == (10, 15)
    assert len(load("r2gen", annotation=path).studies) == 101


def test_missing_and_broken_images_are_told_or_left_out(config: PairConfig) -> None:
    folder = config.index.parent / "images"
    (folder / "0.png").unlink()
    (folder / "1.png").write_text("no image")
    with pytest.raises(ValueError, match=r"(?s)missing: 1 \(images/0\.png\).*broken: 1 \(images/1\.png\)"):
        prepare_pair(replace(config, size=10))
    info = json.loads(prepare_pair(replace(config, size=10, skip_bad=True)).read_text())["info"]
    assert info["left_out"]["images missing or broken"] == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,finding\na.png,Mass\n", r"lacks the columns \['labels'\]"),
        ("file,labels\n../a.png,Mass\n", r"line 2: file '\.\./a\.png' must be a path inside"),
        ("file,labels\na.png,Measles\n", "no image of .* has labels that can be matched; expected some of Atelectasis"),
        ("file,labels\na.png\n", "no image of"),
        ("", r"lacks the columns \['file', 'labels'\]"),
    ],
)
def test_a_damaged_index_is_named(config: PairConfig, text: str, told: str) -> None:
    config.index.write_text(text)
    with pytest.raises(ValueError, match=told):
        prepare_pair(config)


def test_reports_in_two_splits_are_refused(config: PairConfig) -> None:
    assert config.reports is not None
    whole = json.loads(config.reports.read_text())
    whole["test"].append(whole["train"][0])
    config.reports.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"duplicated id: 1 \(train\[0\] normal-train-0"):
        prepare_pair(config)


def test_contradictory_labels_and_own_names(config: PairConfig) -> None:
    config.index.write_text(
        "file,labels\n" + "".join(f"images/{n}.png,Cardiomegaly\n" for n in range(40))
        + "images/50.png,No Finding|Cardiomegaly\nimages/51.png,Pleural Effusion|Cardiomegaly\n"
    )  # fmt: skip
    info = json.loads(prepare_pair(replace(config, labels="chexpert")).read_text())["info"]
    assert info["left_out"] == {"images without a label, or with contradictory ones": 1}
    assert sum(info["counts"]["studies"].values()) == 41


def test_every_label_of_nih_is_mapped_or_known_to_have_no_counterpart() -> None:
    no_counterpart = {"Emphysema", "Fibrosis", "Hernia"}
    nih = {"Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
           "Consolidation", "Edema", "Pleural_Thickening"}  # fmt: skip
    assert NIH.keys() == nih
    assert not NIH.keys() & no_counterpart
    assert set(NIH.values()) <= set(CONDITIONS)


@pytest.mark.slow
def test_real_radiographs_with_real_reports(tmp_path: Path) -> None:
    """Real pixels and real text, matched by label."""
    if not (NIH_CXR / "index.csv").exists():
        pytest.skip(f"no labelled radiographs in {NIH_CXR}; set SDE_MTL_NIH_CXR to a folder with index.csv")
    try:
        openi.fetch()
    except openi.ReportsUnavailable as error:
        pytest.skip(str(error))
    path = prepare_pair(PairConfig(NIH_CXR / "index.csv", out=tmp_path / "pair"))
    corpus = load("r2gen", annotation=path)
    assert corpus.images == "radiographs matched to reports by label"
    assert len(corpus.studies) == 663
    labels = {line.split(",")[0]: line.strip().split(",")[-1].split("|")
              for line in (NIH_CXR / "index.csv").read_text().splitlines()}  # fmt: skip
    for study in corpus.studies:
        expected = {NIH[name] for name in labels[study.id] if name != "No Finding"}
        states = dict(zip(CONDITIONS, label(study.full_text), strict=True))
        assert {c for c, s in states.items() if s == LabelState.POSITIVE} - {"No Finding"} == expected
