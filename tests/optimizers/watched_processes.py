"""One of two processes with half of each batch, or one with the whole: monitors and features.

python watched_processes.py RANK FOLDER    writes what one of two processes ends with, for test_watched_processes.py
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from optimizers import CAMEGrad
from optimizers.monitor import ConflictMonitor

WEIGHTS, BATCH = [1.0, 4.0], 8


class Model(nn.Module):
    """A trunk whose output is returned with the losses; dropout on request."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.trunk, self.dropout = nn.Linear(4, 8), nn.Dropout(dropout)
        self.report, self.disease = nn.Linear(8, 5), nn.Linear(8, 3)
        self.double()

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        z = self.dropout(self.trunk(x))
        return z, [self.report(z.tanh()).square().mean(), (self.disease(z.tanh()) - 1).square().mean()]


def batch(rank: int, processes: int, step: int) -> Tensor:
    x = torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    return x.chunk(processes)[rank]


def watched(rank: int, processes: int, *, watch: bool, dropout: float = 0.3) -> dict[str, Any]:
    """A plain loop with DistributedDataParallel; what the monitors of the own and of the joint batch read."""
    model = Model(dropout)
    wrapped: nn.Module = DistributedDataParallel(model) if processes > 1 else model
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-2)
    own, joint = ConflictMonitor(model.parameters()), ConflictMonitor(model.parameters(), every=2, average=True)
    torch.manual_seed(rank)
    for step in range(4):
        _, losses = wrapped(batch(rank, processes, step))
        if watch:
            own(losses, WEIGHTS)
            joint(losses, WEIGHTS)
        (losses[0] + 4 * losses[1]).backward()
        optimizer.step()
        optimizer.zero_grad()
    found = {"parameters": parameters_to_vector(model.parameters()).detach()}
    if watch:
        assert own.last is not None
        assert joint.last is not None
        found |= {"own": own.last.gramian, "joint": joint.last.gramian, "losses": joint.last.losses}
    return found


def features(rank: int, processes: int) -> dict[str, Any]:
    """Steps along CAME-Grad of the features, and the last Gramian."""
    model = Model()
    wrapped: nn.Module = DistributedDataParallel(model) if processes > 1 else model
    optimizer = CAMEGrad(torch.optim.SGD(model.parameters(), lr=0.1), ema=0.5)
    for step in range(3):
        z, losses = wrapped(batch(rank, processes, step))
        optimizer.step(losses, WEIGHTS, features=z)
    assert optimizer.last is not None
    return {"parameters": parameters_to_vector(model.parameters()).detach(), "gramian": optimizer.last.gramian}


def run(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2, timeout=timedelta(seconds=30)
    )
    results = {
        "watched": watched(rank, 2, watch=True),
        "alone": watched(rank, 2, watch=False),
        "still": watched(rank, 2, watch=True, dropout=0.0),
        "features": features(rank, 2),
    }
    dist.destroy_process_group()
    torch.save(results, folder / f"{rank}.pt")


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]))
