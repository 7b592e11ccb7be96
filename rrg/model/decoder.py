"""The language model that writes reports: GPT-2 with cross-attention to the image, and its greedy or beam search."""

import torch
from torch import Tensor
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from rrg.data import BOS, EOS, PAD
from rrg.model.config import ModelConfig


def build_decoder(config: ModelConfig, vocabulary_size: int, positions: int) -> GPT2LMHeadModel:
    """A decoder with random weights.

    Args:
        config: widths, layers, heads and dropout.
        vocabulary_size: number of tokens, with those that prompt it.
        positions: longest text in tokens, with those that prompt it.
    """
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary_size,
            n_positions=positions,
            n_embd=config.decoder_width,
            n_layer=config.decoder_layers,
            n_head=config.decoder_heads,
            activation_function="relu",
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            add_cross_attention=True,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
    )


def search(
    decoder: GPT2LMHeadModel,
    start: Tensor,
    context: Tensor,
    mask: Tensor | None,
    *,
    vocabulary_size: int,
    num_beams: int = 1,
    length_penalty: float = 1.0,
) -> Tensor:
    """Continue texts by greedy (``num_beams=1``) or beam search, with cached keys and values, to the longest length.

    Args:
        decoder: of :func:`build_decoder`.
        start: (B, T₀) int64 tokens that the texts begin with.
        context: (B, N, decoder width) what cross-attention reads.
        mask: (B, N) int64, which of it is there; None for all.
        vocabulary_size: V, tokens from V on, which only prompt, are never written.
        num_beams: hypotheses kept per text.
        length_penalty: beam scores are divided by length to this power.

    Returns:
        (B, T) int64, T ≤ the decoder's positions, with padding after the end mark.
    """
    settings = GenerationConfig(
        max_length=decoder.config.n_positions,
        num_beams=num_beams,
        length_penalty=length_penalty if num_beams > 1 else None,
        early_stopping=num_beams > 1,
        do_sample=False,
        suppress_tokens=list(range(vocabulary_size, decoder.config.vocab_size)) or None,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    return decoder.generate(
        input_ids=start,
        attention_mask=torch.ones_like(start),
        encoder_hidden_states=context,
        encoder_attention_mask=mask,
        generation_config=settings,
    )
