import json
from pathlib import Path

import numpy as np
import pytest
from tiny_training import lines, same_weights, tiny

from rrg.train import train
from sde_mtl import read_log


def test_logging_gradients_does_not_change_the_run(tmp_path: Path) -> None:
    train(tiny(tmp_path / "logged"))
    train(tiny(tmp_path / "silent", log_gradients=False))
    assert same_weights(tmp_path / "logged", tmp_path / "silent")


def test_training_logs_curvature_through_attention(tmp_path: Path) -> None:
    """The transformer's attention has a second derivative; its Hessians come out symmetric and not zero."""
    done = train(tiny(tmp_path / "run", curvature_directions=3, evaluate="none"))
    frozen = read_log(done.gradients).frozen[0]
    assert frozen.hessian.shape == (2, 3, 3)
    assert np.abs(frozen.hessian - frozen.hessian.transpose(0, 2, 1)).max() < 1e-12
    assert np.abs(frozen.hessian).max() > 0
    with pytest.raises(ValueError, match="curvature_directions must be 0 or >= 2"):
        tiny(tmp_path / "other", curvature_directions=1)


def test_tensorboard_shows_every_recorded_number(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny(tmp_path / "run", tensorboard=True, steps=3, frozen_batches=0))
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    records = [json.loads(line) for line in lines(tmp_path / "run")]
    assert set(events.Tags()["scalars"]) == {name for record in records for name in record if name != "step"}
    found = [(event.step, event.value) for event in events.Scalars("rg")]
    assert found == [(record["step"], pytest.approx(record["rg"])) for record in records]
