"""A compact radiology report generator with the four tasks of the paper's backbone.

Architectures come from ``transformers`` configurations with random initialisation; nothing is downloaded unless a
pretrained encoder is named. One forward pass serves every task:

    rg
        report generation: a GPT-2-style decoder reads the image features by cross-attention
    dc
        disease classification: 14 conditions × 4 states from the mean image feature; with rg, the states
        prompt the decoder as 14 tokens before the report, the reference's in training and the predicted ones in
        generation, as in PromptMRG (Jin et al. 2024, arXiv:2308.12604)
    ita
        image–text alignment: image and report embeddings on the unit sphere
    re
        retrieval enhancement: the nearest training reports are extra context for the decoder
        (:mod:`rrg.model.retrieval`)
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.data import BOS
from rrg.distributed import gather
from rrg.model.config import TASKS, ModelConfig
from rrg.model.decoder import build_decoder, search
from rrg.model.encoder import ImageEncoder
from rrg.model.retrieval import RetrievalMemory, Retrieved
from rrg.model.text_encoder import TextEncoder

Part = TypeVar("Part")


class Output(NamedTuple):
    """What one forward pass predicts; None for tasks that the model does not have."""

    report_logits: Tensor | None
    """(B, L, V) next-token logits; position t predicts token t+1."""
    condition_logits: Tensor | None
    """(B, C, S) logits of the S states of each of the C conditions."""
    image_embedding: Tensor | None = None
    """(B, E) float32 unit vectors."""
    report_embedding: Tensor | None = None
    """(B, E) float32 unit vectors."""
    retrieved: Retrieved | None = None
    """Nearest training reports."""


def needed(part: Part | None, task: str) -> Part:
    """A part of an :class:`Output` that the task's loss reads.

    Raises:
        ValueError: if it is not there, because the model was built without that task.
    """
    if part is None:
        raise ValueError(f"the model's output lacks what {task} needs; build the model with that task")
    return part


class ReportGenerator(nn.Module):
    """Images → report, condition states, embeddings.

    Args:
        config: the architecture.
        vocabulary_size: V, number of tokens.
        max_length: L, longest report in tokens, with its begin and end marks.
        tasks: some of :data:`rrg.model.config.TASKS`; parts that none of them needs are not built.
        conditions: C, number of conditions to classify.
        states: S, states of each condition.
        image_size: pixels, for a ViT's positions.
        memory_size: N, training studies that re remembers.

    Raises:
        ValueError: for unknown or repeated tasks, or an encoder that cannot be loaded.

    Example:
        >>> config = ModelConfig((8, 16), (1, 1), decoder_width=16, decoder_layers=1)
        >>> model = ReportGenerator(config, vocabulary_size=50, max_length=12)
        >>> output = model(torch.zeros(2, 1, 1, 32, 32), torch.ones(2, 12).long(), torch.zeros(2, 14).long())
        >>> output.report_logits.shape, output.condition_logits.shape
        (torch.Size([2, 12, 50]), torch.Size([2, 14, 4]))
    """

    log_prior: Tensor

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        max_length: int,
        *,
        tasks: Sequence[str] = ("rg", "dc"),
        conditions: int = 14,
        states: int = 4,
        image_size: int = 128,
        memory_size: int = 1,
    ) -> None:
        super().__init__()
        if not tasks or set(tasks) - set(TASKS) or len(set(tasks)) < len(tasks):
            raise ValueError(f"tasks {tuple(tasks)} must be some of {TASKS}, each once")
        self.config = config
        self.tasks = tuple(tasks)
        self.max_length = max_length
        self.vocabulary_size = vocabulary_size
        self.state_shape = (conditions, states)
        self.prompts = conditions if config.prompt and {"rg", "dc"} <= set(tasks) else 0
        self.encoder = ImageEncoder(
            config.encoder, config.encoder_widths, config.encoder_depths, config.patch_size, image_size
        )
        width = self.encoder.width
        self.norm = nn.LayerNorm(width)
        if "rg" in tasks:
            self.bridge = nn.Linear(width, config.decoder_width)
            self.decoder = build_decoder(
                config, vocabulary_size + (states if self.prompts else 0), max_length + self.prompts
            )
        if "dc" in tasks:
            self.classifier = nn.Linear(width, conditions * states)
        self.register_buffer("log_prior", torch.zeros(conditions, states))
        if self.embeds:
            self.image_projection = nn.Linear(width, config.embedding_width)
            self.text_encoder = TextEncoder(config, vocabulary_size, max_length)
        if "ita" in tasks:
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        if "re" in tasks:
            self.memory = RetrievalMemory(memory_size, config.embedding_width, conditions)
            if "rg" in tasks:
                self.context = nn.Linear(config.embedding_width, config.decoder_width)

    @property
    def embeds(self) -> bool:
        """Whether images and reports are embedded, for ita or re."""
        return bool({"ita", "re"} & set(self.tasks))

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters that more than one of the tasks' losses reach: the image encoder, and what ita and re share."""
        shared: list[nn.Module] = [self.encoder, self.norm] if len(self.tasks) > 1 else []
        if {"ita", "re"} <= set(self.tasks):
            shared += [self.image_projection, self.text_encoder]
        return [p for module in shared for p in module.parameters() if p.requires_grad]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that are trained, by part of the model, each in one: what a gradient log tells apart."""
        modules: dict[str, list[nn.Module]] = {"encoder norm": [self.norm]}
        if "rg" in self.tasks:
            modules["decoder"] = [self.bridge, self.decoder]
            if "re" in self.tasks:
                modules["retrieved context"] = [self.context]
        if "dc" in self.tasks:
            modules["classifier"] = [self.classifier]
        if self.embeds:
            modules |= {"image projection": [self.image_projection], "text encoder": [self.text_encoder]}
        groups = self.encoder.parts()
        groups |= {name: [p for m in parts for p in m.parameters()] for name, parts in modules.items()}
        if "ita" in self.tasks:
            groups["alignment scale"] = [self.log_scale]
        trained = {name: [p for p in parameters if p.requires_grad] for name, parameters in groups.items()}
        return {name: parameters for name, parameters in trained.items() if parameters}

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Image features.

        Args:
            pixel_values: (B, V, 1, H, W) float32, standardised; V views of a study.

        Returns:
            (B, V·N, encoder width), one vector for each of the N cells of a view's last feature map.
        """
        views = pixel_values.shape[1]
        if self.config.blind:
            pixel_values = torch.zeros_like(pixel_values)
        features = self.norm(self.encoder(pixel_values.flatten(0, 1)))
        return features.unflatten(0, (-1, views)).flatten(1, 2)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        labels: Tensor | None = None,
        view_mask: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Output:
        """Predict every next token of the given reports, the condition states and the embeddings.

        Padding needs no mask in the decoder: it stands at the end, where causal attention keeps it from the real
        tokens, and :func:`rrg.model.tasks.report_loss` ignores what it predicts.

        Args:
            pixel_values: (B, V, 1, H, W) float32.
            input_ids: (B, L) int64, begin mark, report, end mark, padding.
            labels: (B, C) int64 states that prompt the decoder; needed by a model with prompts.
            view_mask: (B, V) bool, which views are there; None for all.
            index: (B,) int64 slots of a training batch in the retrieval memory, which must not find itself.

        Raises:
            ValueError: if the reports are longer than ``max_length``, or labels are missing.
        """
        if input_ids.shape[1] > self.max_length:
            raise ValueError(f"reports have {input_ids.shape[1]} tokens, this model reads at most {self.max_length}")
        features = self.encode(pixel_values)
        pooled = _pool(features, view_mask)
        image = self._image_embedding(pooled)
        retrieved = self._retrieve(image, index)
        logits = None
        if "rg" in self.tasks:
            ids = self._prompted(input_ids, labels)
            context, mask = self._context(features, view_mask, retrieved)
            logits = self.decoder(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                encoder_hidden_states=context,
                encoder_attention_mask=mask,
                use_cache=False,
            ).logits[:, self.prompts :, : self.vocabulary_size]
        report = self.text_encoder(input_ids) if self.embeds else None
        return Output(logits, self._classify(pooled), image, report, retrieved)

    @torch.no_grad()
    def predict(
        self,
        pixel_values: Tensor,
        view_mask: Tensor | None = None,
        *,
        num_beams: int = 1,
        length_penalty: float = 1.0,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Write reports by greedy (``num_beams=1``) or beam search, and classify.

        Args:
            pixel_values: (B, V, 1, H, W) float32.
            view_mask: (B, V) bool.
            num_beams: hypotheses kept per report.
            length_penalty: beam scores are divided by length to this power.

        Returns:
            (B, T) int64 token ids with begin mark, end mark and padding, T ≤ ``max_length``, or None without rg;
            (B, C) int64 most likely condition states, or None without dc.
        """
        features = self.encode(pixel_values)
        pooled = _pool(features, view_mask)
        logits = self._classify(pooled)
        states = None if logits is None else logits.argmax(-1)
        if "rg" not in self.tasks:
            return None, states
        context, mask = self._context(features, view_mask, self._retrieve(self._image_embedding(pooled), None))
        start = self._prompted(torch.full((len(pixel_values), 1), BOS, device=pixel_values.device), states)
        ids = search(
            self.decoder,
            start,
            context,
            mask,
            vocabulary_size=self.vocabulary_size,
            num_beams=num_beams,
            length_penalty=length_penalty,
        )
        return ids[:, self.prompts :], states

    def _classify(self, pooled: Tensor) -> Tensor | None:
        return self.classifier(pooled).unflatten(1, self.state_shape) if "dc" in self.tasks else None

    def _image_embedding(self, pooled: Tensor) -> Tensor | None:
        return F.normalize(self.image_projection(pooled).float(), dim=-1) if self.embeds else None

    def _retrieve(self, image: Tensor | None, index: Tensor | None) -> Retrieved | None:
        if "re" not in self.tasks or image is None:
            return None
        return self.memory.retrieve(
            image.detach(), self.config.candidates, exclude=None if index is None else gather(index)
        )

    def _prompted(self, input_ids: Tensor, labels: Tensor | None) -> Tensor:
        """The ids with one token for each condition's state before them."""
        if not self.prompts:
            return input_ids
        if labels is None:
            raise ValueError("this model's decoder is prompted with condition states; pass labels (B, C)")
        return torch.cat([labels + self.vocabulary_size, input_ids], 1)

    def _context(
        self, features: Tensor, view_mask: Tensor | None, retrieved: Retrieved | None
    ) -> tuple[Tensor, Tensor | None]:
        """What the decoder's cross-attention reads, and the mask of what is there."""
        context = self.bridge(features)
        if view_mask is None and retrieved is None:
            return context, None
        if view_mask is None:
            mask = torch.ones(context.shape[:2], dtype=torch.bool, device=context.device)
        else:
            mask = view_mask.repeat_interleave(features.shape[1] // view_mask.shape[1], 1)
        if retrieved is not None:
            k = self.config.retrieved
            context = torch.cat([context, self.context(retrieved.embeddings[:, :k]).to(context.dtype)], 1)
            mask = torch.cat([mask, retrieved.found[:, :k]], 1)
        return context, mask.long()


def _pool(features: Tensor, view_mask: Tensor | None) -> Tensor:
    """(B, width) mean feature of the views that are there."""
    if view_mask is None:
        return features.mean(1)
    by_view = features.unflatten(1, (view_mask.shape[1], -1)).mean(2)
    keep = view_mask[..., None].to(by_view.dtype)
    return (by_view * keep).sum(1) / keep.sum(1)
