"""The code of book/recipes.md runs, and does what the page says."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = (Path(__file__).parents[1] / "book" / "recipes.md").read_text()
BLOCKS = re.findall(r"^```python (\S+)\n(.*?)^```$", PAGE, re.M | re.S)
NAMES = list(dict.fromkeys(name for name, _ in BLOCKS if name != "setup"))
EXTERNAL = {"lightning", "accelerate"}


def run(name: str) -> dict[str, Any]:
    """The names that a recipe leaves, after the setup."""
    torch.manual_seed(0)
    found: dict[str, Any] = {"__name__": "recipe"}
    for which, code in BLOCKS:
        if which in ("setup", name):
            exec(compile(code, f"recipes.md, {which}", "exec"), found)
    return found


def moved(found: dict[str, Any]) -> bool:
    before = run("setup")["model"].state_dict()
    after = found["model"].state_dict()
    return all(not torch.equal(before[key].cpu(), after[key].cpu()) for key in before)


def test_every_block_has_a_name() -> None:
    assert len(re.findall(r"^```python", PAGE, re.M)) == len(BLOCKS)
    assert {"plain", "amp", "accumulation", "schedule", "features", "compile", *EXTERNAL} <= set(NAMES)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in EXTERNAL | {"compile", "closures", "clipping-option"}])
def test_it_trains(name: str) -> None:
    found = run(name)
    assert moved(found)
    optimizer = found.get("optimizer")
    assert optimizer is None or optimizer.last is not None


def test_the_comparison_trains_both_arms() -> None:
    arms = run("clipping-option")["arms"]
    assert arms.keys() == {"linear", "came-grad"}
    for arm in arms.values():
        assert max(p.grad.abs().max() for group in arm.param_groups for p in group["params"]) <= 0.1


def test_closures_are_refused() -> None:
    assert not moved(run("closures"))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch.compile warns itself
def test_a_compiled_model_is_trained_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._functorch.config

    monkeypatch.setattr(torch._functorch.config, "donated_buffer", torch._functorch.config.donated_buffer)
    compiled, plain = run("compile")["model"], run("setup")
    optimizer = plain["CAMEGrad"](torch.optim.AdamW(plain["model"].parameters()))
    for x in plain["data"]:
        optimizer.step(plain["losses"](plain["model"], x), plain["task_weights"])
    for p, q in zip(compiled.parameters(), plain["model"].parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)


def unless_missing(package: str) -> Callable:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


@unless_missing("lightning")
@pytest.mark.filterwarnings("default")  # Lightning advises on workers and loggers
def test_lightning_takes_the_steps_of_a_plain_loop() -> None:
    found, plain = run("lightning"), run("setup")
    inner = torch.optim.AdamW(plain["model"].parameters(), lr=1e-3)
    optimizer, schedule = plain["CAMEGrad"](inner), torch.optim.lr_scheduler.ExponentialLR(inner, 0.9)
    for _ in range(2):
        for x in plain["data"]:
            optimizer.step(plain["losses"](plain["model"], x), plain["task_weights"])
        schedule.step()
    for p, q in zip(found["model"].parameters(), plain["model"].parameters(), strict=True):
        assert torch.equal(p, q)


@unless_missing("lightning")
@pytest.mark.filterwarnings("default")
def test_a_lightning_checkpoint_goes_on_where_it_was(tmp_path: Path) -> None:
    """Two epochs at a stretch, or one and one after a checkpoint, with an average that has to be carried over."""
    ends = []
    for stops in ((2,), (1, 2)):
        path = None
        for stop in stops:
            found = run("lightning")
            fresh = run("setup")
            training = found["Training"](fresh["model"])
            original = training.on_fit_start

            def with_average(training: Any = training, found: dict[str, Any] = found) -> None:
                training.came = found["CAMEGrad"](training.optimizers(use_pl_optimizer=False), ema=0.9)

            assert original is not None
            training.on_fit_start = with_average
            trainer = found["lightning"].Trainer(
                max_epochs=stop, accelerator="cpu", logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            trainer.fit(training, torch.utils.data.DataLoader(fresh["data"], batch_size=None), ckpt_path=path)
            path = tmp_path / f"{stop}.ckpt"
            trainer.save_checkpoint(path)
        ends.append((fresh["model"].state_dict(), training.came.state_dict()["average"]))
    for key in ends[0][0]:
        assert torch.equal(ends[0][0][key], ends[1][0][key])
    assert ends[0][1]["count"] == ends[1][1]["count"] == 16
    assert torch.equal(ends[0][1]["mean"], ends[1][1]["mean"])


@unless_missing("accelerate")
@pytest.mark.filterwarnings("default")
def test_accelerate_takes_the_steps_of_a_plain_loop() -> None:
    found, plain = run("accelerate"), run("setup")
    optimizer = plain["CAMEGrad"](torch.optim.AdamW(plain["model"].parameters(), lr=1e-3))
    for x in plain["data"]:
        optimizer.step(plain["losses"](plain["model"], x), plain["task_weights"])
    for p, q in zip(found["model"].parameters(), plain["model"].parameters(), strict=True):
        assert torch.equal(p, q)
