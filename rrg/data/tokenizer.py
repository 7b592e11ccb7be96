"""Byte-level BPE learned from the training reports."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from optimizers.files import write_text

PAD, BOS, EOS, UNK = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


class Tokenizer:
    """Text ↔ token ids; every text survives the round trip.

    Example:
        >>> tokenizer = Tokenizer.learn(["the heart is normal ."] * 3, vocabulary_size=300)
        >>> ids = tokenizer.encode("the heart is large .", max_length=40)
        >>> ids[0] == BOS, ids[-1] == EOS, tokenizer.decode(ids)
        (True, True, 'the heart is large .')
    """

    def __init__(self, model: tokenizers.Tokenizer) -> None:
        self._model = model

    @classmethod
    def learn(cls, texts: Iterable[str], vocabulary_size: int = 1000) -> "Tokenizer":
        """Learn merges from texts, those of the training split only.

        Args:
            texts: cleaned reports.
            vocabulary_size: most tokens, at least 260 (specials and bytes).

        Raises:
            ValueError: for a vocabulary below 260.
        """
        if vocabulary_size < 260:
            raise ValueError(f"vocabulary_size = {vocabulary_size} must be >= 260: 4 marks and 256 bytes")
        model = tokenizers.Tokenizer(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        model.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=list(SPECIALS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        model.train_from_iterator(texts, trainer)
        return cls(model)

    def __len__(self) -> int:
        return int(self._model.get_vocab_size())

    def encode(self, text: str, max_length: int) -> list[int]:
        """Begin mark, tokens, end mark; cut to ``max_length`` with the end mark kept."""
        ids = self._model.encode(text, add_special_tokens=False).ids
        return [BOS, *ids[: max_length - 2], EOS]

    def decode(self, ids: Sequence[int]) -> str:
        """Text up to the first end mark, without marks and padding."""
        ids = list(ids)
        if EOS in ids:
            ids = ids[: ids.index(EOS)]
        return str(self._model.decode([i for i in ids if i > UNK])).strip()

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_text(path, self._model.to_str(pretty=True))

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: if the file is missing or not a tokenizer.
        """
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"cannot read the tokenizer {path}: {error}") from error
