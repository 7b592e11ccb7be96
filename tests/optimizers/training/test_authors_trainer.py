"""The call pattern of the published trainer (arXiv:2605.22635), on a stand-in model in DistributedDataParallel."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad as CAME_Grad

WARMUP, ITERATIONS = 5, 40
PEAKS = (1e-2, 3e-2)


class StandIn(nn.Module):
    """An image encoder, a report decoder fed by it, and a classifier of conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU())
        self.decoder, self.classifier = nn.Linear(16, 10), nn.Linear(16, 4)

    def forward(self, images: Tensor, tokens: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        features = self.visual(images)
        loss_lm = nn.functional.cross_entropy(self.decoder(features), tokens)
        return loss_lm, nn.functional.cross_entropy(self.classifier(features), states)


@pytest.fixture(scope="module", autouse=True)
def _process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    file = tmp_path_factory.mktemp("gloo") / "rendezvous"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    images = torch.randn(5, 8, 6)
    return [(x, (3 * x[:, 0]).long().clamp(-4, 4) + 5, (x[:, 1] > 0).long() + 2 * (x[:, 2] > 0).long()) for x in images]


def adamw(model: nn.Module) -> torch.optim.AdamW:
    """Two groups, as the trainers of this field have: the visual part, and the rest."""
    visual = list(model.visual.parameters())
    known = {id(p) for p in visual}
    rest = [p for p in model.parameters() if id(p) not in known]
    return torch.optim.AdamW([{"params": visual, "lr": PEAKS[0]}, {"params": rest, "lr": PEAKS[1]}], weight_decay=0.05)


class WarmupCosine:
    """Writes the learning rates by hand, and reads them back."""

    def __init__(self, optimizer: torch.optim.Optimizer | CAME_Grad) -> None:
        self.optimizer = optimizer

    def step(self, iteration: int) -> list[float]:
        if iteration < WARMUP:
            factor = (iteration + 1) / WARMUP
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (iteration - WARMUP) / (ITERATIONS - WARMUP)))
        for i, peak in enumerate(PEAKS):
            self.optimizer.param_groups[i]["lr"] = peak * factor
        return [group["lr"] for group in self.optimizer.param_groups]


def train(
    network: nn.Module, came: CAME_Grad, batches: list, first: int = 0, last: int = ITERATIONS
) -> list[list[float]]:
    """The published loop: no zero_grad around the step."""
    schedule, rates = WarmupCosine(came), []
    for iteration in range(first, last):
        rates.append(schedule.step(iteration))
        loss_lm, loss_cls = network(*batches[iteration % len(batches)])
        came.step([loss_lm, loss_cls], task_weights=[1.0, 4.0])
    return rates


def losses(model: nn.Module, batches: list) -> list[float]:
    with torch.no_grad():
        return torch.tensor([model(*batch) for batch in batches]).mean(0).tolist()


def test_it_trains_with_the_learning_rates_that_the_schedule_writes(batches: list) -> None:
    model = StandIn()
    twin = copy.deepcopy(model)
    before = losses(model, batches)
    came = CAME_Grad(adamw(model), rho=0.5, kappa=1.5, nu=0.2)
    rates = train(DistributedDataParallel(model, find_unused_parameters=True), came, batches)
    assert rates[0] == [PEAKS[0] / WARMUP, PEAKS[1] / WARMUP]
    assert max(rate[1] for rate in rates) == PEAKS[1]
    assert came.optimizer.param_groups[1]["lr"] == rates[-1][1] < 0.01 * PEAKS[1]
    after = losses(model, batches)
    assert all(b < 0.7 * a for a, b in zip(before, after, strict=True))

    constant = CAME_Grad(adamw(twin), rho=0.5, kappa=1.5, nu=0.2)
    for iteration in range(ITERATIONS):
        constant.step(twin(*batches[iteration % len(batches)]), task_weights=[1.0, 4.0])
    assert not torch.allclose(
        parameters_to_vector(model.parameters()), parameters_to_vector(twin.parameters()), 0, 1e-3
    )


def test_wrapping_in_ddp_changes_no_bit(batches: list) -> None:
    model = StandIn()
    ends = []
    for wrapped in (False, True):
        twin = copy.deepcopy(model)
        network = DistributedDataParallel(twin, find_unused_parameters=True) if wrapped else twin
        train(network, CAME_Grad(adamw(twin), rho=0.5, kappa=1.5, nu=0.2), batches)
        ends.append(parameters_to_vector(twin.parameters()))
    assert torch.equal(*ends)


def test_their_checkpoint_resumes_bit_for_bit(batches: list, tmp_path: Path) -> None:
    """One file with the model's and the optimizer's state_dict and the iteration."""
    model = StandIn()
    whole = copy.deepcopy(model)
    train(DistributedDataParallel(whole), CAME_Grad(adamw(whole), rho=0.5, kappa=1.5, nu=0.2), batches)

    network = DistributedDataParallel(model)
    came = CAME_Grad(adamw(model), rho=0.5, kappa=1.5, nu=0.2)
    train(network, came, batches, last=17)
    state = {"model": network.module.state_dict(), "optimizer": came.state_dict(), "iteration": 17}
    torch.save(state, tmp_path / "checkpoint.pth")

    resumed = StandIn()
    came = CAME_Grad(adamw(resumed), rho=0.5, kappa=1.5, nu=0.2)
    checkpoint = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    resumed.load_state_dict(checkpoint["model"])
    came.load_state_dict(checkpoint["optimizer"])
    train(DistributedDataParallel(resumed), came, batches, first=checkpoint["iteration"])
    assert torch.equal(parameters_to_vector(resumed.parameters()), parameters_to_vector(whole.parameters()))


def test_their_baseline_arm_shares_the_model(batches: list) -> None:
    """Weighted sum, backward, clipping by value 0.1, plain AdamW, through the same reducer; CAME-Grad in between."""
    model = StandIn()
    network, inner = DistributedDataParallel(model, find_unused_parameters=True), adamw(model)
    came = CAME_Grad(inner, rho=0.5, kappa=1.5, nu=0.2)
    before = losses(model, batches)
    for iteration in range(ITERATIONS):
        WarmupCosine(inner).step(iteration)
        loss_lm, loss_cls = network(*batches[iteration % len(batches)])
        if iteration % 4 == 3:
            came.step([loss_lm, loss_cls], task_weights=[1.0, 4.0])
            continue
        inner.zero_grad()
        (loss_lm + 4.0 * loss_cls).backward()
        largest = max(p.grad.abs().max().item() for p in model.parameters())
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        assert iteration > 0 or largest > 0.1, "clipping must matter"
        assert all(p.grad.abs().max() <= 0.1 for p in model.parameters())
        inner.step()
    after = losses(model, batches)
    assert all(b < 0.7 * a for a, b in zip(before, after, strict=True))
