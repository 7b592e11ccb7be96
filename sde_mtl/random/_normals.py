"""Counter-based Gaussian noise: the number at (seed, path, step, component) depends on nothing else.

Any path can be replayed alone, in any order, in any chunk, on any device. Generator: Philox4x32-10
(Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), then Box–Muller.
"""

import math

import numpy as np
import torch
from torch import Tensor

from optimizers.kernels.threads import in_threads

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
THREADED = 2**16
"""Numbers that are worth a thread."""


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, ...]:
    """Philox4x32-10 of four 32-bit counter words under a 64-bit key.

    Args:
        counter: four int64 tensors in 0 … 2³²−1 that broadcast against each other.
        seed: key in 0 … 2⁶⁴−1.

    Returns:
        Four int64 tensors in 0 … 2³²−1, independent and uniform.

    Example:
        >>> zero = torch.zeros(1, dtype=torch.int64)
        >>> [f"{word.item():08x}" for word in philox((zero, zero, zero, zero), 0)]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    x0, x1, x2, x3 = counter
    key0, key1 = seed & MASK, (seed >> 32) & MASK
    for _ in range(ROUNDS):
        # int64 products wrap modulo 2^64, which keeps every bit of a 32×32 product.
        first, second = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        x0, x1, x2, x3 = (
            ((second >> 32) & MASK) ^ x1 ^ key0,
            second & MASK,
            ((first >> 32) & MASK) ^ x3 ^ key1,
            first & MASK,
        )
        key0, key1 = (key0 + WEYL[0]) & MASK, (key1 + WEYL[1]) & MASK
    return x0, x1, x2, x3


def key_words(seed: int) -> tuple[int, int]:
    """Low and high word of the key, 0 … 2³²−1.

    Raises:
        ValueError: for a seed outside 0 … 2⁶⁴−1.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed = {seed} must lie in 0 … 2^64 - 1")
    return seed & MASK, seed >> 32


def normals(paths: Tensor, step: int, components: int, *, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Independent standard normals for one step of some paths.

    Compiled on the CPU, on as many threads as torch has; elsewhere :func:`portable_normals`, equal up to rounding.

    Args:
        paths: (n,) int64 path numbers in 0 … 2³²−1.
        step: step number in 0 … 2³²−1.
        components: how many numbers a path and step.
        seed: in 0 … 2⁶⁴−1.
        dtype: float64, or float32: the same numbers to a relative 4e-7.

    Returns:
        (n, components) on the device of ``paths``; |z| ≤ 6.8, the limit of a 32-bit uniform.

    Raises:
        ValueError: for a seed or step out of range, or another dtype.

    Example:
        Path 7 has the same noise alone as among others:

        >>> alone = normals(torch.tensor([7]), step=3, components=2, seed=0)
        >>> among = normals(torch.arange(10), step=3, components=2, seed=0)
        >>> torch.equal(alone[0], among[7])
        True
    """
    key0, key1 = key_words(seed)
    if not 0 <= step <= MASK:
        raise ValueError(f"step = {step} must lie in 0 … 2^32 - 1")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    if paths.device.type != "cpu":
        return portable_normals(paths, step, components, seed=seed, dtype=dtype)
    from sde_mtl.random.philox_kernel import fill_normals

    drawn = torch.empty(len(paths), components, dtype=dtype)
    out, numbers = drawn.numpy(), paths.contiguous().numpy()
    words = np.uint32(step), np.uint32(key0), np.uint32(key1)
    in_threads(
        lambda first, last: fill_normals(out[first:last], numbers[first:last], *words),
        len(out),
        shortest=max(1, THREADED // max(components, 1)),
    )
    return drawn


def normals_in_pairs(
    paths: Tensor, step: int, components: int, *, seed: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """:func:`normals`; of up to two components, two steps share the four normals that come of one Philox call.

    Arguments, result and errors are those of :func:`normals`.

    Example:
        >>> path = torch.arange(1)
        >>> four = normals(path, step=3, components=4, seed=0)
        >>> torch.equal(normals_in_pairs(path, step=7, components=2, seed=0), four[:, 2:])
        True
    """
    if components > 2:
        return normals(paths, step, components, seed=seed, dtype=dtype)
    first = 2 * (step % 2)
    return normals(paths, step // 2, 4, seed=seed, dtype=dtype)[:, first : first + components]


def portable_normals(
    paths: Tensor, step: int, components: int, *, seed: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """:func:`normals` in torch, on any device; arguments as there.

    Example:
        >>> there = portable_normals(torch.arange(10), step=3, components=2, seed=0)
        >>> torch.allclose(there, normals(torch.arange(10), step=3, components=2, seed=0), rtol=1e-14)
        True
    """
    blocks = torch.arange(-(-components // 4), device=paths.device)[None, :]
    zero = torch.zeros_like(blocks)
    a, b, c, d = philox((paths[:, None], zero + step, blocks, zero), seed)
    drawn = torch.stack([*_box_muller(a, b, dtype), *_box_muller(c, d, dtype)], -1)
    return drawn.reshape(len(paths), -1)[:, :components]


def _box_muller(radial: Tensor, angular: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two normals; 1 − u near u = 1 and the quadrant of 2πu are taken from the words, where they are exact."""
    u, complement = ((word.to(dtype) + 0.5) / 2.0**32 for word in (radial, MASK - radial))
    radius = (-2 * torch.where(radial > MASK // 2, torch.log1p(-complement), u.log())).sqrt()
    quadrant = (angular + 2**29) >> 30
    rest = 2 * math.pi / 2.0**32 * ((angular - (quadrant << 30)).to(dtype) + 0.5)
    cosine, sine = rest.cos(), rest.sin()
    odd = quadrant % 2 == 1
    first, second = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    return (
        radius * torch.where((quadrant + 1) & 2 != 0, -first, first),
        radius * torch.where(quadrant & 2 != 0, -second, second),
    )
