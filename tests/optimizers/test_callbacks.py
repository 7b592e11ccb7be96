"""JSON Lines and TensorBoard from a plain loop."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from optimizers import CAMEGrad, MultiTaskOptimizer, linear
from optimizers.callbacks import JSONLWriter, TensorBoardWriter, as_record, scalars
from optimizers.monitor import ConflictMonitor


def records(path: Path) -> list[dict]:
    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=no_constant) for line in path.read_text().splitlines()]


def test_a_plain_loop_writes_its_steps(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    monitor = ConflictMonitor(model.parameters(), every=2)
    with JSONLWriter(tmp_path / "steps.jsonl") as steps, JSONLWriter(tmp_path / "conflict.jsonl") as conflict:
        for step in range(4):
            losses = model.losses(x)
            conflict(step, monitor(losses))
            optimizer.step(losses)
            steps(step, optimizer.last)
            assert len(records(tmp_path / "steps.jsonl")) == step + 1, "flushed at once"
        conflict(4, monitor.averages())
    written = records(tmp_path / "steps.jsonl")
    assert [record["step"] for record in written] == [0, 1, 2, 3]
    assert written[3]["norms"] == optimizer.last.norms.tolist()
    assert written[3]["coefficients"] == optimizer.last.coefficients.tolist()
    assert written[3]["valid"] is optimizer.last.valid
    assert written[3]["averaged"] is None
    assert [record["step"] for record in records(tmp_path / "conflict.jsonl")] == [0, 2, 4]
    assert records(tmp_path / "conflict.jsonl")[1]["angles"] == monitor.last.angles.tolist()


def test_a_file_is_continued_after_an_unfinished_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"ste')
    with JSONLWriter(path) as write:
        write(2, {"loss": 1.0})
    assert [record["step"] for record in records(path)] == [0, 1, 2]
    path.write_text('{"ste')
    with JSONLWriter(path) as write:
        write(0, {"loss": 1.0})
    assert [record["step"] for record in records(path)] == [0]


def test_what_json_lacks_is_null(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    """Diagnostics of a resumed run are NaN until it solves again."""
    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), linear, refresh_every=3)
    optimizer.step(model.losses(x))
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.last = None
    optimizer.step(model.losses(x))
    with JSONLWriter(tmp_path / "log.jsonl") as write:
        write(0, optimizer.last)
    (record,) = records(tmp_path / "log.jsonl")
    assert record["norms"] == [None, None]
    assert record["fresh"] is False
    assert not any(name.startswith("norms") for name in scalars(optimizer.last))


def test_tensorboard_gets_every_scalar(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    with SummaryWriter(str(tmp_path)) as writer:
        write = TensorBoardWriter(writer, prefix="came")
        for step in range(3):
            optimizer.step(model.losses(x))
            write(step, optimizer.last)
        write(3, None)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {f"came/{name}" for name in scalars(optimizer.last)}
    cosine = events.Scalars("came/cosines/0,1")
    assert [event.step for event in cosine] == [0, 1, 2]
    assert cosine[-1].value == pytest.approx(optimizer.last.cosines[0, 1].item(), rel=1e-6)


def test_pairs_are_named_once_and_diagonals_where_they_say_something(model: nn.Module, x: Tensor) -> None:
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.step(model.losses(x))
    names = set(scalars(optimizer.last))
    assert {"gramian/0,0", "gramian/0,1", "gramian/1,1", "cosines/0,1", "losses/1", "alpha/0", "valid"} <= names
    assert not names & {"gramian/1,0", "cosines/0,0", "cosines/1,1", "cosines/1,0"}


def test_other_reports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"expected a dataclass such as optimizer\.last or a mapping, got list"):
        as_record([1.0])
    with pytest.raises(TypeError, match=r"writer must have add_scalar\(tag, value, step\), got str"):
        TensorBoardWriter(str(tmp_path))
