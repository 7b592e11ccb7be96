"""The image encoder: a compact ConvNeXt or ViT from a configuration, or pretrained weights that the user has."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, ConvNextConfig, ConvNextModel, ViTConfig, ViTModel
from transformers.image_processing_base import ImageProcessingMixin

from rrg.data import DEVIATION, MEAN

BUILT_IN = ("convnext", "vit")
NUMBERED = re.compile(r"\b(stage|layer|block)s?\.(\d+)\.")
"""Names of the parameters of a stage, layer or block of an encoder of transformers, with its number from 0."""


class ImageEncoder(nn.Module):
    """Grey images → feature vectors of their cells.

    Args:
        name: "convnext", "vit", or the name or folder of a pretrained model; its own channels and
            normalisation (``preprocessor_config.json``) are then used.
        widths, depths: as :class:`rrg.model.config.ModelConfig`; ignored for a pretrained model.
        patch_size: pixels of the first convolution; ignored for a pretrained model.
        image_size: pixels, for a ViT's positions.

    Attributes:
        width: channels of the features.

    Raises:
        ValueError: if the pretrained model cannot be loaded.

    Example:
        >>> encoder = ImageEncoder("vit", (32,), (2,), 16, 64)
        >>> encoder(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 17, 32])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, name: str, widths: Sequence[int], depths: Sequence[int], patch_size: int, image_size: int
    ) -> None:
        super().__init__()
        self.pretrained = name not in BUILT_IN
        mean, deviation = [MEAN], [DEVIATION]
        if name == "convnext":
            self.net: nn.Module = _convnext(widths, depths, patch_size)
            self.width = widths[-1]
        elif name == "vit":
            self.net = _vit(widths[-1], sum(depths), patch_size, image_size)
            self.width = widths[-1]
        else:
            self.net, mean, deviation = _load(name)
            config: Any = self.net.config
            self.width = config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by depth: stem, stages or blocks, and what comes after, by their names in transformers.

        Example:
            >>> list(ImageEncoder("convnext", (8, 16), (1, 1), 4, 32).parts())
            ['encoder stem', 'encoder stage 1', 'encoder stage 2']
        """
        parts: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.net.named_parameters():
            numbered = NUMBERED.search(name)
            if numbered:
                part = f"{numbered[1]} {int(numbered[2]) + 1}"
            else:
                part = "stem" if name.startswith("embeddings") else "end"
            parts.setdefault(f"encoder {part}", []).append(parameter)
        return parts

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 1, H, W) standardised with the corpus' mean and deviation → (B, N, width)."""
        if self.pretrained:
            pixel_values = (pixel_values * DEVIATION + MEAN - self.mean) / self.deviation
        features = self.net(pixel_values).last_hidden_state
        return features.flatten(2).transpose(1, 2) if features.dim() == 4 else features


def _convnext(widths: Sequence[int], depths: Sequence[int], patch_size: int) -> nn.Module:
    net = ConvNextModel(
        ConvNextConfig(
            num_channels=1,
            patch_size=patch_size,
            num_stages=len(widths),
            hidden_sizes=list(widths),
            depths=list(depths),
            layer_scale_init_value=0.1,
            initializer_range=0.02,
        )
    )
    net.layernorm = nn.Identity()  # normalises ConvNeXt's own pooled output, unused
    return net


def _vit(width: int, layers: int, patch_size: int, image_size: int) -> nn.Module:
    config = ViTConfig(
        num_channels=1,
        patch_size=patch_size,
        image_size=image_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
    )
    return ViTModel(config, add_pooling_layer=False)


def _load(name: str) -> tuple[nn.Module, list[float], list[float]]:
    try:
        net = AutoModel.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"encoder {name!r} is neither one of {BUILT_IN} nor a model that transformers can load: {error}"
        ) from error
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        settings = {}
    channels = getattr(net.config, "num_channels", 3)
    mean = settings.get("image_mean", [MEAN] * channels)
    return net, mean, settings.get("image_std", [DEVIATION] * channels)
