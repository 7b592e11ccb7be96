import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rrg.data.corpus import ReportDataset, load
from rrg.data.grammar import phantom_studies
from rrg.data.images import DEVIATION, MEAN
from rrg.data.study import SPLITS, Study, split_of
from rrg.data.tokenizer import BOS, EOS, Tokenizer
from rrg.errors import ReportsUnavailable
from rrg.training.batches import StepSampler, loader

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
    for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        # 256 hash values do not divide by ten: the design shares are 180/256, 25/256, 51/256 to a few thousandths.
        assert abs(names.count(split) / 20_000 - share) < 0.005 + 5 * (share * (1 - share) / 20_000) ** 0.5


def test_items_are_what_training_needs() -> None:
    studies = phantom_studies(5)
    dataset = ReportDataset(studies, TOKENIZER, image_size=48, max_length=20, max_views=2)
    item = dataset[3]
    assert item["pixel_values"].dtype == torch.float32
    assert item["pixel_values"].shape == (2, 1, 48, 48)
    assert item["view_mask"].tolist() == [True, False]
    assert not item["pixel_values"][1].any()
    assert item["labels"].tolist() == list(studies[3].labels)
    assert item["index"].item() == 3
    assert item["input_ids"].shape == (20,)
    assert torch.equal(dataset[3]["pixel_values"], item["pixel_values"])
    assert not torch.equal(dataset[2]["pixel_values"], item["pixel_values"])


def with_files(folder: Path, views: int = 2) -> list[Study]:
    """Studies whose pixels are ramps in files: columns 0 … 255, so that a crop's offset can be read off."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    Image.fromarray(ramp).save(folder / "x.png")
    Image.fromarray(ramp.T).save(folder / "y.png")
    files = (folder / "x.png", folder / "y.png")[:views]
    return [dataclasses.replace(study, images=files) for study in phantom_studies(6)]


def test_views_come_from_the_files(tmp_path: Path) -> None:
    dataset = ReportDataset(with_files(tmp_path), TOKENIZER, image_size=32, max_length=20, max_views=2)
    x, y = dataset[0]["pixel_values"][:, 0]
    assert dataset[0]["view_mask"].tolist() == [True, True]
    assert torch.equal(x, y.T)
    grey = x[0] * DEVIATION + MEAN
    assert torch.allclose(grey * 255, torch.arange(32) * 8 + 3.5, atol=0.51)


def test_crops_are_decided_by_key_and_study_alone(tmp_path: Path) -> None:
    studies = with_files(tmp_path)
    dataset = ReportDataset(studies, TOKENIZER, image_size=32, max_length=20, max_views=2, augment=True)
    plain = ReportDataset(studies, TOKENIZER, image_size=32, max_length=20, max_views=2)
    first = dataset[2, 7]["pixel_values"]
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    dataset[1, 8]
    assert torch.equal(dataset[2, 7]["pixel_values"], first)
    offsets = {tuple(dataset[2, key]["pixel_values"][0, 0, 0, :1].tolist()) for key in range(40)}
    assert len(offsets) == 6, "37 columns leave six places for 32"
    assert len({tuple(dataset[i, 7]["pixel_values"][0, 0, 0, :1].tolist()) for i in range(6)}) > 1
    assert (first[0, 0].diff(dim=1) > 0).all(), "never flipped"
    assert torch.equal(dataset[2]["pixel_values"], plain[2]["pixel_values"]), "no key, no crop"
    assert torch.equal(plain[2, 7]["pixel_values"], plain[2]["pixel_values"])


def test_rendered_images_are_cropped_too() -> None:
    dataset = ReportDataset(phantom_studies(3), TOKENIZER, image_size=32, max_length=20, augment=True)
    assert dataset[0, 1]["pixel_values"].shape == (1, 1, 32, 32)
    assert not torch.equal(dataset[0, 1]["pixel_values"], dataset[0, 2]["pixel_values"])


@pytest.mark.slow
def test_worker_processes_bring_the_same_batches(tmp_path: Path) -> None:
    dataset = ReportDataset(with_files(tmp_path), TOKENIZER, image_size=32, max_length=20, max_views=2, augment=True)
    batches = [list(loader(dataset, StepSampler(6, 2, steps=5), workers=n, pin=False)) for n in (0, 2)]
    for here, there in zip(*batches, strict=True):
        assert all(torch.equal(here[name], there[name]) for name in here)


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
