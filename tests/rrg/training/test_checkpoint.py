from pathlib import Path

import pytest
import torch

from optimizers.files import write_json
from rrg.files import write_tensors
from rrg.training import checkpoint


def test_atomic_writes_and_damaged_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    model = torch.nn.Linear(2, 2)
    saved = checkpoint.save(tmp_path, 1, model, {"a": [1, 2.5, None], "t": torch.ones(2)})
    assert checkpoint.load_state(saved)["a"] == [1, 2.5, None]
    with pytest.raises(checkpoint.CheckpointError, match="does not fit the model"):
        checkpoint.load_model(saved, torch.nn.Linear(3, 2))
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(checkpoint.CheckpointError, match=r"cannot read .*model\.safetensors"):
        checkpoint.load_model(saved, model)
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint in"):
        checkpoint.latest(tmp_path / "empty")
    write_tensors(tmp_path / "t.safetensors", {"x": torch.ones(1)})
    assert not list(tmp_path.rglob("*.tmp"))
