"""BERT's uncased WordPiece tokenizer from a vocabulary that the user has; nothing is downloaded."""

import json
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
FILES = ("vocab.txt", "tokenizer.json")
MODELS = ("bert-base-uncased", "google-bert/bert-base-uncased")
"""Names under which the vocabulary lies in the Hugging Face cache."""


def find_vocabulary(chosen: Path | None, checkpoint: Path) -> Path:
    """The file chosen, or one beside a checkpoint, or that of bert-base-uncased in the Hugging Face cache.

    Args:
        chosen: a vocab.txt or tokenizer.json, or a folder with one of them.
        checkpoint: that needs it.

    Raises:
        ValueError: if there is none, with what to do.
    """
    if chosen is not None and chosen.is_file():
        return chosen
    folder = checkpoint.parent if chosen is None else chosen
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    if chosen is not None:
        raise ValueError(f"vocabulary: {chosen} is neither a file nor a folder with {' or '.join(FILES)}")
    for model in MODELS:
        for name in FILES:
            cached = try_to_load_from_cache(model, name)
            if isinstance(cached, str):
                return Path(cached)
    raise ValueError(
        f"{checkpoint} needs BERT's vocabulary: put the vocab.txt of bert-base-uncased (30,522 lines) into {folder}, "
        "or pass --chexbert-vocab FILE, or fetch it once with 'hf download bert-base-uncased vocab.txt'"
    )


def wordpiece(path: Path, size: int, max_length: int) -> Tokenizer:
    """Lower-cased WordPiece with [CLS] and [SEP] around a text, cut to ``max_length`` tokens, batches padded.

    Args:
        path: vocab.txt, one token a line, or tokenizer.json.
        size: tokens that the vocabulary must have.
        max_length: most tokens of a text.

    Raises:
        ValueError: if the file is not such a vocabulary.
    """
    try:
        if path.suffix == ".json":
            vocabulary = dict(json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"])
        else:
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            vocabulary = {token: number for number, token in enumerate(lines)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot read the vocabulary {path}: {type(error).__name__}: {error}") from error
    missing = [mark for mark in MARKS if mark not in vocabulary]
    if missing or len(vocabulary) != size:
        lacks = f" and lacks {', '.join(missing)}" if missing else ""
        raise ValueError(f"{path} has {len(vocabulary)} tokens{lacks}; the checkpoint's vocabulary has {size}")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    begin, end = (vocabulary[mark] for mark in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", end), ("[CLS]", begin))
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=vocabulary["[PAD]"])
    return tokenizer
