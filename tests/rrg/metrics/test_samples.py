"""The page of samples: whole in itself, escaped, and right about what agrees."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rrg.data.grammar import phantom_studies
from rrg.data.images import BrokenImage
from rrg.data.labels.rules import label
from rrg.data.study import CONDITIONS, Corpus, Study
from rrg.metrics.clinical import POLICIES
from rrg.metrics.samples import SHOWN, shared_words, write_samples

STUDIES = [dataclasses.replace(study, split="val") for study in phantom_studies(60)]
F1 = {"14 conditions, uncertain positive": {"micro": {"f1": 0.25}}}
SCORES: dict[str, Any] = {
    "dataset": "phantom",
    "images": "rendered images",
    "provenance": {"attribution": "Reports: somebody & others"},
    "split": "val",
    "studies": {"train": 1, "val": 60, "test": 1},
    "max_views": 1,
    "decoding": {"num_beams": 3, "max_length": 24, "length_penalty": 0.5, "early_stopping": True, "sampling": False},
    "references": "the first 22 tokens",
    "labeller": {"name": "rule-based", "sha256": "0123456789abcdef"},
    "policies": POLICIES,
    "training": {"seed": 1, "optimizer": {"name": "came-grad"}, "step": 9},
    "bleu": [0.4, 0.3, 0.2, 0.1],
    "rouge_l": 0.35,
    "cider": 0.15,
    "meteor": "unavailable: no java on the PATH; install a Java runtime",
    "clinical_efficacy": F1,
    "classification": F1,
}


def sample(study: Study, generated: str) -> dict[str, Any]:
    states = {"reference": list(label(study.report)), "generated": list(label(generated))}
    return {"id": study.id, "reference": study.report, "generated": generated, "states": states}


class Page(HTMLParser):
    """Fails on tags that do not match; collects attributes that could name another resource, texts and chips."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.chips: list[list[tuple[str, str]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.chip = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.sources += [given[name] for name in ("src", "href", "srcset", "action", "data") if name in given]
        if tag == "img":
            self.alts.append(given["alt"])
        if tag == "ul":
            self.chips.append([])
        if tag == "li":
            self.chip = given["class"]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.text += data
        if "li" in self.open:
            self.chips[-1].append((self.chip, data))
        if "h2" in self.open:
            self.headings.append(data)


def page(folder: Path, samples: list[dict[str, Any]], studies: list[Study], **changes: Any) -> Page:
    write_samples(folder, samples, Corpus("phantom", tuple(studies)), {**SCORES, **changes}, 32)
    return Page((folder / "samples.html").read_text())


def test_the_page_needs_nothing_else_and_says_what_it_shows(tmp_path: Path) -> None:
    samples = [sample(study, "the lungs are clear .") for study in STUDIES]
    shown = page(tmp_path, samples, STUDIES)
    assert len(shown.sources) == SHOWN
    for source in shown.sources:
        kind, data = source.split(",")
        assert kind == "data:image/jpeg;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (image.size, image.mode) == ((32, 32), "L")
    assert shown.alts[0] == f"rendered images: study {STUDIES[0].id}, image 1 of 1"
    assert shown.headings == [STUDIES[i * 60 // SHOWN].id for i in range(SHOWN)]
    for text in (
        "Generated reports: phantom, val split",
        "Images: rendered images.",
        "24 of 60 studies, evenly spaced in the split; all are in samples.jsonl.",
        "Beam search with 3 beams, length penalty 0.5, at most 24 tokens.",
        "References: the first 22 tokens.",
        "Labeller: rule-based, SHA-256 0123456789ab…",
        "F1 is over 14 conditions; uncertain labels count as positive",
        "Trained with came-grad, seed 1, step 9.",
        "Reports: somebody & others",
        "METEOR unavailable: no java on the PATH; install a Java runtime",
        "BLEU-40.100",
        "CE F1, micro0.250",
    ):
        assert text in shown.text
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == samples


def test_few_studies_are_all_shown_and_greedy_search_is_named(tmp_path: Path) -> None:
    few = STUDIES[:3]
    decoding = {"num_beams": 1, "max_length": 24, "length_penalty": None}
    shown = page(tmp_path, [sample(s, "") for s in few], few, decoding=decoding, training={})
    assert shown.headings == [study.id for study in few]
    assert "Greedy search, at most 24 tokens." in shown.text
    assert "(empty)" in shown.text
    assert "Trained with" not in shown.text


def test_conditions_are_agreed_missed_or_invented(tmp_path: Path) -> None:
    report = "cardiomegaly . small effusion . no pneumothorax ."
    study = dataclasses.replace(STUDIES[0], report=report, labels=label(report))
    shown = page(tmp_path, [sample(study, "possible cardiomegaly . pneumothorax . no effusion .")], [study])
    legend, chips = shown.chips
    assert [name for name, _ in legend] == ["agreed", "missed", "invented", "plain"]
    assert chips == [
        ("agreed", "✓ Cardiomegaly?"),
        ("invented", "+ Pneumothorax"),
        ("missed", "− Pleural Effusion"),
    ]


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script> & <img src=x onerror=y>'
    study = dataclasses.replace(STUDIES[0], id=f"{evil}'", report=evil)
    changes = {
        "dataset": evil, "images": evil, "references": evil, "cider": evil, "provenance": {"attribution": evil},
        "labeller": {"name": evil, "sha256": evil}, "training": {"optimizer": {"name": evil}, "seed": evil},
    }  # fmt: skip
    write_samples(tmp_path, [sample(study, evil)], Corpus(evil, (study,), evil), {**SCORES, **changes}, 32)
    written = (tmp_path / "samples.html").read_text()
    assert "<script" not in written
    assert len(re.findall("<img", written)) == 1
    shown = Page(written)
    assert len(shown.sources) == 1
    assert shown.headings == [f"{evil}'"]
    assert shown.text.count(evil) > 8


def test_without_reports_the_head_is_shown(tmp_path: Path) -> None:
    study = STUDIES[0]
    predicted = [1 if c == "Edema" else 0 for c in CONDITIONS]
    only = {"id": study.id, "reference": "x y", "head": {"labels": [0] * 14, "predicted": predicted}}
    scores = {name: value for name, value in SCORES.items() if name not in ("bleu", "rouge_l", "cider", "meteor")}
    write_samples(tmp_path, [only], Corpus("phantom", (study,)), scores, 32)
    shown = Page((tmp_path / "samples.html").read_text())
    assert shown.chips[1] == [("invented", "+ Edema")]
    assert "Classified studies: phantom, val split" in shown.text
    assert "Generated" not in shown.text
    assert "Beam search" not in shown.text


def test_two_views_and_large_images_are_shown_small(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("L", (40, 40), 9).save(tmp_path / name)
    study = dataclasses.replace(STUDIES[0], images=(tmp_path / "a.png", tmp_path / "b.png"))
    scores = {**SCORES, "max_views": 2, "images": "radiographs"}
    write_samples(tmp_path, [sample(study, "x")], Corpus("r2gen", (study,), "radiographs"), scores, 512)
    shown = Page((tmp_path / "samples.html").read_text())
    assert shown.alts == [f"radiographs: study {study.id}, image {n} of 2" for n in (1, 2)]
    image = Image.open(io.BytesIO(base64.b64decode(shown.sources[0].split(",")[1])))
    assert image.size == (256, 256)


def test_a_lost_image_leaves_the_texts_and_the_old_page(tmp_path: Path) -> None:
    (tmp_path / "samples.html").write_text("old")
    study = dataclasses.replace(STUDIES[0], images=(tmp_path / "gone.png",))
    with pytest.raises(BrokenImage, match=r"gone\.png"):
        write_samples(tmp_path, [sample(study, "x")], Corpus("r2gen", (study,)), SCORES, 32)
    assert (tmp_path / "samples.html").read_text() == "old"
    assert json.loads((tmp_path / "samples.jsonl").read_text())["generated"] == "x"


def test_only_shared_words_are_marked(tmp_path: Path) -> None:
    study = dataclasses.replace(STUDIES[0], report="the heart is large . no effusion .")
    write_samples(tmp_path, [sample(study, "heart is normal . no effusion")], Corpus("p", (study,)), SCORES, 32)
    written = (tmp_path / "samples.html").read_text()
    assert "<p>the <mark>heart is</mark> large. <mark>no effusion</mark>.</p>" in written
    assert "<p><mark>heart is</mark> normal. <mark>no effusion</mark></p>" in written


@given(a=st.lists(st.sampled_from("abc"), max_size=7), b=st.lists(st.sampled_from("abc"), max_size=7))
def test_shared_words_are_a_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    in_a, in_b = shared_words(a, b)
    assert [x for x, keep in zip(a, in_a, strict=True) if keep] == [x for x, keep in zip(b, in_b, strict=True) if keep]

    def longest(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        return 1 + longest(i + 1, j + 1) if a[i] == b[j] else max(longest(i + 1, j), longest(i, j + 1))

    assert sum(in_a) == longest(0, 0)
