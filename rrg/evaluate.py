"""Generate reports for a split and score them: BLEU, ROUGE-L, CIDEr, METEOR, clinical efficacy, and the condition head.

    python -m rrg.evaluate --run out/train --split test --num-beams 3

Writes result.json, samples.jsonl and samples.html to a folder in the run's, named after split and options.
"""

import importlib.metadata
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from optimizers.files import write_json
from rrg.command import command_line
from rrg.config import from_json
from rrg.data import SPLITS, Corpus, ReportDataset, Split, Tokenizer
from rrg.metrics import (
    LABEL_SETS,
    POLICIES,
    Labeller,
    RuleLabeller,
    bleu,
    cider,
    clinical_efficacy,
    load_labeller,
    majority,
    meteor,
    number,
    rouge_l,
    score_name,
    tabled,
    write_samples,
)
from rrg.model import ReportGenerator
from rrg.training import build_model, checkpoint, load_corpus, optimizer_meta, select_device

BATCH = 64
METRICS = {"ROUGE-L": "rouge_l", "CIDEr": "cider", "METEOR": "meteor"}
VERSIONS = ("torch", "transformers", "pycocoevalcap")


@dataclass(frozen=True)
class EvaluateConfig:
    """Score the last checkpoint of a training run."""

    run: Path
    """Folder of the run, the --out of rrg train."""
    split: Split = "test"
    """train shows what was memorised; with the task re each of its studies finds its own report."""
    num_beams: int = 3
    """Beams of the search; 1 is greedy."""
    length_penalty: float = 1.0
    """Beam scores are divided by length to this power."""
    chexbert: Path | None = None
    """CheXbert checkpoint that labels the reports; the built-in labeller by default."""
    chexbert_vocab: Path | None = None
    """BERT's vocab.txt; by default beside the checkpoint, or in the Hugging Face cache."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    reports: Path | None = None
    """Own copy of the OpenI reports, if the run's has moved."""
    annotation: Path | None = None
    """The annotation.json, if the run's has moved."""
    images: Path | None = None
    """Folder of the images, if the run's has moved."""
    out: Path | None = None
    """Folder of the results."""

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise ValueError(f"num_beams must be >= 1, got {self.num_beams}")

    @property
    def folder(self) -> Path:
        """``out``, or by default a folder in the run's that tells split and options."""
        penalty = f"-penalty{self.length_penalty:g}" if self.length_penalty != 1 else ""
        labeller = "-chexbert" if self.chexbert is not None else ""
        return self.out or self.run / f"evaluation-{self.split}-beams{self.num_beams}{penalty}{labeller}"


def evaluate(
    model: ReportGenerator,
    tokenizer: Tokenizer,
    corpus: Corpus,
    split: Split,
    *,
    image_size: int,
    max_views: int = 1,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    labeller: Labeller | None = None,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Generate a report for every study of the split and score it against the study's own; score the condition head.

    References are cut to the model's longest report, as the field does. Of a model without rg only the condition head
    is scored, of one without dc only the reports.

    Args:
        model: on its device; left in the mode it had.
        tokenizer: of its training.
        corpus: whose ``split`` is scored.
        split: "train", "val" or "test".
        image_size: pixels.
        max_views: images of a study that the model sees.
        num_beams: 1 is greedy.
        length_penalty: of the beam search.
        labeller: of the reports, for clinical efficacy; the built-in rules by default.
        settings: of the training (seed, optimizer, step …), kept with the scores.
        console: shows progress if given.

    Returns:
        scores with the settings that made them, where a metric that could not be had is a text saying why; and samples
        with id, reference and generated text, and their states of the 14 conditions.
    """
    begun = time.perf_counter()
    labeller = (labeller or RuleLabeller()).to(next(model.parameters()).device)
    studies = corpus.split(split)
    dataset = ReportDataset(studies, tokenizer, image_size=image_size, max_length=model.max_length, max_views=max_views)
    generated, states = _predict(model, tokenizer, dataset, num_beams, length_penalty, f"generate {split}", console)
    references = [tokenizer.decode(row) for row in dataset.input_ids.tolist()]
    scores: dict[str, Any] = {
        "dataset": corpus.name,
        "images": corpus.images,
        "provenance": corpus.provenance,
        "split": split,
        "studies": {name: len(corpus.split(name)) for name in SPLITS},
        "image_counts": {name: sum(len(s.images) or 1 for s in corpus.split(name)) for name in SPLITS},
        "max_views": max_views,
        "image_size": image_size,
        "tasks": list(model.tasks),
        "decoding": {
            "num_beams": num_beams,
            "max_length": model.max_length,
            "length_penalty": length_penalty if num_beams > 1 else None,
            "early_stopping": num_beams > 1,
            "sampling": False,
        },
        "references": f"the first {model.max_length - 2} tokens",
        "labeller": labeller.description,
        "policies": POLICIES,
        "training": dict(settings or {}),
        "versions": {name: _version(name) for name in VERSIONS},
    }
    samples: list[dict[str, Any]] = [
        {"id": study.id, "reference": reference} for study, reference in zip(studies, references, strict=True)
    ]
    if generated is not None:
        scores["distinct_reports"] = len(set(generated))
        scores["bleu"] = bleu(references, generated)
        scores["rouge_l"] = rouge_l(references, generated)
        scores["cider"] = cider(references, generated)
        scores["meteor"] = meteor(references, generated)
        expected, produced = labeller(references), labeller(generated)
        scores["clinical_efficacy"] = _efficacy(expected, produced)
        for sample, text, *pair in zip(samples, generated, expected.tolist(), produced.tolist(), strict=True):
            sample["generated"] = text
            sample["states"] = dict(zip(("reference", "generated"), pair, strict=True))
    if states is not None:
        training_labels = torch.tensor([study.labels for study in corpus.split("train")])
        scores["classification"] = _efficacy(dataset.labels, states)
        scores["majority"] = _efficacy(dataset.labels, majority(dataset.labels, training_labels))
        for sample, *pair in zip(samples, dataset.labels.tolist(), states.tolist(), strict=True):
            sample["head"] = dict(zip(("labels", "predicted"), pair, strict=True))
    scores["seconds"] = time.perf_counter() - begun
    return scores, samples


def _predict(
    model: ReportGenerator,
    tokenizer: Tokenizer,
    dataset: ReportDataset,
    num_beams: int,
    length_penalty: float,
    what: str,
    console: Console | None,
) -> tuple[list[str] | None, Tensor | None]:
    """A text for every study, and (n, 14) states; None for what the model has not learned."""
    device = next(model.parameters()).device
    texts: list[str] = []
    states: list[Tensor] = []
    training = model.training
    model.eval()
    try:
        for start in track(range(0, len(dataset), BATCH), what, console=console, disable=console is None):
            items = [dataset[i] for i in range(start, min(start + BATCH, len(dataset)))]
            pixels, mask = (
                torch.stack([item[key] for item in items]).to(device) for key in ("pixel_values", "view_mask")
            )
            ids, predicted = model.predict(
                pixels,
                mask if dataset.max_views > 1 else None,
                num_beams=num_beams,
                length_penalty=length_penalty,
            )
            texts += [] if ids is None else [tokenizer.decode(row) for row in ids.tolist()]
            states += [] if predicted is None else [predicted.cpu()]
    finally:
        model.train(training)
    return texts or None, torch.cat(states) if states else None


def _efficacy(references: Tensor, predictions: Tensor) -> dict[str, Any]:
    return {
        score_name(name, policy): clinical_efficacy(
            references, predictions, label_set=name, uncertainty=policy
        ).as_dict()
        for name in LABEL_SETS
        for policy in POLICIES
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cli(options: EvaluateConfig, console: Console) -> None:
    """Evaluate the run's last checkpoint, and say where the results are."""
    written = options.run / "config.json"
    if not written.is_file():
        raise ValueError(f"{options.run} holds no run; give the --out of rrg train")
    plain = json.loads(written.read_text())
    plain |= {name: None for name in ("chexbert", "chexbert_vocab") if name in plain}
    moved = {name: getattr(options, name) for name in ("reports", "annotation", "images")}
    config = from_json(plain | {name: str(path) for name, path in moved.items() if path is not None})
    device = select_device(options.device)
    labeller = load_labeller(options.chexbert, options.chexbert_vocab, console=console)
    newest = checkpoint.latest(options.run / "checkpoints")
    corpus = load_corpus(config, console)
    tokenizer = Tokenizer.load(options.run / "tokenizer.json")
    model = build_model(config, tokenizer, corpus.split("train"))
    checkpoint.load_model(newest, model)
    settings = {
        "seed": config.seed,
        "optimizer": optimizer_meta(config),
        "step": checkpoint.step_of(newest),
    }
    scores, samples = evaluate(
        model.to(device), tokenizer, corpus, options.split, image_size=config.image_size, max_views=config.max_views,
        num_beams=options.num_beams, length_penalty=options.length_penalty, labeller=labeller, settings=settings,
        console=console,
    )  # fmt: skip
    plain_options = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(options).items()}
    options.folder.mkdir(parents=True, exist_ok=True)
    write_json(options.folder / "result.json", {**scores, "options": plain_options})
    write_samples(options.folder, samples, corpus, scores, config.image_size)
    console.print(summary(scores), markup=False)
    console.print(f"written to {options.folder}: result.json, samples.jsonl, samples.html")


def summary(scores: Mapping[str, Any]) -> str:
    """The scores in a few lines.

    Example:
        >>> scores = {"bleu": [0.5, 0.25], "rouge_l": 0.4, "cider": 0.1, "meteor": "unavailable: no Java"}
        >>> print(summary({**scores, "images": "rendered images"}))
        images: rendered images
        BLEU-1…2 0.500 0.250
        ROUGE-L 0.400
        CIDEr 0.100
        METEOR unavailable: no Java
    """
    lines = [f"images: {scores['images']}"]
    if "bleu" in scores:
        lines.append(f"BLEU-1…{len(scores['bleu'])} {' '.join(map(number, scores['bleu']))}")
        lines += [f"{name} {number(scores[key])}" for name, key in METRICS.items()]
    for name, score in tabled(scores).items():
        means = ", ".join(f"{mean} {score[mean]['f1']:.3f}" for mean in ("micro", "macro", "example"))
        lines.append(f"{name} F1 {means} ({score_name()})")
    return "\n".join(lines)


def main() -> None:
    """Command line: ``python -m rrg.evaluate``."""
    command_line(EvaluateConfig, cli, __doc__)


if __name__ == "__main__":
    main()
