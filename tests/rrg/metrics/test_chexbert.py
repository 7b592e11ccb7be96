"""CheXbert from a tiny checkpoint in the published layout, against a forward pass of its own."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from rrg.data.study import CONDITIONS, LabelState
from rrg.metrics import wordpiece
from rrg.metrics.chexbert import STALE, CheXbert
from rrg.metrics.clinical import clinical_efficacy

WORDS = ["the", "heart", "is", "normal", "large", "lungs", "are", "clear", "no", "pleural", "effusion", ".", ",", "##s"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96,
         "max_position_embeddings": 16, "vocab_size": len(VOCABULARY)}  # fmt: skip
TEXTS = [
    "The heart is normal .",
    "  No\npleural   effusion , lungs are clear .\n",
    "",
    "heart " * 40,
    "hearts zebra",
    "The heart is normal .",
]
IDS = [
    [2, 4, 5, 6, 7, 15, 3],
    [2, 12, 13, 14, 16, 9, 10, 11, 15, 3],
    [2, 3],
    [2, *[5] * 14, 3],
    [2, 5, 17, 1, 3],
    [2, 4, 5, 6, 7, 15, 3],
]


@pytest.fixture(scope="module")
def bert() -> BertModel:
    torch.manual_seed(1)
    return BertModel(BertConfig(**SIZES, initializer_range=0.3)).eval()


@pytest.fixture(scope="module")
def heads() -> list[torch.nn.Linear]:
    torch.manual_seed(2)
    return [torch.nn.Linear(128, 2 if c == "No Finding" else 4) for c in CONDITIONS]


@pytest.fixture
def weights(bert: BertModel, heads: list[torch.nn.Linear]) -> dict[str, Tensor]:
    """The tensors as DataParallel names them, with the constant that old versions saved."""
    named = {f"module.bert.{name}": tensor.clone() for name, tensor in bert.state_dict().items()}
    for number, head in enumerate(heads):
        named |= {f"module.linear_heads.{number}.{n}": t.clone() for n, t in head.state_dict().items()}
    named[f"module.{STALE}"] = torch.arange(16)[None]
    return named


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint with its vocabulary beside it."""

    def save(weights: dict[str, Tensor], **options: Any) -> Path:
        path = tmp_path / "chexbert.pth"
        torch.save({"epoch": 3, "model_state_dict": weights, "optimizer_state_dict": {"state": {}}}, path, **options)
        (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
        return path

    return save


def expected_states(bert: BertModel, heads: list[torch.nn.Linear]) -> Tensor:
    rows = []
    for ids in IDS:
        with torch.no_grad():
            first = bert(torch.tensor([ids])).last_hidden_state[0, 0]
            rows.append(torch.stack([head(first).argmax() for head in heads]))
    return torch.stack(rows)


@pytest.mark.parametrize("zipped", [True, False])
def test_states_are_those_of_an_independent_forward_pass(
    bert: BertModel, heads: list[torch.nn.Linear], weights: dict[str, Tensor], saved: Callable[..., Path], zipped: bool
) -> None:
    """Also in the file format of the torch that wrote the published checkpoint."""
    path = saved(weights, _use_new_zipfile_serialization=zipped)
    labeller = CheXbert.load(path)
    states = labeller(TEXTS)
    expected = expected_states(bert, heads)
    assert states.dtype == torch.int64
    assert torch.equal(states, expected)
    assert len(expected.unique(dim=0)) > 2  # the comparison could have failed
    assert states[:, -1].max() <= LabelState.POSITIVE
    assert labeller.description == {
        "name": "CheXbert",
        "file": "chexbert.pth",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "vocabulary_sha256": hashlib.sha256((path.parent / "vocab.txt").read_bytes()).hexdigest(),
        "layers": 2,
        "width": 128,
    }
    json.dumps(labeller.description)
    assert clinical_efficacy(states, states).micro.f1 == 1
    assert labeller([]).shape == (0, 14)


def test_names_without_module_and_without_the_constant(weights: dict[str, Tensor], saved: Callable[..., Path]) -> None:
    expected = CheXbert.load(saved(weights))(TEXTS)
    plain = {n.removeprefix("module."): t for n, t in weights.items() if not n.endswith("position_ids")}
    assert torch.equal(CheXbert.load(saved(plain))(TEXTS), expected)


def test_states_do_not_depend_on_the_batch(weights: dict[str, Tensor], saved: Callable[..., Path]) -> None:
    labeller = CheXbert.load(saved(weights))
    alone = torch.cat([labeller([text]) for text in TEXTS])
    assert torch.equal(labeller([*TEXTS, *(f"the heart {'is ' * n}large" for n in range(80))])[: len(TEXTS)], alone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("module.linear_heads.13.bias"), r"chexbert\.pth lacks linear_heads\.13\.bias; it is not"),
        (lambda w: w.update({"module.extra": torch.zeros(1)}), r"has the unknown extra; it is not CheXbert's network"),
        (
            lambda w: w.update({"module.linear_heads.13.weight": torch.zeros(4, 128)}),
            r"has linear_heads\.13\.weight of shape \(4, 128\), expected \(2, 128\)",
        ),
        (lambda w: w.pop("module.bert.embeddings.word_embeddings.weight"), r"lacks the tensor 'bert\.embeddings\.word"),
        (
            lambda w: w.update({"module.bert.embeddings.word_embeddings.weight": torch.zeros(18, 100)}),
            "has 100 channels, expected a multiple of 64",
        ),
    ],
)
def test_other_tensors_are_refused_by_name(
    weights: dict[str, Tensor], saved: Callable[..., Path], change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    change(weights)
    with pytest.raises(ValueError, match=message):
        CheXbert.load(saved(weights))


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_damaged_files_and_traps_are_refused(
    tmp_path: Path, weights: dict[str, Tensor], saved: Callable[..., Path]
) -> None:
    path = tmp_path / "missing.pth"
    with pytest.raises(ValueError, match=r"missing\.pth does not exist; expected the published chexbert\.pth"):
        CheXbert.load(path)
    whole = saved(weights).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>", pickle.dumps([1])[:5]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"missing\.pth is damaged or no checkpoint of tensors"):
            CheXbert.load(path)
    for content in ({"weights": weights}, [1], {"model_state_dict": {"a": 1}}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="holds no tensors under 'model_state_dict'"):
            CheXbert.load(path)
    trap = tmp_path / "sprung"
    torch.save({"model_state_dict": weights, "trap": Trap(trap)}, path)
    with pytest.raises(ValueError, match="is damaged or no checkpoint"):
        CheXbert.load(path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Trap(trap)))  # it would have sprung
    assert trap.exists()


def test_where_the_vocabulary_comes_from(
    tmp_path: Path, weights: dict[str, Tensor], saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = CheXbert.load(saved(weights))(TEXTS)
    path, vocabulary = tmp_path / "chexbert.pth", tmp_path / "vocab.txt"
    other = tmp_path / "other"
    other.mkdir()
    tokens = {token: number for number, token in enumerate(VOCABULARY)}
    (other / "tokenizer.json").write_text(json.dumps({"model": {"vocab": tokens}}))
    vocabulary.rename(other / "words.txt")
    for given in (other, other / "tokenizer.json", other / "words.txt"):
        assert torch.equal(CheXbert.load(path, vocabulary=given)(TEXTS), expected)
    monkeypatch.setattr(wordpiece, "try_to_load_from_cache", lambda model, name: None)
    with pytest.raises(ValueError, match=r"needs BERT's vocabulary: put the vocab\.txt of bert-base-uncased"):
        CheXbert.load(path)
    cached = {("google-bert/bert-base-uncased", "tokenizer.json"): str(other / "tokenizer.json")}
    monkeypatch.setattr(wordpiece, "try_to_load_from_cache", lambda model, name: cached.get((model, name)))
    assert torch.equal(CheXbert.load(path)(TEXTS), expected)
    with pytest.raises(ValueError, match="is neither a file nor a folder with"):
        CheXbert.load(path, vocabulary=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n".join(VOCABULARY[:-1]), r"vocab\.txt has 17 tokens; the checkpoint's vocabulary has 18"),
        ("\n".join(["pad", *VOCABULARY[1:]]), r"has 18 tokens and lacks \[PAD\]"),
        ("\udcff", r"cannot read the vocabulary .*vocab\.txt: UnicodeDecodeError"),
    ],
)
def test_another_vocabulary_is_refused(
    weights: dict[str, Tensor], saved: Callable[..., Path], content: str, message: str
) -> None:
    path = saved(weights)
    (path.parent / "vocab.txt").write_text(content, errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        CheXbert.load(path)
