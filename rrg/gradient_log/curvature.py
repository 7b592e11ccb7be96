"""Local curvature of each task along a few directions, from Hessian-vector products."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def orthonormal(vectors: Sequence[Sequence[Tensor]]) -> Tensor:
    """Orthonormal basis of the span of parameter-shaped vectors, float64 (P, r); dependent vectors are left out.

    Example:
        >>> orthonormal([[torch.tensor([3.0, 0.0])], [torch.tensor([6.0, 0.0])]]).shape
        torch.Size([2, 1])
    """
    columns = torch.stack([torch.cat([part.reshape(-1).double() for part in vector]) for vector in vectors], 1)
    columns = columns / columns.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    q, r = torch.linalg.qr(columns)
    return q[:, r.diagonal().abs() > 1e-6]


def hessians(
    losses_of: Callable[[Any], Sequence[Tensor]],
    batches: Sequence[Any],
    parameters: Sequence[nn.Parameter],
    basis: Tensor,
) -> Tensor:
    r"""Curvature :math:`V^⊤\nabla²L_iV` of each loss averaged over batches, by double backward.

    Args:
        losses_of: batch → K losses with graph.
        batches: one or more.
        parameters: P numbers altogether.
        basis: V (P, r), orthonormal.

    Returns:
        (K, r, r) float64 on the CPU, symmetric.

    Example:
        >>> x = nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> hessians(lambda _: [x[0] ** 2 + x[1] ** 3], [None], [x], torch.eye(2).double())
        tensor([[[ 2.,  0.],
                 [ 0., 12.]]], dtype=torch.float64)
    """
    sizes = [p.numel() for p in parameters]
    directions = [
        [part.reshape(p.shape).to(p.dtype) for part, p in zip(column.split(sizes), parameters, strict=True)]
        for column in basis.T
    ]
    total: list[Tensor] = []
    for batch in batches:
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
            losses = losses_of(batch)
            curvatures = []
            for loss in losses:
                slopes = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
                reached = [(g, i) for i, g in enumerate(slopes) if g is not None and g.requires_grad]
                products = []
                for direction in directions:
                    slope = sum((g * direction[i]).sum() for g, i in reached)
                    curved = torch.autograd.grad(slope, parameters, retain_graph=True, allow_unused=True)
                    flat = [torch.zeros_like(p) if c is None else c for c, p in zip(curved, parameters, strict=True)]
                    products.append(torch.cat([part.reshape(-1).double() for part in flat]))
                curvatures.append((basis.T @ torch.stack(products, 1)).cpu())
        total.append(torch.stack(curvatures))
    mean = torch.stack(total).mean(0)
    return (mean + mean.mT) / 2
