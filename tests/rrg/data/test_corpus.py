from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rrg.data.corpus import ReportDataset, load
from rrg.data.grammar import phantom_studies
from rrg.data.openi import ReportsUnavailable
from rrg.data.study import split_of
from rrg.data.tokenizer import BOS, EOS, PAD, Tokenizer

TOKENIZER = Tokenizer.learn([s.report for s in phantom_studies(100)], 400)


@given(words=st.lists(st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1), max_size=12))
def test_every_text_survives_the_round_trip(words: list[str]) -> None:
    text = " ".join(words)
    assert TOKENIZER.decode(TOKENIZER.encode(text, 10_000)) == text


def test_encoding_is_cut_with_its_end_mark() -> None:
    ids = TOKENIZER.encode("the heart is normal in size and the lungs are clear .", 6)
    assert len(ids) == 6
    assert (ids[0], ids[-1]) == (BOS, EOS)


def test_tokenizer_file(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "t.json")
    again = Tokenizer.load(tmp_path / "t.json")
    assert again.encode("the heart", 9) == TOKENIZER.encode("the heart", 9)
    assert len(again) == len(TOKENIZER) <= 400
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot read the tokenizer .*t\.json"):
        Tokenizer.load(tmp_path / "t.json")
    with pytest.raises(ValueError, match="vocabulary_size = 100"):
        Tokenizer.learn(["a"], 100)


def test_splits_are_disjoint_stable_and_about_70_10_20() -> None:
    """Shares within 5 SE of their design, over 20,000 names."""
    names = [split_of(f"CXR{n}") for n in range(20_000)]
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        # 256 hash values do not divide by ten: the design shares are 180/256, 25/256, 51/256 to a few thousandths.
        assert abs(names.count(split) / 20_000 - share) < 0.005 + 5 * (share * (1 - share) / 20_000) ** 0.5


def test_items_are_what_training_needs() -> None:
    studies = phantom_studies(5)
    dataset = ReportDataset(studies, TOKENIZER, image_size=48, max_length=20)
    item = dataset[3]
    assert item["pixel_values"].dtype == torch.float32
    assert item["pixel_values"].shape == (1, 48, 48)
    assert torch.equal(item["attention_mask"], (item["input_ids"] != PAD).long())
    assert item["labels"].tolist() == list(studies[3].labels)
    assert torch.equal(dataset[3]["pixel_values"], item["pixel_values"])
    assert not torch.equal(dataset[2]["pixel_values"], item["pixel_values"])


def test_own_copy_of_reports(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"{n}.xml").write_text(
            f'<eCitation><uId id="OWN{n}"/><AbstractText Label="FINDINGS">The heart is enlarged.</AbstractText>'
            f"<major>cardiomegaly/{'mild' if n % 2 else 'severe'}</major></eCitation>"
        )
    corpus = load("openi", reports=tmp_path)
    assert corpus.images == "rendered images"
    assert len(corpus.studies) == sum(len(corpus.split(s)) for s in ("train", "val", "test")) == 40
    assert {s.findings[0].severity for s in corpus.studies} == {0.3, 0.9}
    assert "CC BY-NC-ND 4.0" in corpus.provenance["attribution"]


def test_bad_requests_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset 'mimic' must be"):
        load("mimic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"2 studies of phantom leave the .* split empty"):
        load("phantom", n_phantom=2)
    with pytest.raises(ValueError, match="n = 0 studies"):
        load("phantom", n_phantom=0)
    with pytest.raises(ReportsUnavailable, match="does not exist"):
        load("openi", reports=tmp_path / "nowhere")
