"""What a gradient log costs a training step: steps with and without it, alternating in one process.

    python benchmarks/gradient_log_cost.py
    python benchmarks/gradient_log_cost.py --tasks rg dc ita re --batch-size 64 --image-size 224

The goal is below 5 % of a step. The log reads every task gradient twice, for the Gramians of the groups of parameters
and for the CountSketch, which reads what one task alone reaches for that task only, and copies 2K×m numbers away.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from machine import write
from rich.console import Console
from rich.progress import track

from rrg.config import TrainConfig
from rrg.data import ReportDataset, Tokenizer
from rrg.training import TrainingRun, build_model, load_corpus, open_log, select_device


@dataclass(frozen=True)
class Options:
    """Measure the cost of gradient logs."""

    tasks: tuple[str, ...] = ("rg", "dc")
    batch_size: int = 16
    image_size: int = 128
    steps: int = 40
    """Steps of each kind, after 6 of warm-up."""
    precision: Literal["fp32", "bf16"] = "fp32"
    save: bool = True
    """Write the numbers to benchmarks/results."""


def main(options: Options) -> None:
    """Measure and print."""
    config = TrainConfig(
        dataset="phantom", phantom_studies=max(400, 4 * options.batch_size), tasks=options.tasks,
        batch_size=options.batch_size, image_size=options.image_size, precision=options.precision,
        log_gradients=True, frozen_batches=0, out=Path(tempfile.mkdtemp()),
    )  # fmt: skip
    corpus = load_corpus(config)
    training = corpus.split("train")
    tokenizer = Tokenizer.learn([s.report for s in training], config.vocabulary_size)
    dataset = ReportDataset(training, tokenizer, image_size=config.image_size, max_length=config.max_length)
    model = build_model(config, tokenizer, training).to(select_device("auto"))
    for index in range(len(dataset)):
        dataset[index]  # images are drawn once
    total = 6 + 2 * options.steps
    run = TrainingRun(config, corpus, dataset, model, total)
    run.begin(0)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with open_log(run, 0) as log:
        if log is None:
            raise RuntimeError("this benchmark is for one process, which writes the gradient log")
        observe = run.optimizer.observer
        for step in track(range(total), "steps", console=Console()):
            logged = step % 2 == 0
            run.optimizer.observer = observe if logged else None
            begun = time.perf_counter()
            losses = run.step(step)
            if logged:
                log.end_step(step, losses)
            if run.device.type == "cuda":
                torch.cuda.synchronize()
            if step >= 6:
                seconds[logged].append(time.perf_counter() - begun)
    ratios = [a / b for a, b in zip(seconds[True], seconds[False], strict=True)]
    result = {
        "parameters": sum(p.numel() for p in run.parameters),
        "options": {**vars(options), "tasks": list(options.tasks)},
        "step_ms": 1e3 * statistics.median(seconds[False]),
        "logged_step_ms": 1e3 * statistics.median(seconds[True]),
        "median_ratio": statistics.median(ratios),
        "quartiles_of_ratio": statistics.quantiles(ratios, n=4),
    }
    print(
        f"{result['parameters']:,} parameters, {len(options.tasks)} tasks: step {result['step_ms']:.1f} ms, logged "
        f"{result['logged_step_ms']:.1f} ms, median ratio {result['median_ratio']:.3f}"
    )
    if options.save:
        print(write(f"gradient-log-cost-{len(options.tasks)}-tasks", result))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
