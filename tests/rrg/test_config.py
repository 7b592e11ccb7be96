import dataclasses
from pathlib import Path

import pytest
from tiny_training import TINY

from rrg.config import as_json, from_json


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"lr": -1.0}, "lr must be > 0, got -1"),
        ({"encoder_lr": 0.0}, "encoder_lr must be finite and > 0, got 0"),
        ({"optimizer": "sgd"}, "optimizer 'sgd' must be one of linear, mgda"),
        ({"optimizer": "torchjd:Nothing"}, "'Nothing' is no aggregator of TorchJD; it has .*UPGrad"),
        ({"tasks": ("rg", "vqa")}, "must be some of"),
        ({"tasks": ()}, "must be some of"),
        ({"tasks": ("rg",), "task_weights": (1.0, 2.0)}, "must be one for each of the tasks"),
        ({"refresh_every": 0}, "refresh_every must be > 0"),
        ({"dataset": "r2gen"}, "dataset r2gen and --annotation FILE belong together"),
        ({"annotation": Path("a.json")}, "dataset r2gen and --annotation FILE belong together"),
        ({"chexbert": Path("nowhere.pth")}, "chexbert: nowhere.pth does not exist"),
        ({"lr": float("inf")}, "lr must be finite, got inf"),
        ({"task_weights": (1.0, float("nan"))}, "task_weights must be finite"),
        ({"rho": 2.0}, "rho = 2.0"),
        ({"optimizer": "linear", "kappa": 0.5}, "kappa = 0.5"),
        ({"frozen_at": (50.0,)}, "beyond the last of 6 steps"),
        ({"frozen_at": (float("nan"),)}, "frozen_at takes"),
        ({"limit": 3}, "limit must be >= 10"),
        ({"frozen_batches": 1}, "one micro-batch has no covariance"),
        ({"frozen_at": (1.5,)}, "frozen_at takes"),
        ({"task_weights": (0.0, 0.0)}, "not all zero"),
        ({"image_size": 4}, "image_size must be >= 8"),
        ({"reports": Path("x")}, "reports belong to the dataset openi"),
    ],
)
def test_bad_options_are_refused_before_any_work(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


def test_config_survives_json() -> None:
    assert from_json(as_json(TINY)) == TINY
    with pytest.raises(ValueError, match=r"unknown training options \['momentum'\]"):
        from_json({**as_json(TINY), "momentum": 1})
