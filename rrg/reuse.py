"""Train, continue or reuse a run: what the demo and comparisons do for each of their runs."""

import dataclasses
import json

from rich.console import Console

from rrg.config import TrainConfig, as_json
from rrg.train import TrainResult, train


def trained(config: TrainConfig, console: Console | None = None) -> TrainResult:
    """The run in ``config.out``: trained, continued where it was interrupted, or as it was finished before.

    Raises:
        ValueError: if the folder holds a finished run with other options.
        Exception: as :func:`rrg.train.train`.
    """
    done = config.out / "result.json"
    if done.exists():
        result = json.loads(done.read_text())
        if {**result["config"], "resume": False} == as_json(config):
            if console is not None:
                console.print(f"{config.out.name}: already trained, remove {config.out} to repeat", style="dim")
            gradients = config.out / "gradients" if config.log_gradients else None
            return TrainResult(config.out, gradients, result, result["seconds"])
        raise ValueError(f"{config.out} holds a run with other options; remove it or choose another --out")
    interrupted = (config.out / "config.json").exists()
    return train(dataclasses.replace(config, resume=interrupted), console=console)
