"""CountSketch: a fixed random projection of very long vectors that keeps inner products on average."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class CountSketch:
    r"""Linear map :math:`S : R^P → R^m` with :math:`E\,⟨Sx, Sy⟩ = ⟨x, y⟩`.

    Coordinate p is added to bucket h(p) with sign s(p) = ±1. Signs are independent; buckets are
    :math:`h(jm + i) = (i + σ_j) \bmod m` with an independent uniform shift :math:`σ_j` for each block of m
    coordinates. Two coordinates meet with probability 1/m, or never if they share a block, so

    .. math:: \operatorname{Var}⟨Sx, Sy⟩ ≤ \bigl(‖x‖²‖y‖² + ⟨x, y⟩²\bigr)/m,

    the bound of the fully random sketch (Charikar, Chen, Farach-Colton 2002; Weinberger et al. 2009,
    arXiv:0902.2206), while the gradient is read in order: of many blocks, those of the same shift are added up before
    they are shifted. Keeps two buffers of P numbers.

    Args:
        length: P, number of coordinates.
        dim: m, number of buckets.
        seed: of the generator on the CPU that draws signs and shifts; the map is the same on every device.

    Raises:
        ValueError: if ``length`` or ``dim`` is not positive.

    Example:
        >>> sketch = CountSketch(length=5000, dim=1024, seed=0)
        >>> x = torch.linspace(-1, 1, 5000)
        >>> y = sketch([x[:2000].reshape(40, 50), x[2000:]])
        >>> y.shape, bool(abs(y @ y / (x @ x) - 1) < 0.1)
        (torch.Size([1024]), True)
    """

    def __init__(self, length: int, dim: int = 1024, seed: int = 0) -> None:
        if length < 1 or dim < 1:
            raise ValueError(f"CountSketch needs length >= 1 and dim >= 1, got {length} and {dim}")
        self.length, self.dim, self.seed = length, dim, seed
        blocks = -(-length // dim)
        generator = torch.Generator().manual_seed(seed)
        signs = (
            torch.randint(2, (blocks, dim), generator=generator, dtype=torch.int8).float() * 2 - 1
        )  # faster than int8
        shifts = torch.randint(dim, (blocks,), generator=generator)
        self._flat = torch.zeros(blocks, dim)
        if 2 * blocks < dim:
            self._tables: tuple[Tensor, ...] = (signs, (torch.arange(dim) - shifts[:, None]) % dim)
            return
        by_shift = shifts.argsort(stable=True)
        starts = torch.searchsorted(shifts[by_shift], torch.arange(dim))
        self._tables = (signs, by_shift, starts)

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        """Project the concatenation of the flattened tensors.

        Args:
            tensors: of P numbers altogether, on one device.

        Returns:
            (m,) float32 on that device.

        Raises:
            ValueError: if the tensors do not hold P numbers.
        """
        total = sum(tensor.numel() for tensor in tensors)
        if total != self.length:
            raise ValueError(f"this sketch projects {self.length} numbers, got {total}")
        device = tensors[0].device
        if self._flat.device != device:
            self._flat = self._flat.to(device)
            self._tables = tuple(table.to(device) for table in self._tables)
        signs, *tables = self._tables
        torch.cat([t.detach().reshape(-1).float() for t in tensors], out=self._flat.view(-1)[:total])
        self._flat.mul_(signs)
        if len(tables) == 1:
            return self._flat.gather(1, tables[0]).sum(0)
        by_shift, starts = tables
        equally_shifted = embedding_bag(by_shift, self._flat, starts, mode="sum")
        twice = torch.cat([equally_shifted, equally_shifted], 1)  # so that row σ, turned by σ, lies in one piece
        return twice.as_strided((self.dim, self.dim), (2 * self.dim - 1, 1), self.dim).sum(0)
