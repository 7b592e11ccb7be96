import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from rich.console import Console

from rrg.cli import Command, Prepare
from rrg.command import shown
from rrg.compare import CompareConfig
from rrg.config import TrainConfig, as_json, from_json
from rrg.errors import TrainingError
from rrg.evaluate import EvaluateConfig
from rrg.prepare.pair import PairConfig


def parsed(*arguments: str) -> object:
    return tyro.cli(Command, args=arguments)  # type: ignore[arg-type]


def test_tasks_weights_and_encoder_are_read_as_the_field_writes_them() -> None:
    config = parsed("train", "--tasks", "rg,dc,ita", "--task-weights", "1,4,0.5", "--encoder", "vit")
    assert isinstance(config, TrainConfig)
    assert (config.tasks, config.weights, config.model.encoder) == (("rg", "dc", "ita"), (1.0, 4.0, 0.5), "vit")
    assert parsed("train", "--tasks", "rg", "dc", "--task-weights", "2", "3").weights == (2.0, 3.0)
    equal = parsed("train", "--tasks", "rg,dc,ita,re", "--task-weights", "equal")
    assert equal.weights == (1.0, 1.0, 1.0, 1.0)
    assert from_json(as_json(equal)) == equal
    assert parsed("train").weights == (1.0, 4.0)
    assert parsed("train", "--tasks", "re,dc").weights == (1.0, 4.0)


def test_every_command_is_there(tmp_path: Path) -> None:
    (tmp_path / "index.csv").touch()
    pair = parsed("prepare", "pair", "--index", str(tmp_path / "index.csv"), "--nearest")
    assert isinstance(pair, Prepare)
    assert pair.source == PairConfig(tmp_path / "index.csv", nearest=True)
    compare = parsed("compare", "--optimizers", "linear", "mgda", "--seeds", "3", "--train.dataset", "phantom")
    assert compare == CompareConfig(("linear", "mgda"), (3,), train=TrainConfig(dataset="phantom"))
    assert isinstance(parsed("evaluate", "--run", "x", "--split", "train"), EvaluateConfig)
    assert dataclasses.is_dataclass(parsed("demo"))


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("v"), 2), (OSError("o"), 2), (TrainingError("t"), 2), (KeyboardInterrupt(), 130)]
)
def test_errors_end_with_a_message_and_a_status(error: BaseException, status: int) -> None:
    console = Console(record=True, quiet=False, file=None, force_terminal=False)
    with pytest.raises(SystemExit) as ended, shown(console, "go on with --resume"):
        raise error
    assert ended.value.code == status
    text = console.export_text()
    assert "Traceback" not in text
    assert ("go on with --resume" if status == 130 else f"error: {error}") in text
    with pytest.raises(ZeroDivisionError), shown(console):
        raise ZeroDivisionError


def test_bad_options_are_named_by_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rrg", "train", "--dataset", "phantom", "--rho", "2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "rho = 2.0" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
