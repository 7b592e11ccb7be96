"""What labels the reports that clinical efficacy compares: the built-in rules, or CheXbert."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor

from rrg.data import CONDITIONS
from rrg.data.labels import rules
from rrg.metrics.chexbert import CheXbert


class Labeller(Protocol):
    """Report texts → states of the 14 conditions."""

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that say which labeller it is, for every result file."""

    def to(self, device: torch.device | str) -> "Labeller":
        """Move it to a device."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(n, 14) int64 :class:`rrg.data.study.LabelState` numbers, in the order of ``CONDITIONS``, on the CPU."""


class RuleLabeller:
    """The rules of :mod:`rrg.data.labels`; their agreement with experts is in ``book/labeller.md``.

    Example:
        >>> RuleLabeller()(["the heart is enlarged . no effusion ."])[0, [1, 9]]
        tensor([1, 2])
    """

    @property
    def description(self) -> dict[str, Any]:
        """Name, module and SHA-256 of the source of all rules."""
        source = Path(rules.__file__).read_bytes()
        return {"name": "rule-based", "module": "rrg.data.labels", "sha256": hashlib.sha256(source).hexdigest()}

    def to(self, device: torch.device | str) -> "RuleLabeller":
        """Stays where it is."""
        return self

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(n, 14) int64."""
        states = {text: rules.label(text) for text in set(texts)}
        return torch.tensor([states[text] for text in texts], dtype=torch.int64).view(-1, len(CONDITIONS))


def load_labeller(
    chexbert: Path | None, vocabulary: Path | None = None, *, console: Console | None = None
) -> RuleLabeller | CheXbert:
    """CheXbert from a checkpoint, on the CPU, or the built-in rules without one; says which.

    Raises:
        ValueError: as :meth:`rrg.metrics.chexbert.CheXbert.load`, or for a vocabulary without a checkpoint.
    """
    if chexbert is None:
        if vocabulary is not None:
            raise ValueError(f"chexbert_vocab {vocabulary} needs --chexbert FILE")
        return RuleLabeller()
    labeller = CheXbert.load(chexbert, vocabulary=vocabulary)
    if console is not None:
        console.print(f"reports are labelled by CheXbert, {chexbert}", style="dim", markup=False)
        console.print(f"SHA-256 {labeller.description['sha256']}", style="dim", markup=False)
    return labeller
