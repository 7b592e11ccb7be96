"""Trains small models, in one process on the joint batch or as one of two processes on half of it each.

python two_processes.py RANK FOLDER    writes what one of two processes ends with, for test_two_processes.py
"""

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import optimizers.training.distributed
from optimizers import CAMEGrad, MultiTaskOptimizer, NonFiniteError, came_grad_coefficients, linear

WEIGHTS, BATCH, STEPS = [1.0, 4.0], 8, 4


class Model(nn.Module):
    """Two heads on a trunk; ``rare`` is reached by the second half of the batch only, ``unused`` by nobody."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.trunk, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)
        self.report, self.disease, self.rare = nn.Linear(8, 5), nn.Linear(8, 3), nn.Linear(8, 1)
        self.unused = nn.Linear(2, 2)
        self.double()

    def forward(self, x: Tensor, rare: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        h = self.norm(self.trunk(x).tanh())
        extra = self.rare(self.norm(self.trunk(rare).tanh())).sum() / len(x) if rare is not None else x.new_zeros(())
        return self.report(h), self.disease(h), extra


class Median:
    """A Jacobian aggregator: the lower median of the weighted task gradients, coordinate by coordinate."""

    def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
        return (jacobian * task_weights[:, None]).median(0).values


class Setting:
    """This process's share of the batches, and its model."""

    def __init__(self, rank: int, processes: int) -> None:
        self.rank, self.processes = rank, processes
        self.alone = None if processes == 1 else [dist.new_group([r]) for r in range(processes)][rank]

    def batches(self, steps: int = STEPS, parts: int = 1) -> Iterator[list[tuple[Tensor, Tensor | None]]]:
        """Micro-batches of each step, with the samples that use ``rare``."""
        generator = torch.Generator().manual_seed(2)
        share = BATCH // self.processes
        for _ in range(steps):
            x = torch.randn(BATCH, 4, generator=generator, dtype=torch.float64)
            half = x[BATCH // 2 :]
            if self.processes == 1:
                yield [(x, half)]
            else:
                mine = x[self.rank * share :][:share]
                yield [(part, part if self.rank == 1 else None) for part in mine.chunk(parts)]

    def wrapped(self, model: Model, **options: bool) -> nn.Module:
        return model if self.processes == 1 else DistributedDataParallel(model, **options)


def losses_of(network: nn.Module, x: Tensor, rare: Tensor | None) -> list[Tensor]:
    report, disease, extra = network(x, rare)
    return [report.square().mean() + extra, (disease - 1).square().mean()]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def graddrop(model: Model) -> MultiTaskOptimizer:
    from optimizers.torchjd import torchjd_aggregator

    return MultiTaskOptimizer(sgd(model), torchjd_aggregator("GradDrop"))


Method = Callable[[Model], MultiTaskOptimizer]
METHODS: dict[str, Method] = {
    "came-grad": lambda model: CAMEGrad(sgd(model)),
    "linear": lambda model: MultiTaskOptimizer(sgd(model), linear),
    "median": lambda model: MultiTaskOptimizer(sgd(model), Median()),
}
if importlib.util.find_spec("torchjd"):
    METHODS["graddrop"] = graddrop


def train(setting: Setting, method: Method, *, parts: int = 1, **ddp: bool) -> Tensor:
    model = Model()
    network, optimizer = setting.wrapped(model, **ddp), method(model)
    for micro_batches in setting.batches(parts=parts):
        optimizer.zero_grad()
        *first, last = micro_batches
        for x, rare in first:
            with network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext():
                optimizer.accumulate([loss / parts for loss in losses_of(network, x, rare)], WEIGHTS)
        optimizer.backward([loss / len(micro_batches) for loss in losses_of(network, *last)], WEIGHTS)
        optimizer.step()
    return flat(model)


def equalities(setting: Setting) -> Iterator[tuple[str, Tensor]]:
    """Parameters that two processes and one must agree on."""
    for name, method in METHODS.items():
        for unused in (True, False):
            yield f"{name}, find_unused_parameters={unused}", train(setting, method, find_unused_parameters=unused)
        yield f"{name}, no_sync", train(setting, method, parts=2, find_unused_parameters=True)
    yield "gradient_as_bucket_view", train(setting, METHODS["came-grad"], gradient_as_bucket_view=True)
    yield "refresh_every", train(setting, lambda model: CAMEGrad(sgd(model), refresh_every=3), parts=2)
    yield "shared", train(setting, lambda model: CAMEGrad(sgd(model), shared=model.trunk.parameters()))
    yield "ZeRO", train(setting, lambda model: CAMEGrad(zero(setting, model)))
    yield "small messages", small_messages(setting)
    yield "mixed precision of parameters", mixed_dtypes(setting)
    yield "authors' trainer", authors_trainer(setting)
    for option in ("find_unused_parameters", "gradient_as_bucket_view"):
        for on in (True, False):
            yield f"plain backward between, {option}={on}", plain_between(setting, **{option: on})


def zero(setting: Setting, model: Model) -> torch.optim.Optimizer:
    """The optimizer's state sharded over the processes."""
    options = {"lr": 1e-2, "weight_decay": 0.01, "eps": 1e-3}
    if setting.processes == 1:
        return torch.optim.AdamW(model.parameters(), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of TorchScript
        from torch.distributed.optim import ZeroRedundancyOptimizer
    return ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, **options)


def small_messages(setting: Setting) -> Tensor:
    before, optimizers.training.distributed.BUCKET = optimizers.training.distributed.BUCKET, 20
    try:
        return train(setting, METHODS["came-grad"], find_unused_parameters=True)
    finally:
        optimizers.training.distributed.BUCKET = before


def mixed_dtypes(setting: Setting) -> Tensor:
    """A head in float32 under a float64 trunk."""
    model = nn.ModuleDict({"trunk": nn.Linear(4, 8).double(), "report": nn.Linear(8, 5), "disease": nn.Linear(8, 3)})
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.linspace(-0.5, 0.5, p.numel()).view_as(p))
    optimizer = CAMEGrad(sgd(model))
    for ((x, _),) in setting.batches():
        h = model["trunk"](x).tanh().float()
        optimizer.step([model["report"](h).square().mean(), (model["disease"](h) - 1).square().mean()], WEIGHTS)
    return flat(model)


def plain_between(setting: Setting, **ddp: bool) -> Tensor:
    """CAME-Grad and Tensor.backward by turns through one reducer."""
    model = Model()
    network, inner = setting.wrapped(model, **ddp), sgd(model)
    optimizer = CAMEGrad(inner)
    for number, ((x, rare),) in enumerate(setting.batches(6)):
        losses = losses_of(network, x, rare)
        everything = 0.0 if ddp.get("find_unused_parameters") else sum(0 * p.sum() for p in model.parameters())
        if number % 2:
            optimizer.zero_grad()
            (sum(losses) + everything).backward()
            inner.step()
        else:
            optimizer.step(losses, WEIGHTS)
    return flat(model)


def authors_trainer(setting: Setting) -> Tensor:
    """AdamW with two groups, learning rates written by hand, no zero_grad."""
    model = Model()
    network = setting.wrapped(model, find_unused_parameters=True)
    trunk = list(model.trunk.parameters())
    rest = [p for name, p in model.named_parameters() if not name.startswith("trunk")]
    came = CAMEGrad(torch.optim.AdamW([{"params": trunk}, {"params": rest}]), rho=0.5, kappa=1.5, nu=0.2)
    for number, ((x, rare),) in enumerate(setting.batches(6)):
        for i, peak in enumerate((1e-2, 3e-2)):
            came.param_groups[i]["lr"] = peak * min((number + 1) / 3, (6 - number) / 3)
        came.step(losses_of(network, x, rare), task_weights=WEIGHTS)
    return flat(model)


def diagnosed(setting: Setting) -> dict[str, Tensor]:
    model = Model()
    optimizer = CAMEGrad(sgd(model))
    ((x, rare),) = next(setting.batches())
    optimizer.backward(losses_of(model, x, rare), WEIGHTS)
    assert optimizer.last is not None
    return {"losses": optimizer.last.losses, "gramian": optimizer.last.gramian}


def poisoned(losses: list[Tensor], model: Model, kind: str) -> list[Tensor]:
    """A NaN, or a finite loss with an infinite slope."""
    return [losses[0], losses[1] * torch.nan if kind == "loss" else losses[1] + (model.disease.bias.sum() * 0).sqrt()]


def nonfinite(setting: Setting, kind: str, policy: str) -> dict[str, Any]:
    """Non-finite numbers on the second process only, in the second of three steps; or that step left out."""
    model = Model()
    network = setting.wrapped(model, find_unused_parameters=True)
    optimizer = CAMEGrad(sgd(model), on_nonfinite=policy)  # type: ignore[arg-type]
    message = ""
    for number, ((x, rare),) in enumerate(setting.batches(3)):
        if number == 1 and kind == "left out":
            continue
        losses = losses_of(network, x, rare)
        optimizer.zero_grad()
        try:
            optimizer.backward(poisoned(losses, model, kind) if (number, setting.rank) == (1, 1) else losses, WEIGHTS)
        except NonFiniteError as error:
            message = str(error)
            continue
        if number == 1 and policy == "propagate":
            message = str({bool(p.grad.isnan().all()) for p in model.parameters()})
            continue
        optimizer.step()
    return {"parameters": flat(model), "message": message, "skipped": optimizer.skipped}


def controls(setting: Setting) -> dict[str, Any]:
    """What averaging the Gramians, or nothing, gives; and coefficients drawn at random."""

    def of_mean_gramian(M: Tensor, weights: Tensor) -> Tensor:
        return came_grad_coefficients(optimizers.training.distributed.averages([M])[0], weights)

    found: dict[str, Any] = {
        "not averaged": train(setting, lambda model: CAMEGrad(sgd(model), process_group=setting.alone))
    }
    model = Model()
    local = MultiTaskOptimizer(sgd(model), of_mean_gramian, process_group=setting.alone)
    for ((x, rare),) in setting.batches():
        local.zero_grad()
        local.backward(losses_of(model, x, rare), WEIGHTS)
        for name, p in model.named_parameters():
            if name.startswith("unused"):
                continue
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            dist.all_reduce(p.grad)
            p.grad /= setting.processes
        local.step()
    found["mean Gramian"] = flat(model)

    own = torch.Generator().manual_seed(setting.rank)

    class RandomCombination:
        def combine(self, jacobian: Tensor, task_weights: Tensor) -> Tensor:
            return torch.rand(2, generator=own, dtype=jacobian.dtype) @ jacobian

    for name, aggregator in (
        ("drawn at random", lambda M, w: torch.rand(2, generator=own)),
        ("combined at random", RandomCombination()),
    ):
        found[name] = train(setting, lambda model, chosen=aggregator: MultiTaskOptimizer(sgd(model), chosen))

    groups = [dist.new_group([r]) for r in range(setting.processes)]
    try:
        CAMEGrad(sgd(Model()), process_group=groups[1 - setting.rank])
    except ValueError as error:
        found["foreign group"] = str(error)
    return found


def run(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2, timeout=timedelta(seconds=30)
    )
    setting = Setting(rank, 2)
    results = {
        "equal": dict(equalities(setting)),
        "diagnosed": diagnosed(setting),
        "nonfinite": {
            f"{kind}, {policy}": nonfinite(setting, kind, policy)
            for kind in ("loss", "gradient")
            for policy in ("raise", "skip", "propagate")
        },
        "left out": nonfinite(setting, "left out", "raise")["parameters"],
        "controls": controls(setting),
    }
    dist.destroy_process_group()
    torch.save(results, folder / f"{rank}.pt")


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]))
