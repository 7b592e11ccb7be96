"""Generate reports for a split and score them: BLEU, ROUGE-L, clinical efficacy, and the condition head.

python -m rrg.evaluate --run out/train --split test --num-beams 3
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import track
from torch import Tensor

from rrg import checkpoint
from rrg.atomic import write_bytes, write_json
from rrg.config import TrainConfig, from_json
from rrg.data.corpus import Corpus, ReportDataset, load
from rrg.data.labels import label
from rrg.data.openi import ReportsUnavailable
from rrg.data.tokenizer import Tokenizer
from rrg.metrics.clinical import Uncertainty, clinical_efficacy, majority
from rrg.metrics.nlg import bleu, rouge_l
from rrg.model import ReportGenerator

BATCH = 64
POLICIES: tuple[Uncertainty, ...] = ("negative", "positive")


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a checkpoint of a training run."""

    run: Path
    """Folder of the run, the --out of rrg.train."""
    split: Literal["val", "test"] = "test"
    num_beams: int = 3
    """Beams of the search; 1 is greedy."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    reports: Path | None = None
    """Own copy of the OpenI reports, if the run's is gone."""


def evaluate(
    model: ReportGenerator,
    tokenizer: Tokenizer,
    corpus: Corpus,
    split: Literal["val", "test"],
    *,
    image_size: int,
    num_beams: int = 1,
    console: Console | None = None,
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Generate a report for every study of the split and score it against the study's own.

    References are cut to the model's longest report, as the field does.

    Args:
        model: on its device; left in the mode it had.
        tokenizer: of its training.
        corpus: whose ``split`` is scored.
        split: "val" or "test".
        image_size: pixels.
        num_beams: 1 is greedy.
        console: shows progress if given.

    Returns:
        scores with the settings that made them, and samples with id, reference and generated text.
    """
    begun = time.perf_counter()
    studies = corpus.split(split)
    dataset = ReportDataset(studies, tokenizer, image_size=image_size, max_length=model.max_length)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    generated: list[str] = []
    states: list[Tensor] = []
    starts = range(0, len(dataset), BATCH)
    with torch.no_grad():
        for start in track(starts, f"generate {split}", console=console, disable=console is None):
            items = [dataset[i] for i in range(start, min(start + BATCH, len(dataset)))]
            pixels = torch.stack([item["pixel_values"] for item in items]).to(device)
            ids = model.generate(pixels, num_beams=num_beams)
            generated += [tokenizer.decode(row) for row in ids.tolist()]
            begin = ids[:, :1]
            states.append(model(pixels, begin).condition_logits.argmax(-1).cpu())
    model.train(training)
    references = [tokenizer.decode(row) for row in dataset.input_ids.tolist()]
    expected = torch.tensor([label(text) for text in references])
    produced = torch.tensor([label(text) for text in generated])
    training_labels = torch.tensor([study.labels for study in corpus.split("train")])
    scores = {
        "dataset": corpus.name,
        "images": corpus.images,
        "provenance": corpus.provenance,
        "split": split,
        "studies": {name: len(corpus.split(name)) for name in ("train", "val", "test")},
        "decoding": {"num_beams": num_beams, "max_length": model.max_length},
        "references": f"the first {model.max_length - 2} tokens",
        "seconds": time.perf_counter() - begun,
        "labeller": "rule-based, rrg.data.labels, on both texts",
        "distinct_reports": len(set(generated)),
        "bleu": bleu(references, generated),
        "rouge_l": rouge_l(references, generated),
        "clinical_efficacy": _efficacy(expected, produced),
        "classification": _efficacy(dataset.labels, torch.cat(states)),
        "majority": _efficacy(dataset.labels, majority(dataset.labels, training_labels)),
    }
    samples = [
        {"id": study.id, "reference": reference, "generated": text}
        for study, reference, text in zip(studies, references, generated, strict=True)
    ]
    return scores, samples


def _efficacy(references: Tensor, predictions: Tensor) -> dict[str, Any]:
    return {
        f"{name} conditions, uncertain {policy}": clinical_efficacy(
            references, predictions, label_set=name, uncertainty=policy
        ).as_dict()
        for name in ("14", "5")
        for policy in POLICIES
    }


def build_model(config: TrainConfig, tokenizer: Tokenizer) -> ReportGenerator:
    """The untrained model of a run."""
    return ReportGenerator(config.model, len(tokenizer), config.max_length)


def load_corpus(config: TrainConfig) -> Corpus:
    """The corpus of a run; raises ``ReportsUnavailable`` if it cannot be had."""
    return load(
        config.dataset,
        reports=config.reports,
        limit=config.limit,
        n_phantom=config.phantom_studies,
        seed=config.seed,
    )


def write_samples(path: Path, samples: list[dict[str, str]]) -> None:
    """One JSON object a line, atomically."""
    write_bytes(path, "".join(json.dumps(sample) + "\n" for sample in samples).encode())


def select_device(name: str) -> torch.device:
    """ "auto" takes a GPU if there is one.

    Raises:
        ValueError: if "cuda" is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no GPU; use --device auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def main() -> None:
    """Command line: ``python -m rrg.evaluate``."""
    options = tyro.cli(EvaluateConfig, description=__doc__)
    console = Console()
    try:
        newest = checkpoint.latest(options.run / "checkpoints")
        plain = json.loads((options.run / "config.json").read_text())
        if options.reports is not None:
            plain["reports"] = str(options.reports)
        config = from_json(plain)
        tokenizer = Tokenizer.load(options.run / "tokenizer.json")
        model = build_model(config, tokenizer).to(select_device(options.device))
        checkpoint.load_model(newest, model)
        scores, samples = evaluate(
            model, tokenizer, load_corpus(config), options.split, image_size=config.image_size,
            num_beams=options.num_beams, console=console,
        )  # fmt: skip
    except (OSError, ValueError, ReportsUnavailable) as error:
        console.print(f"error: {error}", style="red", markup=False)
        sys.exit(2)
    name = f"{options.split}-beams{options.num_beams}"
    write_json(options.run / f"evaluation-{name}.json", {**scores, "options": _plain(options)})
    write_samples(options.run / f"samples-{name}.jsonl", samples)
    efficacy = scores["clinical_efficacy"]["14 conditions, uncertain negative"]
    console.print(
        f"BLEU-1…4 {' '.join(f'{b:.3f}' for b in scores['bleu'])}  ROUGE-L {scores['rouge_l']:.3f}  "
        f"CE F1 macro {efficacy['macro']['f1']:.3f} micro {efficacy['micro']['f1']:.3f} "
        f"example {efficacy['example']['f1']:.3f}  ({scores['images']})"
    )


def _plain(options: EvaluateConfig) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}


if __name__ == "__main__":
    main()
