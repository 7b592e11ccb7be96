"""Which parameters of a gradient log belong together: named groups, split by which tasks reach them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from optimizers.gradients._gramian import gramian_of_parameters
from rrg.gradient_log.sketch import CountSketch

Gradients = Sequence[Sequence[Tensor]]


@dataclass(frozen=True)
class Group:
    """Parameters of one name that the same tasks reach.

    Attributes:
        name: of the group, with the tasks in brackets where its parameters are not all reached by the same ones.
        tensors: positions of its parameters in the optimizer's order.
        parameters: how many scalars they hold.
        reached_by: names of the tasks whose gradients are not all zero there.
        shared: whether those are two or more.
    """

    name: str
    tensors: tuple[int, ...]
    parameters: int
    reached_by: tuple[str, ...]
    shared: bool

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)


def split_by_reach(named: Mapping[str, Sequence[int]], gradients: Gradients, tasks: Sequence[str]) -> list[Group]:
    """Groups of which every parameter is reached by the same tasks, from the gradients of one step.

    Parameters that no task reaches yet go with the largest part of their group.

    Args:
        named: group → positions of its parameters; parameters that none names become the group "other".
        gradients: K lists of one tensor a parameter.
        tasks: K names.

    Raises:
        ValueError: if a parameter is named twice, or a position does not exist.

    Example:
        >>> gradients = [[torch.ones(2), torch.ones(3)], [torch.ones(2), torch.zeros(3)]]
        >>> for group in split_by_reach({"all": [0, 1]}, gradients, ["rg", "dc"]):
        ...     group.name, group.parameters, group.shared
        ('all (rg+dc)', 2, True)
        ('all (rg)', 3, False)
    """
    sizes = [tensor.numel() for tensor in gradients[0]]
    placed = [position for positions in named.values() for position in positions]
    if len(set(placed)) < len(placed) or not set(placed) <= set(range(len(sizes))):
        raise ValueError(f"groups must name each of the {len(sizes)} parameters at most once, by its position")
    other = sorted(set(range(len(sizes))) - set(placed))
    reach = torch.stack([torch.stack([part.count_nonzero().cpu() > 0 for part in row]) for row in gradients]).T.tolist()
    groups = []
    for name, positions in {**named, "other": other}.items():
        parts: dict[tuple[bool, ...], list[int]] = {}
        for position in positions:
            parts.setdefault(tuple(reach[position]), []).append(position)
        nobody = parts.pop((False,) * len(tasks), [])
        if nobody:
            largest = max(parts, key=lambda part: sum(sizes[p] for p in parts[part]), default=(False,) * len(tasks))
            parts[largest] = sorted([*parts.get(largest, []), *nobody])
        for pattern, members in parts.items():
            reached = tuple(task for task, reaches in zip(tasks, pattern, strict=True) if reaches)
            groups.append(
                Group(
                    name if len(parts) == 1 else f"{name} ({'+'.join(reached)})",
                    tuple(members),
                    sum(sizes[p] for p in members),
                    reached,
                    len(reached) > 1,
                )
            )
    return groups


class GroupedProducts:
    """Exact Gramians of each group, and projections of the shared parameters and of all.

    The parameters are projected class by class, one class for all that is shared and one for what each task has to
    itself, each by its own :class:`CountSketch`; the projection of all is the sum. A class is read only for
    the tasks that reach it, so that a task's head costs nothing to the others.

    Args:
        groups: of :func:`split_by_reach`.
        dim: m, length of the projections.
        seed: of the projections.

    Example:
        >>> gradients = [[torch.ones(2), torch.ones(3)], [torch.ones(2), torch.zeros(3)]]
        >>> products = GroupedProducts(split_by_reach({"all": [0, 1]}, gradients, ["rg", "dc"]), dim=4, seed=0)
        >>> found = products(gradients)
        >>> found["gramian_groups"].sum(0)
        tensor([[5., 2.],
                [2., 2.]], dtype=torch.float64)
        >>> found["projected"].shape, found["projected_shared"].shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    def __init__(self, groups: Sequence[Group], dim: int, seed: int) -> None:
        self.groups, self.dim = tuple(groups), dim
        self.parameters = sum(group.parameters for group in groups)
        self._classes: list[tuple[list[int], list[int], CountSketch]] = []
        """Of each class the numbers of its groups, the positions of its parameters, and its sketch; shared first."""
        kinds = [(not group.shared, () if group.shared else group.reached_by) for group in groups]
        for number, kind in enumerate(sorted(set(kinds))):
            members = [i for i, own in enumerate(kinds) if own == kind]
            positions = sorted(p for i in members for p in groups[i].tensors)
            length = sum(groups[i].parameters for i in members)
            self._classes.append((members, positions, CountSketch(length, dim, seed + number)))

    def __call__(self, gradients: Gradients) -> dict[str, Tensor]:
        """Products of one set of gradients.

        Args:
            gradients: K lists of one tensor a parameter.

        Returns:
            ``gramian_groups`` (G, K, K) float64, ``projected`` (K, m) and ``projected_shared`` (K, m) float32, all
            on the CPU.

        Raises:
            ValueError: if the tensors do not hold as many numbers as those that the groups were made of.
        """
        gramians = self.gramians(gradients)
        shared, every = self._project(gradients, (gramians.diagonal(dim1=1, dim2=2) > 0).tolist())
        return {"gramian_groups": gramians, "projected": every, "projected_shared": shared}

    def gramians(self, gradients: Gradients) -> Tensor:
        """(G, K, K) float64: the Gramian of each group."""
        return torch.stack(
            [gramian_of_parameters([[row[p] for p in group.tensors] for row in gradients]) for group in self.groups]
        )

    def project(self, vector: Sequence[Tensor]) -> Tensor:
        """(m,) float32: the projection of one vector of the shape of all parameters."""
        parts = [sketch([vector[p] for p in positions]) for _, positions, sketch in self._classes]
        return torch.stack(parts).sum(0).cpu()

    def project_groups(self, gradients: Gradients) -> Tensor:
        """(G, K, m/4) float32 on the CPU: the projection of each group, a quarter as long.

        Buckets that are m/4 apart are added up, which leaves a CountSketch, so that the groups sum to ``projected``
        folded likewise.
        """
        folded = torch.zeros(len(self.groups), len(gradients), self.folded)
        for members, positions, sketch in self._classes:
            for group in members:
                own = set(self.groups[group].tensors)
                for task, row in enumerate(gradients):
                    alone = sketch([row[p] if p in own else torch.zeros_like(row[p]) for p in positions])
                    folded[group, task] = alone.view(-1, self.folded).sum(0).cpu()
        return folded

    @property
    def folded(self) -> int:
        """Length of the projections of groups: m/4, or m where 4 does not divide it."""
        return self.dim // 4 if self.dim % 4 == 0 else self.dim

    def _project(self, gradients: Gradients, reached: Sequence[Sequence[bool]]) -> tuple[Tensor, Tensor]:
        every = [torch.zeros(self.dim, device=gradients[0][0].device) for _ in gradients]
        shared = list(every)
        for members, positions, sketch in self._classes:
            for task, row in enumerate(gradients):
                if any(reached[group][task] for group in members):
                    part = sketch([row[p] for p in positions])
                    every[task] = every[task] + part
                    if self.groups[members[0]].shared:
                        shared[task] = shared[task] + part
        return torch.stack(shared).cpu(), torch.stack(every).cpu()


def positions_of(named: Mapping[str, Iterable[Tensor]], parameters: Sequence[Tensor]) -> dict[str, list[int]]:
    """Positions of named parameters in the optimizer's order; parameters that are not there, and empty groups, go.

    Example:
        >>> first, second = torch.zeros(2), torch.zeros(2)
        >>> positions_of({"encoder": [second], "frozen": [torch.zeros(1)]}, [first, second])
        {'encoder': [1]}
    """
    place = {id(parameter): position for position, parameter in enumerate(parameters)}
    found = {name: sorted(place[id(p)] for p in members if id(p) in place) for name, members in named.items()}
    return {name: positions for name, positions in found.items() if positions}
