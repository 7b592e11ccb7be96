"""A compact radiology report generator: ConvNeXt image encoder, GPT-2-style decoder, condition head.

The architectures come from ``transformers`` configurations with random initialisation; nothing is downloaded.
One forward pass serves both tasks: report generation reads the encoder's feature map by
cross-attention, disease classification reads its average.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import ConvNextConfig, ConvNextModel, GenerationConfig, GPT2Config, GPT2LMHeadModel

PAD, BOS, EOS = 0, 1, 2


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of :class:`ReportGenerator`; the defaults train on a laptop's CPU."""

    encoder_widths: tuple[int, ...] = (32, 64, 128, 192)
    """Channels of the encoder's stages; each stage after the first halves the resolution."""
    encoder_depths: tuple[int, ...] = (1, 1, 2, 1)
    """Blocks in each encoder stage."""
    patch_size: int = 4
    """Pixels that the encoder's first convolution takes in one step."""
    decoder_width: int = 192
    """Channels of the decoder."""
    decoder_layers: int = 2
    """Decoder blocks (self-attention, cross-attention, feed-forward)."""
    decoder_heads: int = 4
    """Attention heads in each decoder block."""
    dropout: float = 0.0
    """Dropout of the decoder; 0 keeps sampling the only source of gradient noise."""

    def __post_init__(self) -> None:
        if not self.encoder_widths or len(self.encoder_widths) != len(self.encoder_depths):
            raise ValueError(
                f"encoder_widths {self.encoder_widths} and encoder_depths {self.encoder_depths} "
                "must have one entry for each stage, at least one"
            )
        sizes = (*self.encoder_widths, *self.encoder_depths, self.patch_size)
        if min(*sizes, self.decoder_width, self.decoder_layers, self.decoder_heads) < 1:
            raise ValueError(f"widths, depths, layers, heads and patch_size must be >= 1: {self}")
        if self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"decoder_width {self.decoder_width} must be a multiple of decoder_heads {self.decoder_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class Output(NamedTuple):
    """What one forward pass predicts."""

    report_logits: Tensor
    """(B, L, V) next-token logits; position t predicts token t+1."""
    condition_logits: Tensor
    """(B, C, S) logits of the S states of each of the C conditions."""


class ReportGenerator(nn.Module):
    """Image → report and condition states.

    Args:
        config: the architecture.
        vocabulary_size: V, number of tokens.
        max_length: L, longest report in tokens, with its begin and end marks.
        conditions: C, number of conditions to classify.
        states: S, states of each condition.

    Example:
        >>> config = ModelConfig((8, 16), (1, 1), decoder_width=16, decoder_layers=1)
        >>> model = ReportGenerator(config, vocabulary_size=50, max_length=12)
        >>> output = model(torch.zeros(2, 1, 32, 32), torch.ones(2, 12, dtype=torch.int64))
        >>> output.report_logits.shape, output.condition_logits.shape
        (torch.Size([2, 12, 50]), torch.Size([2, 14, 4]))
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        max_length: int,
        conditions: int = 14,
        states: int = 4,
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.state_shape = (conditions, states)
        widths = list(config.encoder_widths)
        self.encoder = ConvNextModel(
            ConvNextConfig(
                num_channels=1,
                patch_size=config.patch_size,
                num_stages=len(widths),
                hidden_sizes=widths,
                depths=list(config.encoder_depths),
                layer_scale_init_value=0.1,
                initializer_range=0.02,
            )
        )
        self.encoder.layernorm = nn.Identity()  # normalises ConvNeXt's own pooled output, unused
        self.norm = nn.LayerNorm(widths[-1])
        self.bridge = nn.Linear(widths[-1], config.decoder_width)
        self.decoder = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary_size,
                n_positions=max_length,
                n_embd=config.decoder_width,
                n_layer=config.decoder_layers,
                n_head=config.decoder_heads,
                activation_function="relu",
                resid_pdrop=config.dropout,
                embd_pdrop=config.dropout,
                attn_pdrop=config.dropout,
                add_cross_attention=True,
                pad_token_id=PAD,
                bos_token_id=BOS,
                eos_token_id=EOS,
            )
        )
        self.classifier = nn.Linear(widths[-1], conditions * states)

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Image features.

        Args:
            pixel_values: (B, 1, H, W) float32, standardised.

        Returns:
            (B, N, encoder width), one vector for each of the N cells of the last feature map.
        """
        features = self.encoder(pixel_values).last_hidden_state
        return self.norm(features.flatten(2).transpose(1, 2))

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Output:
        """Predict every next token of the given reports, and the condition states.

        Padding needs no mask: it stands at the end, where causal attention keeps it from the real tokens,
        and :func:`rrg.tasks.report_loss` ignores what it predicts.

        Args:
            pixel_values: (B, 1, H, W) float32.
            input_ids: (B, L) int64, begin mark, report, end mark, padding.

        Raises:
            ValueError: if the reports are longer than ``max_length``.
        """
        if input_ids.shape[1] > self.max_length:
            raise ValueError(f"reports have {input_ids.shape[1]} tokens, this model reads at most {self.max_length}")
        features = self.encode(pixel_values)
        logits = self.decoder(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            encoder_hidden_states=self.bridge(features),
            use_cache=False,
        ).logits
        states = self.classifier(features.mean(1)).unflatten(1, self.state_shape)
        return Output(logits, states)

    @torch.no_grad()
    def generate(self, pixel_values: Tensor, *, num_beams: int = 1, length_penalty: float = 1.0) -> Tensor:
        """Write reports, by greedy (``num_beams=1``) or beam search with cached keys and values.

        Args:
            pixel_values: (B, 1, H, W) float32.
            num_beams: hypotheses kept per report.
            length_penalty: beam scores are divided by length to this power.

        Returns:
            (B, T) int64 token ids with begin mark, end mark and padding, T ≤ ``max_length``.
        """
        features = self.bridge(self.encode(pixel_values))
        start = torch.full((len(pixel_values), 1), BOS, device=pixel_values.device)
        settings = GenerationConfig(
            max_length=self.max_length,
            num_beams=num_beams,
            length_penalty=length_penalty if num_beams > 1 else None,
            early_stopping=num_beams > 1,
            do_sample=False,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
        return self.decoder.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            encoder_hidden_states=features,
            generation_config=settings,
        )
