"""CheXbert (Smit et al. 2020, arXiv:2004.09167): a BERT that labels reports, from the user's own ``chexbert.pth``."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from rrg.data import CONDITIONS
from rrg.metrics.wordpiece import find_vocabulary, wordpiece

BATCH = 32
HEAD_WIDTH = 64
"""Channels of an attention head in every published BERT; a checkpoint does not say."""
STATES = (4,) * 13 + (2,)
"""Classes of each condition; No Finding is blank or positive."""
STALE = "bert.embeddings.position_ids"
"""A constant that old versions of transformers saved."""


class CheXbert:
    """Report texts → the 14 states that CheXbert predicts; a :class:`rrg.metrics.labeller.Labeller`.

    Texts are stripped, their white space is collapsed, and they are cut to the model's longest input, 512 tokens; the
    state of every condition is the largest of its head's logits on the [CLS] vector, as the published labeller does.

    Args:
        network: on its device.
        tokenizer: of its vocabulary.
        description: plain values for result files.
    """

    def __init__(self, network: "CheXbertNetwork", tokenizer: Tokenizer, description: dict[str, Any]) -> None:
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.description = description

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu", vocabulary: Path | None = None) -> "CheXbert":
        """Read a checkpoint as it was published: weights of BERT and 14 heads, under ``model_state_dict``.

        Only tensors and plain containers are read (``weights_only``); nothing in the file can run.

        Args:
            path: chexbert.pth.
            device: where it runs.
            vocabulary: vocab.txt of bert-base-uncased; by default looked for beside the checkpoint and in the Hugging
                Face cache, see :func:`rrg.metrics.wordpiece.find_vocabulary`.

        Raises:
            ValueError: if the file is missing, damaged, no CheXbert checkpoint, has tensors too many or too few, or
                there is no vocabulary that fits.
        """
        weights = _read(path)
        network = CheXbertNetwork(_config(weights, path))
        _fill(network, weights, path)
        words = find_vocabulary(vocabulary, path)
        config = network.bert.config
        tokenizer = wordpiece(words, config.vocab_size, config.max_position_embeddings)
        description = {
            "name": "CheXbert",
            "file": path.name,
            "sha256": _sha256(path),
            "vocabulary_sha256": _sha256(words),
            "layers": config.num_hidden_layers,
            "width": config.hidden_size,
        }
        return cls(network, tokenizer, description).to(device)

    def to(self, device: torch.device | str) -> "CheXbert":
        """Move it to another device."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Label texts; equal texts are read once.

        Args:
            texts: n reports.

        Returns:
            (n, 14) int64 :class:`rrg.data.study.LabelState` numbers on the CPU.
        """
        plain = [" ".join(text.split()) for text in texts]
        unique = sorted(set(plain), key=lambda text: (len(text), text))
        device = self.network.device
        states: dict[str, Tensor] = {}
        for start in range(0, len(unique), BATCH):
            batch = unique[start : start + BATCH]
            encoded = self.tokenizer.encode_batch(batch)
            ids = torch.tensor([e.ids for e in encoded], device=device)
            mask = torch.tensor([e.attention_mask for e in encoded], device=device)
            states |= zip(batch, self.network(ids, mask).cpu(), strict=True)
        empty = torch.zeros(0, len(CONDITIONS), dtype=torch.int64)
        return torch.stack([states[text] for text in plain]) if plain else empty


class CheXbertNetwork(nn.Module):
    """BERT with one linear head a condition, named as in the published checkpoint.

    Args:
        config: of the BERT.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = BertModel(config)
        self.linear_heads = nn.ModuleList(nn.Linear(config.hidden_size, states) for states in STATES)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.linear_heads.parameters()).device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) int64 tokens and mask → (B, 14) int64 states."""
        first = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        return torch.stack([head(first).argmax(-1) for head in self.linear_heads], 1)


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors by name, without what ``DataParallel`` put before it."""
    what = "expected the published chexbert.pth"
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"chexbert: {path} does not exist; {what}") from error
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"chexbert: {path} is damaged or no checkpoint of tensors; {what}: {reason[0]}") from error
    weights = whole.get("model_state_dict") if isinstance(whole, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ValueError(f"chexbert: {path} holds no tensors under 'model_state_dict'; {what}")
    named = {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}
    named.pop(STALE, None)
    return named


def _config(weights: Mapping[str, Tensor], path: Path) -> BertConfig:
    """The architecture that the tensors' shapes imply."""
    prefix = "bert.encoder.layer."
    layers = {name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)}
    try:
        words, positions, types = (
            weights[f"bert.embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
        )
        inner = weights[f"{prefix}0.intermediate.dense.weight"]
    except KeyError as error:
        raise ValueError(f"chexbert: {path} lacks the tensor {error}, it is no BERT with linear_heads") from error
    width = words.shape[-1]
    if width % HEAD_WIDTH:
        raise ValueError(f"chexbert: {path} has {width} channels, expected a multiple of {HEAD_WIDTH}")
    return BertConfig(
        vocab_size=words.shape[0],
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=inner.shape[0],
        max_position_embeddings=positions.shape[0],
        type_vocab_size=types.shape[0],
    )


def _fill(network: CheXbertNetwork, weights: Mapping[str, Tensor], path: Path) -> None:
    expected = network.state_dict()
    wrong = [f"lacks {name}" for name in expected if name not in weights]
    wrong += [f"has the unknown {name}" for name in weights if name not in expected]
    wrong += [
        f"has {name} of shape {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"chexbert: {path} {', '.join(wrong[:5])}{more}; it is not CheXbert's network")
    network.load_state_dict(weights)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
