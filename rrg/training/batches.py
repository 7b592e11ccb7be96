"""Which studies a step sees, decided by seed and step alone, so that a run can go on anywhere."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from rrg.data import ReportDataset


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Micro-batches of the steps ``first`` … ``steps`` − 1 for one process: a fresh permutation each epoch.

    Args:
        studies: in the training split.
        batch_size: of a micro-batch.
        accumulate: micro-batches of a step.
        first, steps: where to begin and to end.
        seed: of the permutations.
        rank, world_size: this process and their number; a step's studies are dealt out in consecutive parts.

    Yields:
        (study, key) pairs; the key seeds the augmentation of that study in that epoch.

    Raises:
        ValueError: if a step needs more studies than there are.

    Example:
        >>> whole = list(StepSampler(10, 2, steps=4))
        >>> list(StepSampler(10, 2, first=3, steps=4)) == whole[3:]
        True
    """

    def __init__(
        self,
        studies: int,
        batch_size: int,
        *,
        steps: int,
        first: int = 0,
        accumulate: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.size = batch_size * accumulate * world_size
        if studies < self.size:
            parts = "" if self.size == batch_size else f" × {accumulate} micro-batches × {world_size} processes"
            raise ValueError(f"batch_size {batch_size}{parts} exceeds the {studies} training studies")
        self.studies, self.batch_size, self.accumulate = studies, batch_size, accumulate
        self.first, self.steps, self.seed = first, steps, seed
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first, self.steps):
            epoch, position = divmod(step, self.studies // self.size)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + 500_000 + epoch)
            order = torch.randperm(self.studies, generator=generator)
            chosen = order[position * self.size : (position + 1) * self.size]
            for micro_batch in chosen.view(self.accumulate, self.world_size, self.batch_size):
                yield [(study, self.seed * 1_000_003 + epoch) for study in micro_batch[self.rank].tolist()]

    def __len__(self) -> int:
        return (self.steps - self.first) * self.accumulate


def loader(dataset: ReportDataset, sampler: StepSampler, *, workers: int, pin: bool) -> DataLoader[dict[str, Tensor]]:
    """Micro-batches of the sampler; loading draws nothing from torch's global random state."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(sampler.seed),
    )
