"""The report encoder of image–text alignment and retrieval enhancement."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.data import PAD
from rrg.model.config import ModelConfig


class TextEncoder(nn.Module):
    """Report → unit vector: a bidirectional transformer, mean-pooled.

    Args:
        config: widths, layers and dropout.
        vocabulary_size: V.
        max_length: L.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int, max_length: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.tokens = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Parameter(0.02 * torch.randn(max_length, width))
        layer = nn.TransformerEncoderLayer(
            width, config.decoder_heads, 2 * width, config.dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.text_layers, enable_nested_tensor=False)
        self.projection = nn.Linear(width, config.embedding_width)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, L) int64 with padding at the end → (B, E) float32 unit vectors."""
        padding = input_ids == PAD
        x = self.tokens(input_ids) + self.positions[: input_ids.shape[1]]
        x = self.layers(x, src_key_padding_mask=padding)
        keep = (~padding)[..., None].to(x.dtype)
        return F.normalize(self.projection((x * keep).sum(1) / keep.sum(1)).float(), dim=-1)
