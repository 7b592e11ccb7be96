import dataclasses
import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import optimizers.files
import rrg.training.run
from optimizers.files import write_json
from rrg.config import TrainConfig, as_json, from_json
from rrg.data.grammar import phantom_studies
from rrg.errors import TrainingError
from rrg.files import write_tensors
from rrg.gradient_log.sketch import CountSketch
from rrg.gradient_log.writer import GradientLogWriter
from rrg.model.generator import TASKS, ModelConfig
from rrg.train import train
from rrg.training import checkpoint
from rrg.training.run import TrainingRun
from sde_mtl import read_log

TINY = TrainConfig(
    dataset="phantom",
    phantom_studies=60,
    steps=6,
    batch_size=4,
    image_size=32,
    vocabulary_size=300,
    max_length=32,
    log_gradients=True,
    frozen_at=(0.5,),
    frozen_batches=4,
    projection_dim=64,
    log_every=1,
    checkpoint_every=3,
    device="cpu",
    evaluate="none",
    model=ModelConfig((8, 16), (1, 1), decoder_width=16, decoder_layers=1, dropout=0.1),
)


def tiny(out: Path, **changes: object) -> TrainConfig:
    return dataclasses.replace(TINY, out=out, **changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.latest(run / "checkpoints") / "model.safetensors")


def same_weights(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_run_leaves_what_it_promises(tmp_path: Path) -> None:
    done = train(tiny(tmp_path / "run", evaluate="val"))
    evaluation = done.result["evaluation"]
    assert evaluation["images"] == "rendered images"
    assert len(evaluation["bleu"]) == 4
    assert evaluation["decoding"].items() >= {"num_beams": 1, "max_length": 32}.items()
    samples = [json.loads(line) for line in (done.out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == evaluation["studies"]["val"]
    metrics = [json.loads(line) for line in (done.out / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == list(range(6))
    log = read_log(done.gradients)
    assert log.tasks == ("rg", "dc")
    assert log.steps.tolist() == list(range(6))
    assert log.losses[:, 0].tolist() == [m["rg"] for m in metrics]
    assert [f.step for f in log.frozen] == [3]
    assert log.meta["parameters"] == done.result["parameters"]


EVERYTHING = {
    "tasks": TASKS,
    "accumulate": 2,
    "refresh_every": 2,
    "shared": True,
    "augment": True,
    "frozen_batches": 0,
    "checkpoint_every": 1,
}
KINDS: dict[str, dict[str, object]] = {
    "linear": {"optimizer": "linear"},
    "came-grad": {},
    "torchjd": {"optimizer": "torchjd:UPGrad"},
    "everything": EVERYTHING,
    "fp16": {"precision": "fp16", "frozen_batches": 0},
    "bf16, two loaders": {"precision": "bf16", "workers": 2, "frozen_batches": 0},
}


def stop_before(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    step = TrainingRun.step

    def interrupted(run: TrainingRun, number: int) -> list[float]:
        if number == at:
            raise KeyboardInterrupt
        return step(run, number)

    monkeypatch.setattr(TrainingRun, "step", interrupted)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    changes = KINDS[kind]
    train(tiny(tmp_path / "whole", **changes))
    with monkeypatch.context() as patch:
        stop_before(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(tmp_path / "parts", **changes))
    train(tiny(tmp_path / "parts", **changes, resume=True))
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    whole, parts = read_log(tmp_path / "whole/gradients"), read_log(tmp_path / "parts/gradients")
    assert np.array_equal(whole.gramian, parts.gramian)
    assert np.array_equal(whole.projected, parts.projected)
    assert len(whole.frozen) == len(parts.frozen) == (0 if changes.get("frozen_batches") == 0 else 1)
    assert all(np.array_equal(a.gramian, b.gramian) for a, b in zip(whole.frozen, parts.frozen, strict=True))
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "parts/metrics.jsonl").read_text()


def test_a_run_stopped_before_its_first_checkpoint_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_before(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(tmp_path / "parts"))
    assert not checkpoint.steps(tmp_path / "parts/checkpoints")
    train(tiny(tmp_path / "parts", resume=True))
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert read_log(tmp_path / "parts/gradients").steps.tolist() == list(range(6))


def test_tensorboard_shows_every_recorded_number(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny(tmp_path / "run", tensorboard=True, steps=3, frozen_batches=0))
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    records = [json.loads(line) for line in lines(tmp_path / "run")]
    assert set(events.Tags()["scalars"]) == {name for name in records[0] if name != "step"}
    found = [(event.step, event.value) for event in events.Scalars("rg")]
    assert found == [(record["step"], pytest.approx(record["rg"])) for record in records]


def test_seeds_and_optimizers_make_different_runs(tmp_path: Path) -> None:
    """Negative control of the equality above."""
    train(tiny(tmp_path / "a", log_gradients=False))
    train(tiny(tmp_path / "b", log_gradients=False, seed=1))
    train(tiny(tmp_path / "c", log_gradients=False, optimizer="linear"))
    assert not same_weights(tmp_path / "a", tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


def test_logging_gradients_does_not_change_the_run(tmp_path: Path) -> None:
    train(tiny(tmp_path / "logged"))
    train(tiny(tmp_path / "silent", log_gradients=False))
    assert same_weights(tmp_path / "logged", tmp_path / "silent")


COMMAND = ["--dataset", "phantom", "--phantom-studies", "60", "--batch-size", "4", "--image-size", "32"]
COMMAND += ["--vocabulary-size", "300", "--max-length", "32", "--log-gradients", "--frozen-batches", "0"]
COMMAND += [
    "--projection-dim",
    "64",
    "--device",
    "cpu",
    "--evaluate",
    "none",
    "--log-every",
    "1",
    "--tasks",
    "rg,dc,re",
]
COMMAND += ["--model.encoder-widths", "8", "16", "--model.encoder-depths", "1", "1", "--model.text-layers", "1"]
COMMAND += ["--model.decoder-width", "16", "--model.decoder-layers", "1", "--model.dropout", "0.1"]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rrg.train", *COMMAND, "--out", str(out), *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    try:
        deadline = time.monotonic() + 120
        while not ready():
            assert time.monotonic() < deadline, "nothing appeared"
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        with process:
            process.wait()


def test_a_killed_process_leaves_a_readable_log_and_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(out, "--steps", "100000", "--checkpoint-every", "5")
    kill_when(process, lambda: len(list((out / "gradients").glob("steps-*.safetensors"))) >= 3)
    log = read_log(out / "gradients")
    assert log.steps.tolist() == list(range(len(log.steps)))
    assert int(checkpoint.latest(out / "checkpoints").name.split("-")[1]) >= 5
    assert from_json(json.loads((out / "config.json").read_text())).steps == 100_000


@pytest.mark.slow
def test_kill_9_at_any_moment_and_resume_is_the_uninterrupted_run(tmp_path: Path) -> None:
    """Killed five times, at moments spread over the interval between two checkpoints; bit for bit the same."""
    steps = ("--steps", "60", "--checkpoint-every", "4")
    whole = start(tmp_path / "whole", *steps)
    shown = whole.communicate(timeout=300)[0]
    assert whole.returncode == 0, shown
    out = tmp_path / "parts"
    for kill in range(5):
        process = start(out, *steps, *(["--resume"] if kill else []))
        reached = len(lines(out)) + 5 + kill
        kill_when(process, lambda reached=reached: len(lines(out)) >= reached)
    last = start(out, *steps, "--resume")
    shown = last.communicate(timeout=300)[0]
    assert last.returncode == 0, shown
    assert same_weights(tmp_path / "whole", out)
    assert lines(tmp_path / "whole") == lines(out)
    assert np.array_equal(read_log(tmp_path / "whole/gradients").gramian, read_log(out / "gradients").gramian)


def lines(run: Path) -> list[str]:
    path = run / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def test_nan_stops_with_a_usable_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = rrg.training.run.task_losses
    calls = []

    def poisoned(*arguments: object, **more: object) -> list[torch.Tensor]:
        calls.append(1)
        found = losses(*arguments, **more)  # type: ignore[arg-type]
        return [found[0], found[1] * float("nan")] if len(calls) == 5 else found

    monkeypatch.setattr(rrg.training.run, "task_losses", poisoned)
    with pytest.raises(TrainingError, match=r"step 4: loss of task 1 is nan.*the last checkpoint is .*step-000003"):
        train(tiny(tmp_path / "run", frozen_batches=0))
    assert read_log(tmp_path / "run/gradients").steps.tolist() == [0, 1, 2, 3]
    monkeypatch.setattr(rrg.training.run, "task_losses", losses)
    train(tiny(tmp_path / "run", frozen_batches=0, resume=True))
    assert read_log(tmp_path / "run/gradients").steps.tolist() == list(range(6))


def test_fp16_skips_an_overflow_and_stops_where_no_scale_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = rrg.training.run.task_losses
    calls: list[int] = []

    class Overflow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, slope: torch.Tensor) -> torch.Tensor:
            return slope * float("inf")

    def overflowing(last: int) -> Callable[..., list[torch.Tensor]]:
        def losses(*arguments: object, **more: object) -> list[torch.Tensor]:
            calls.append(1)
            found = forward(*arguments, **more)  # type: ignore[arg-type]
            return [Overflow.apply(x) for x in found] if len(calls) <= last else found

        return losses

    monkeypatch.setattr(rrg.training.run, "task_losses", overflowing(2))
    train(tiny(tmp_path / "run", precision="fp16", frozen_batches=0))
    scales = [json.loads(line)["scale"] for line in lines(tmp_path / "run")]
    assert scales == [2.0**15, *[2.0**14] * 5]
    calls.clear()
    monkeypatch.setattr(rrg.training.run, "task_losses", overflowing(1000))
    with pytest.raises(TrainingError, match=r"gradients overflow fp16 at every scale down to .* try bf16"):
        train(tiny(tmp_path / "hopeless", precision="fp16", frozen_batches=0, steps=60))


def test_a_full_disk_ends_with_a_message_and_a_usable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny(tmp_path / "whole"))
    real = optimizers.files.os.fsync
    written: list[int] = []

    def full(descriptor: int) -> None:
        written.append(1)
        if len(written) > before_second_checkpoint:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    before_second_checkpoint = 10**6
    with monkeypatch.context() as patch:
        patch.setattr(optimizers.files.os, "fsync", full)
        train(tiny(tmp_path / "count", steps=3, frozen_at=(0.0,)))
    before_second_checkpoint = len(written) - 1
    written.clear()
    with monkeypatch.context() as patch:
        patch.setattr(optimizers.files.os, "fsync", full)
        with pytest.raises(TrainingError, match=r"cannot write to .*No space left.*step-000003.*--resume"):
            train(tiny(tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step-000003"]
    assert not list((tmp_path / "run").rglob("*.tmp"))
    train(tiny(tmp_path / "run", resume=True))
    assert same_weights(tmp_path / "whole", tmp_path / "run")


def test_a_run_is_never_overwritten_or_resumed_as_another(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run to resume"):
        train(tiny(tmp_path / "run", resume=True))
    train(tiny(tmp_path / "run", log_gradients=False, steps=3))
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))
    with pytest.raises(FileExistsError, match="--resume or choose another --out"):
        train(tiny(tmp_path / "run", log_gradients=False, steps=3))
    with pytest.raises(ValueError, match=r"must keep its options, but lr: 0\.003 → 0\.1"):
        train(tiny(tmp_path / "run", log_gradients=False, steps=3, lr=0.1, resume=True))
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*")) == before


TORCHJD = ["NashMTL", "GradDrop", "CAGrad:c=0.5", "TrimmedMean:trim_number=0", "Constant:weights=[1,2]"]


@pytest.mark.parametrize("name", TORCHJD)
def test_any_aggregator_of_torchjd_trains(tmp_path: Path, name: str) -> None:
    options = {"optimizer": f"torchjd:{name}", "log_gradients": False, "steps": 3}
    done = train(tiny(tmp_path / "run", **options))
    assert done.result["optimizer"]["name"] == f"torchjd:{name}"
    train(tiny(tmp_path / "linear", log_gradients=False, steps=3, optimizer="linear"))
    assert not same_weights(tmp_path / "run", tmp_path / "linear")
    if name == "NashMTL":
        with pytest.raises(ValueError, match="carries a state from step to step that TorchJD cannot save"):
            train(tiny(tmp_path / "run", **options, resume=True))


def test_a_run_resumes_only_on_its_own_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(tmp_path / "run", log_gradients=False, steps=3))
    others = phantom_studies(60, seed=1)
    monkeypatch.setattr("rrg.data.corpus.phantom_studies", lambda n, seed: others)
    with pytest.raises(ValueError, match="was trained on other studies than those now read"):
        train(tiny(tmp_path / "run", log_gradients=False, steps=3, resume=True))


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


def test_late_errors_leave_no_folder(tmp_path: Path) -> None:
    for changes, message in (
        ({"batch_size": 1000}, "batch_size 1000 exceeds"),
        ({"steps": None, "epochs": 0.1, "frozen_at": (50.0,)}, "beyond the last of"),
    ):
        with pytest.raises(ValueError, match=message):
            train(tiny(tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()


def test_config_survives_json() -> None:
    assert from_json(as_json(TINY)) == TINY
    with pytest.raises(ValueError, match=r"unknown training options \['momentum'\]"):
        from_json({**as_json(TINY), "momentum": 1})


def test_both_command_lines_start(tmp_path: Path) -> None:
    root = Path(rrg.training.run.__file__).parents[1]
    for command in (["-m", "rrg.train"], ["rrg/train.py"]):
        done = subprocess.run(
            [sys.executable, *command, "--dataset", "phantom", "--batch-size", "9999", "--out", str(tmp_path / "x")],
            cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "batch_size 9999 exceeds" in done.stdout


def test_sketch_keeps_inner_products_on_average() -> None:
    """Mean over 400 sketches within 5 SE of ⟨x, y⟩, spread at most the bound; a biased map is rejected."""
    x, y = torch.randn(5000), torch.randn(5000)
    y += 0.5 * x
    inner = torch.tensor([CountSketch(5000, 64, seed)([x]) @ CountSketch(5000, 64, seed)([y]) for seed in range(400)])
    exact, spread = x @ y, inner.std()
    assert abs(inner.mean() - exact) < 5 * spread / 20
    assert spread <= 1.25 * ((x @ x * (y @ y) + exact**2) / 64).sqrt()
    assert abs(1.1 * inner.mean() - exact) > abs(inner.mean() - exact)


def test_frozen_traces_are_exact(tmp_path: Path) -> None:
    """n/(n−1)(mean ⟨g_i, g_j⟩ − ⟨ḡ_i, ḡ_j⟩) is the trace of the sample cross-covariance."""
    parameter = torch.nn.Parameter(torch.randn(7))
    batches = [torch.randn(2, 7) for _ in range(10)]
    log = GradientLogWriter(tmp_path / "log", {"tasks": ["a", "b"], "task_weights": [1, 1]}, 7, dim=32)
    log.log_frozen(0, batches, lambda b: [b[0] @ parameter, b[1] @ parameter], [parameter], shard_batches=4)
    log.observe([[batches[0][0]], [batches[0][1]]], torch.eye(2).double())
    log.end_step(0, [0.0, 0.0])
    log.flush()
    frozen = read_log(tmp_path / "log").frozen[0]
    g = torch.stack(batches).double().numpy()
    centred = g - g.mean(0)
    expected = np.einsum("nip,njp->ij", centred, centred) / 9
    measured = 10 / 9 * (frozen.gramian.mean(0) - frozen.mean_gramian)
    assert measured == pytest.approx(expected, rel=1e-9)


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


def test_logged_curvature_is_that_of_the_losses(tmp_path: Path) -> None:
    """Quadratic losses: VᵀH_iV for V the span of the gradients, by its eigenvalues, which no rotation changes."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    curvatures = [torch.diag(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([[2.0, 1.0, 0], [1.0, 2.0, 0], [0, 0, 5.0]])]

    def losses(batch: torch.Tensor) -> list[torch.Tensor]:
        return [0.5 * parameter @ A @ parameter + b @ parameter for A, b in zip(curvatures, batch, strict=True)]

    log = GradientLogWriter(tmp_path / "log", {"tasks": ["a", "b"], "task_weights": [1, 1]}, 3, dim=32)
    batches = [torch.randn(2, 3) for _ in range(6)]
    log.log_frozen(0, batches, losses, [parameter], directions=3)
    log.observe([[batches[0][0]], [batches[0][1]]], torch.eye(2).double())
    log.end_step(0, [0.0, 0.0])
    log.flush()
    hessian = read_log(tmp_path / "log").frozen[0].hessian
    for found, curvature in zip(hessian, curvatures, strict=True):
        assert np.linalg.eigvalsh(found) == pytest.approx(torch.linalg.eigvalsh(curvature.double()).numpy(), rel=1e-5)
    with pytest.raises(ValueError, match="directions = 1 must be 0 or at least 2"):
        log.log_frozen(1, batches, losses, [parameter], directions=1)


def test_training_logs_curvature_through_attention(tmp_path: Path) -> None:
    """The transformer's attention has a second derivative; its Hessians come out symmetric and not zero."""
    done = train(tiny(tmp_path / "run", curvature_directions=3, evaluate="none"))
    frozen = read_log(done.gradients).frozen[0]
    assert frozen.hessian.shape == (2, 3, 3)
    assert np.abs(frozen.hessian - frozen.hessian.transpose(0, 2, 1)).max() < 1e-12
    assert np.abs(frozen.hessian).max() > 0
    with pytest.raises(ValueError, match="curvature_directions must be 0 or >= 2"):
        tiny(tmp_path / "other", curvature_directions=1)
