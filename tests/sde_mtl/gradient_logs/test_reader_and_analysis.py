import json
from pathlib import Path

import logs
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sde_mtl.gradient_logs import GradientLogError, analyze, read_log
from sde_mtl.theory.t03_diffusion_decay import trace_ratio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return logs.write_log(tmp_path / "log")


def test_shards_are_joined(folder: Path) -> None:
    log = read_log(folder)
    assert log.steps.tolist() == list(range(60))
    assert log.gramian.shape == (60, 2, 2)
    assert log.projected.shape == (60, 2, 40)
    assert (log.name, log.tasks, log.task_weights.tolist()) == ("linear", ("rg", "dc"), [1.0, 2.0])
    assert log.frozen[0].gramian.shape == (40, 2, 2)


def test_an_interrupted_log_is_read_as_far_as_it_goes(folder: Path) -> None:
    (folder / "steps-000002.safetensors").unlink()
    (folder / "steps-000002.safetensors.tmp").write_bytes(b"half a shard")
    (folder / "frozen-000010-mean.safetensors").unlink()
    log = read_log(folder)
    assert len(log.steps) == 50
    assert log.frozen[0].mean_gramian is None
    assert analyze(log, replicates=50).diffusion[0].micro_batches == 40


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def poison(path: Path) -> None:
    shard = load_file(path)
    shard["losses"][3, 1] = np.nan
    save_file(shard, path)


def other_version(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 3}))


def drop_gramian(path: Path) -> None:
    shard = load_file(path)
    del shard["gramian"]
    save_file(shard, path)


def negative_norm(path: Path) -> None:
    shard = load_file(path)
    shard["gramian"][0, 0, 0] = -1
    save_file(shard, path)


def third_task(path: Path) -> None:
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "tasks": ["a", "b", "c"], "task_weights": [1, 1, 1]}))


FIRST, META, FROZEN = "steps-000000.safetensors", "meta.json", "frozen-000010-000001.safetensors"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (FIRST, truncate, r"steps-000000\.safetensors is damaged .*remove it"),
        (FIRST, poison, r"steps-000000.*losses of row 3 is not finite"),
        (FIRST, drop_gramian, r"lacks \['gramian'\]"),
        (FIRST, negative_norm, "squared gradient norm is negative"),
        (FROZEN, truncate, r"frozen-000010-000001\.safetensors is damaged"),
        (META, Path.unlink, r"meta\.json is missing; give the 'gradients' folder"),
        (META, other_version, r"version 3, this reader knows .* versions 1 and 2"),
        (META, lambda path: path.write_text("{"), r"meta\.json is damaged"),
        (META, third_task, r"Gramians of shape \(25, 2, 2\), expected \(25, 3, 3\)"),
    ],
)
def test_damage_is_named_with_what_to_do(folder: Path, name: str, damage, message: str) -> None:
    damage(folder / name)
    with pytest.raises(GradientLogError, match=message):
        read_log(folder)


def test_shards_of_two_runs_and_empty_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "steps-000009.safetensors").write_bytes((folder / FIRST).read_bytes())
    with pytest.raises(GradientLogError, match="step 0 comes twice"):
        read_log(folder)
    for path in folder.glob("steps-*"):
        path.unlink()
    with pytest.raises(GradientLogError, match="holds no steps yet"):
        read_log(folder)
    with pytest.raises(GradientLogError, match="is no folder"):
        read_log(tmp_path / "nowhere")


@pytest.mark.parametrize("correlation", [-0.8, 0.0, 0.6])
def test_the_diffusion_ratio_of_known_noise_is_found(tmp_path: Path, correlation: float) -> None:
    """All three routes within the 99.9 % range of 60 logs' scatter around T3's value for the true covariance."""
    truth = float(trace_ratio([[1, correlation], [correlation, 1]], [1.0, 2.0]))
    found = []
    for seed in range(12):
        log = read_log(logs.write_log(tmp_path / f"{seed}", correlation=correlation, seed=seed))
        d = analyze(log, replicates=200).diffusion[0]
        found.append([d.ratio.value, d.direct, d.predicted, d.held_out.value])
        assert d.ratio.value == pytest.approx(d.direct, rel=1e-5), "the projection is the identity here"
    values = np.array(found)
    error = values.std(0, ddof=1) / np.sqrt(12)
    assert (np.abs(values.mean(0) - truth) < 5 * error).all()
    wrong = float(trace_ratio([[1, correlation + 0.3], [correlation + 0.3, 1]], [1.0, 2.0]))
    assert (np.abs(values.mean(0) - wrong) > 5 * error).all(), "negative control"


def test_intervals_tell_decay_from_independence(tmp_path: Path) -> None:
    decaying = analyze(read_log(logs.write_log(tmp_path / "a", correlation=-0.8)), replicates=500).diffusion[0]
    independent = analyze(read_log(logs.write_log(tmp_path / "b", correlation=0.0)), replicates=500).diffusion[0]
    assert decaying.ratio.high < 1
    assert independent.ratio.low < 1 < independent.ratio.high
    assert decaying.correlation[0][1] == pytest.approx(-0.8, abs=0.1)
    assert decaying.signal_to_noise[0] == pytest.approx(1 / 9, rel=0.5)


def test_per_step_measures_by_hand(folder: Path) -> None:
    log = read_log(folder)
    result = analyze(log, replicates=100)
    M, w = log.gramian, log.task_weights
    assert result.any_conflict_with_first.value == pytest.approx((M[:, 0, 1] < 0).mean())
    assert result.harm_rate.value == pytest.approx(((M @ w) < 0).any(1).mean())
    g = log.projected.astype(float)
    joint = np.einsum("k,nkd->nd", w, g)
    cosine = np.einsum("nkd,nd->nk", g, joint) / np.linalg.norm(g, axis=2) / np.linalg.norm(joint, axis=1)[:, None]
    assert result.worst_joint.value == pytest.approx(cosine.min(1).mean(), rel=1e-5)
    assert result.worst_rectified.value > result.worst_joint.value
    assert result.angle_predicted is not None
    assert result.conflict_by_pair.keys() == {"rg–dc"}


def test_weights_and_sizes_are_checked(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 numbers for the tasks"):
        analyze(read_log(folder), task_weights=[1.0])
    with pytest.raises(ValueError, match="8 steps"):
        analyze(read_log(logs.write_log(tmp_path / "short", steps=5)))
