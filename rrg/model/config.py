"""What a report generator is built for and of: its tasks, and its architecture."""

from dataclasses import dataclass
from typing import Annotated

import tyro

TASKS = ("rg", "dc", "ita", "re")
"""Report generation, disease classification, image–text alignment, retrieval enhancement."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of :class:`ReportGenerator`; the defaults have 8 million parameters with all four tasks."""

    encoder_widths: tuple[int, ...] = (40, 80, 160, 320)
    """Channels of the encoder's stages; each ConvNeXt stage after the first halves the resolution. A ViT takes the
    last."""
    encoder_depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks in each encoder stage; a ViT takes their sum."""
    patch_size: int = 4
    """Pixels that the encoder's first convolution takes in one step."""
    decoder_width: int = 256
    """Channels of the decoder."""
    decoder_layers: int = 3
    """Decoder blocks (self-attention, cross-attention, feed-forward)."""
    decoder_heads: int = 4
    """Attention heads in each decoder block."""
    dropout: float = 0.0
    """Dropout of the decoder; 0 keeps sampling the only source of gradient noise."""
    encoder: Annotated[str, tyro.conf.arg(aliases=["--encoder"])] = "convnext"
    """convnext, vit, or the name or folder of pretrained weights for transformers' AutoModel."""
    prompt: bool = True
    """Prompt the decoder with the condition states, where both rg and dc are trained."""
    blind: bool = False
    """Black out every image: what language and class frequencies alone give, the floor under every score."""
    text_layers: int = 2
    """Blocks of the report encoder of ita and re."""
    embedding_width: int = 128
    """Length of image and report embeddings of ita and re."""
    retrieved: int = 4
    """Retrieved reports that the decoder reads."""
    candidates: int = 64
    """Retrieved reports that the retrieval loss ranks."""

    def __post_init__(self) -> None:
        if not self.encoder_widths or len(self.encoder_widths) != len(self.encoder_depths):
            raise ValueError(
                f"encoder_widths {self.encoder_widths} and encoder_depths {self.encoder_depths} "
                "must have one entry for each stage, at least one"
            )
        sizes = (*self.encoder_widths, *self.encoder_depths, self.patch_size, self.text_layers, self.embedding_width)
        if min(*sizes, self.decoder_width, self.decoder_layers, self.decoder_heads) < 1:
            raise ValueError(f"widths, depths, layers, heads and patch_size must be >= 1: {self}")
        if self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"decoder_width {self.decoder_width} must be a multiple of decoder_heads {self.decoder_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not 1 <= self.retrieved <= self.candidates:
            raise ValueError(f"need 1 <= retrieved <= candidates, got {self.retrieved} and {self.candidates}")
