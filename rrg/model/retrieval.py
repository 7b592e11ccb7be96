"""Retrieval enhancement: a memory of the training reports, searched by image embedding.

Each training study has one slot, written whenever the study is trained on, so that no extra pass over the data is
needed: an entry is at most an epoch old, and slots that were never written are left out. The memory is saved with the
model and serves generation as well.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Retrieved(NamedTuple):
    """The nearest reports of a batch of images."""

    embeddings: Tensor
    """(B, k, E) float32 unit vectors; zeros where there are fewer than k."""
    labels: Tensor
    """(B, k, C) int64 condition states of their studies."""
    found: Tensor
    """(B, k) bool."""


class RetrievalMemory(nn.Module):
    """Report embeddings and condition states of the training studies.

    Args:
        studies: N, slots.
        width: E, length of an embedding.
        conditions: C.

    Example:
        >>> memory = RetrievalMemory(3, 2, conditions=1)
        >>> memory.update(torch.tensor([0, 2]), torch.eye(2), torch.tensor([[1], [2]]))
        >>> memory.retrieve(torch.tensor([[1.0, 0.1]]), 1).labels
        tensor([[[1]]])
        >>> memory.retrieve(torch.tensor([[1.0, 0.1]]), 1, exclude=torch.tensor([0])).labels
        tensor([[[2]]])
    """

    reports: Tensor
    labels: Tensor
    filled: Tensor

    def __init__(self, studies: int, width: int, conditions: int) -> None:
        super().__init__()
        self.register_buffer("reports", torch.zeros(studies, width))
        self.register_buffer("labels", torch.zeros(studies, conditions, dtype=torch.uint8))
        self.register_buffer("filled", torch.zeros(studies, dtype=torch.bool))

    @torch.no_grad()
    def update(self, index: Tensor, reports: Tensor, labels: Tensor) -> None:
        """Write the slots ``index`` (B,) with embeddings (B, E) and states (B, C)."""
        self.reports[index] = reports.detach().float()
        self.labels[index] = labels.to(torch.uint8)
        self.filled[index] = True

    @torch.no_grad()
    def retrieve(self, query: Tensor, k: int, exclude: Tensor | None = None) -> Retrieved:
        """The k filled slots of largest inner product with each query.

        Args:
            query: (B, E) unit vectors.
            k: most reports to return; the memory may hold fewer.
            exclude: (X,) slots that no query may find, such as those of a training batch.
        """
        usable = self.filled.clone()
        if exclude is not None:
            usable[exclude] = False
        similarity = (query.float() @ self.reports.T).masked_fill(~usable, -torch.inf)
        best = similarity.topk(min(k, len(usable)), dim=1)
        found = best.values > -torch.inf
        return Retrieved(self.reports[best.indices] * found[..., None], self.labels[best.indices].long(), found)
