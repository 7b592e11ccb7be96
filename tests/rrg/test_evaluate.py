"""Scores of a split: what is in the result file, and that it comes from the texts and states that were predicted."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from optimizers.files import write_json
from rrg.config import TrainConfig
from rrg.data.grammar import phantom_studies
from rrg.data.labels.rules import label
from rrg.data.study import SPLITS, Corpus, Study
from rrg.data.tokenizer import Tokenizer
from rrg.evaluate import EvaluateConfig, cli, evaluate
from rrg.metrics import captions
from rrg.metrics.clinical import POLICIES, clinical_efficacy, majority
from rrg.metrics.labeller import RuleLabeller, load_labeller
from rrg.metrics.nlg import bleu, rouge_l
from rrg.metrics.seeds import measured
from rrg.model import ModelConfig, ReportGenerator
from rrg.train import train

MODEL = ModelConfig((8, 16), (1, 1), decoder_width=16, decoder_layers=1, text_layers=1, embedding_width=8,
                    retrieved=2, candidates=8)  # fmt: skip
CORPUS = Corpus("phantom", tuple(phantom_studies(60)), provenance={"source": "own grammar"})
TOKENIZER = Tokenizer.learn([s.report for s in CORPUS.split("train")], 300)
VAL = CORPUS.split("val")
ALL = ("rg", "dc", "ita", "re")
Result = tuple[dict[str, Any], list[dict[str, Any]]]


def model(*tasks: str) -> ReportGenerator:
    torch.manual_seed(0)
    return ReportGenerator(MODEL, len(TOKENIZER), 24, tasks=tasks or ("rg", "dc"), image_size=32, memory_size=9)


def scored(network: ReportGenerator | None = None, **options: Any) -> Result:
    return evaluate(network or model(), TOKENIZER, CORPUS, "val", image_size=32, **options)


@pytest.fixture(scope="module")
def result() -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions, "java_problem", lambda: "switched off for this test")
        return scored(settings={"seed": 7, "optimizer": {"name": "linear"}, "step": 3})


def test_every_result_says_how_it_was_made(result: Result, tmp_path: Path) -> None:
    scores, _ = result
    write_json(tmp_path / "result.json", scores)
    assert json.loads((tmp_path / "result.json").read_text()) == scores
    assert (scores["dataset"], scores["images"], scores["split"]) == ("phantom", "rendered images", "val")
    assert scores["provenance"] == {"source": "own grammar"}
    counts = {split: len(CORPUS.split(split)) for split in SPLITS}
    assert scores["studies"] == scores["image_counts"] == counts
    assert scores["decoding"] == {
        "num_beams": 1,
        "max_length": 24,
        "length_penalty": None,
        "early_stopping": False,
        "sampling": False,
    }
    assert scores["training"] == {"seed": 7, "optimizer": {"name": "linear"}, "step": 3}
    assert scores["labeller"]["name"] == "rule-based"
    assert len(scores["labeller"]["sha256"]) == 64
    assert scores["versions"]["torch"] == version("torch")
    assert "transformers" in scores["versions"]
    assert "authors" in scores["policies"]["positive"]


def test_scores_are_those_of_the_samples(result: Result) -> None:
    scores, samples = result
    assert [sample["id"] for sample in samples] == [study.id for study in VAL]
    references, generated = ([sample[side] for sample in samples] for side in ("reference", "generated"))
    assert references == [TOKENIZER.decode(TOKENIZER.encode(study.report, 24)) for study in VAL]
    assert scores["bleu"] == bleu(references, generated)
    assert scores["rouge_l"] == rouge_l(references, generated)
    assert scores["distinct_reports"] == len(set(generated))
    assert scores["cider"] == captions.cider(references, generated)
    for side in ("reference", "generated"):
        assert [tuple(sample["states"][side]) for sample in samples] == [label(sample[side]) for sample in samples]
    states = [torch.tensor([sample["states"][side] for sample in samples]) for side in ("reference", "generated")]
    head = [torch.tensor([sample["head"][side] for sample in samples]) for side in ("labels", "predicted")]
    assert head[0].tolist() == [list(study.labels) for study in VAL]
    training = torch.tensor([study.labels for study in CORPUS.split("train")])
    sides = {"clinical_efficacy": states, "classification": head, "majority": [head[0], majority(head[0], training)]}
    for key, (expected, produced) in sides.items():
        assert len(scores[key]) == 6
        for name in ("14", "5"):
            for policy in POLICIES:
                ce = clinical_efficacy(expected, produced, label_set=name, uncertainty=policy)
                assert scores[key][f"{name} conditions, uncertain {policy}"] == ce.as_dict()


def test_other_commands_find_what_they_read(result: Result) -> None:
    found = measured({"training_losses": {}, "evaluation": result[0]})
    assert {"BLEU-4", "ROUGE-L", "CIDEr", "METEOR", "distinct reports", "CE F1 micro", "DC F1 macro"} <= found.keys()
    assert found["METEOR"] == "unavailable: switched off for this test"


@pytest.mark.parametrize(
    ("tasks", "there", "missing"),
    [
        (("dc",), "classification", ("bleu", "cider", "clinical_efficacy", "distinct_reports")),
        (("rg",), "bleu", ("classification", "majority")),
        (("ita", "re"), "dataset", ("bleu", "classification")),
    ],
)
def test_models_of_some_tasks_are_scored_on_those(tasks: tuple[str, ...], there: str, missing: tuple[str, ...]) -> None:
    scores, samples = scored(model(*tasks))
    assert there in scores
    assert not scores.keys() & set(missing)
    assert scores["tasks"] == list(tasks)
    assert ("generated" in samples[0]) == ("rg" in tasks)
    assert ("head" in samples[0]) == ("dc" in tasks)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode_even_if_generation_fails(monkeypatch: pytest.MonkeyPatch, training: bool) -> None:
    network = model().train(training)
    seen = []
    predict = network.predict

    def spy(*args: Any, **options: Any) -> Any:
        seen.append(network.training)
        if len(seen) > 1:
            raise RuntimeError("out of memory")
        return predict(*args, **options)

    monkeypatch.setattr(network, "predict", spy)
    scored(network)
    assert network.training == training
    with pytest.raises(RuntimeError, match="out of memory"):
        scored(network)
    assert network.training == training
    assert seen == [False, False]


def test_the_random_state_is_left_alone() -> None:
    network = model()
    before = torch.get_rng_state()
    scored(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_beam_search_settings_reach_the_model_and_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model("rg")
    calls: list[dict[str, Any]] = []

    def predict(pixels: Tensor, mask: Tensor | None, **options: Any) -> tuple[Tensor, None]:
        calls.append({"mask": mask, **options})
        return torch.full((len(pixels), 3), 2), None

    monkeypatch.setattr(network, "predict", predict)
    scores, samples = scored(network, num_beams=4, length_penalty=0.6)
    assert calls == [{"mask": None, "num_beams": 4, "length_penalty": 0.6}]
    expected = {"num_beams": 4, "max_length": 24, "length_penalty": 0.6, "early_stopping": True, "sampling": False}
    assert scores["decoding"] == expected
    assert {sample["generated"] for sample in samples} == {""}
    assert scores["bleu"] == [0.0] * 4


def test_every_study_of_several_batches_is_scored_once(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrg.evaluate.BATCH", 2)
    assert scored()[1] == result[1]


class Stub:
    """Calls every report edema, uncertain where it was generated."""

    description = {"name": "stub"}  # noqa: RUF012

    def __init__(self) -> None:
        self.calls: list[Sequence[str]] = []

    def to(self, device: torch.device) -> "Stub":
        return self

    def __call__(self, texts: Sequence[str]) -> Tensor:
        self.calls.append(texts)
        states = torch.zeros(len(texts), 14, dtype=torch.int64)
        states[:, 4] = 1 if len(self.calls) == 1 else 3
        return states


def test_the_labeller_and_every_policy_are_used() -> None:
    stub = Stub()
    scores, samples = scored(labeller=stub)
    assert stub.calls == [[sample[side] for sample in samples] for side in ("reference", "generated")]
    assert scores["labeller"] == {"name": "stub"}
    f1 = {p: scores["clinical_efficacy"][f"14 conditions, uncertain {p}"]["micro"]["f1"] for p in POLICIES}
    assert f1 == {"positive": 1.0, "negative": 0.0, "ignored": 0.0}


def test_rules_label_any_number_of_texts() -> None:
    assert RuleLabeller()([]).shape == (0, 14)
    assert RuleLabeller()(["no effusion .", "", "no effusion ."]).tolist() == [
        list(label(text)) for text in ("no effusion .", "", "no effusion .")
    ]
    assert isinstance(load_labeller(None), RuleLabeller)
    with pytest.raises(ValueError, match=r"chexbert_vocab vocab\.txt needs --chexbert FILE"):
        load_labeller(None, Path("vocab.txt"))


@pytest.fixture
def radiographs(tmp_path: Path) -> Path:
    """An annotation.json whose first study of every split has one view, the others two."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    entries: dict[str, Any] = {split: [] for split in SPLITS}
    for study in phantom_studies(40):
        views = 2 if entries[study.split] else 1
        paths = [f"{study.id}-{view}.png" for view in range(views)]
        for path in paths:
            Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / "images" / path)
        entries[study.split].append({"id": study.id, "report": study.report, "image_path": paths})
    entries["info"] = {"images": "radiographs matched to reports by label"}
    (tmp_path / "annotation.json").write_text(json.dumps(entries))
    return tmp_path / "annotation.json"


def config(annotation: Path | None, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(
        annotation=annotation, steps=6, batch_size=4, image_size=32, max_views=2, vocabulary_size=300, max_length=24,
        device="cpu", model=MODEL, out=out, **{"dataset": "r2gen", "tasks": ALL, "evaluate": "test", **changes},
    )  # fmt: skip


def run(options: EvaluateConfig) -> dict[str, Any]:
    cli(options, Console(quiet=True))
    return json.loads((options.folder / "result.json").read_text())


def test_the_command_repeats_the_evaluation_of_training(radiographs: Path, tmp_path: Path) -> None:
    """All four tasks, two views: the checkpoint holds the retrieval memory and the class frequencies."""
    trained = train(config(radiographs, tmp_path / "run"))
    expected = trained.result["evaluation"]
    found = run(EvaluateConfig(tmp_path / "run", num_beams=1))
    options, training = found.pop("options"), found.pop("training")
    assert options["split"] == "test"
    assert training["step"] == 6
    assert training["optimizer"] == expected.pop("training")["optimizer"]
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    folder = tmp_path / "run" / "evaluation-test-beams1"
    assert (folder / "samples.jsonl").read_text() == (tmp_path / "run" / "samples.jsonl").read_text()
    assert found["images"] == "radiographs matched to reports by label"
    assert found["image_counts"] == {split: 2 * found["studies"][split] - 1 for split in SPLITS}
    assert (folder / "samples.html").read_text().count("<img") <= 2 * found["studies"]["test"] - 1

    moved = tmp_path / "moved"
    moved.mkdir()
    radiographs.rename(moved / "studies.json")
    (radiographs.parent / "images").rename(moved / "pixels")
    with pytest.raises(ValueError, match=r"annotation.* does not exist"):
        run(EvaluateConfig(tmp_path / "run"))
    elsewhere = EvaluateConfig(
        tmp_path / "run", split="val", num_beams=2, length_penalty=0.5, annotation=moved / "studies.json",
        images=moved / "pixels",
    )  # fmt: skip
    assert elsewhere.folder.name == "evaluation-val-beams2-penalty0.5"
    assert run(elsewhere)["studies"] == expected["studies"]


def test_a_view_that_is_not_there_makes_no_difference(radiographs: Path, tmp_path: Path) -> None:
    """With the second view masked everywhere, two views are scored as one."""
    study = Study("one", "the lungs are clear .", tuple(label("the lungs are clear .")), (), "val",
                  images=(radiographs.parent / "images" / "phantom-0-0-0.png",))  # fmt: skip
    corpus = Corpus("x", (study, dataclasses.replace(study, id="two", split="train")))
    one, two = (evaluate(model(), TOKENIZER, corpus, "val", max_views=n, image_size=32)[1] for n in (1, 2))
    assert one == two


def test_folders_that_are_no_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no run; give the --out of rrg train"):
        run(EvaluateConfig(tmp_path))
    with pytest.raises(ValueError, match="num_beams must be >= 1, got 0"):
        EvaluateConfig(tmp_path, num_beams=0)
    train(config(None, tmp_path / "run", dataset="phantom", phantom_studies=40, tasks=("rg", "dc"), evaluate="none"))
    with pytest.raises(ValueError, match=r"chexbert: .*none\.pth does not exist"):
        run(EvaluateConfig(tmp_path / "run", chexbert=tmp_path / "none.pth"))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ValueError, match="no checkpoint in"):
        run(EvaluateConfig(tmp_path / "run"))
    assert not list((tmp_path / "run").glob("evaluation*"))


@pytest.mark.slow
@pytest.mark.usefixtures("java")
def test_meteor_is_a_number_where_java_runs() -> None:
    pytest.importorskip("pycocoevalcap.meteor.meteor")
    assert isinstance(scored()[0]["meteor"], float)
