"""Memory and speed of the forward pass: activation checkpointing and compilation."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rrg.config import TrainConfig
from rrg.model import ReportGenerator


def prepared(model: ReportGenerator, config: TrainConfig) -> ReportGenerator:
    """Switch on activation checkpointing and compilation, as configured."""
    if config.activation_checkpointing:
        for block in _blocks(model):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if config.compile:
        torch._functorch.config.donated_buffer = False  # each task goes backward through the same graph
        for part in (model.encoder.net, *([model.decoder] if "rg" in config.tasks else [])):
            part.compile()
    return model


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Members of the outermost module lists: blocks of transformers, stages of a ConvNeXt."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)
