from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import ConvNextConfig, ConvNextModel, ViTConfig, ViTModel

from rrg.config import TrainConfig
from rrg.data.corpus import ReportDataset
from rrg.data.grammar import phantom_studies
from rrg.data.tokenizer import BOS, EOS, Tokenizer
from rrg.model import TASKS, ModelConfig, ReportGenerator
from rrg.model.tasks import report_loss, task_losses
from rrg.training.activation_memory import prepared
from rrg.training.setup import build_model

TINY = ModelConfig((8, 16), (1, 1), decoder_width=32, decoder_layers=1, text_layers=1, embedding_width=8)
SUBSETS = [subset for n in range(1, 5) for subset in combinations(TASKS, n)]
Batch = dict[str, Tensor]


def tiny(tasks: tuple[str, ...] = ("rg",), vocabulary: int = 50, config: ModelConfig = TINY) -> ReportGenerator:
    return ReportGenerator(config, vocabulary, max_length=12, tasks=tasks, image_size=32, memory_size=20)


def a_batch(size: int = 6, views: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 50, (size, 12), generator=generator)
    ids[:, 0] = BOS
    return {
        "pixel_values": torch.randn(size, views, 1, 32, 32, generator=generator),
        "view_mask": torch.ones(size, views, dtype=torch.bool),
        "input_ids": ids,
        "labels": torch.randint(0, 4, (size, 14), generator=generator),
        "index": torch.arange(size),
    }


def losses_of(model: ReportGenerator, batch: Batch) -> list[Tensor]:
    names = ("pixel_values", "input_ids", "labels", "view_mask", "index")
    return task_losses(model, model(*(batch[name] for name in names)), batch)


def remember(model: ReportGenerator, batch: Batch) -> None:
    """Fill the memory with other studies' reports."""
    embeddings = model.text_encoder(batch["input_ids"].flip(1))
    model.memory.update(torch.arange(6, 6 + len(embeddings)), embeddings, batch["labels"].flip(0))


def test_later_tokens_do_not_reach_earlier_predictions() -> None:
    model = tiny().eval()
    image = torch.randn(1, 1, 1, 32, 32)
    ids = torch.randint(3, 50, (1, 12))
    other = ids.clone()
    other[0, 7:] = 4
    first, second = model(image, ids).report_logits, model(image, other).report_logits
    assert torch.allclose(first[:, :7], second[:, :7], atol=1e-5)
    assert not torch.allclose(first[:, 7:], second[:, 7:], atol=1e-5)


def test_the_image_reaches_every_head() -> None:
    model = tiny(TASKS).eval()
    batch = a_batch(1)
    first = model(batch["pixel_values"], batch["input_ids"], batch["labels"])
    second = model(-batch["pixel_values"], batch["input_ids"], batch["labels"])
    for name in ("report_logits", "condition_logits", "image_embedding"):
        assert (getattr(first, name) - getattr(second, name)).abs().max() > 1e-6
    assert torch.equal(first.report_embedding, second.report_embedding)


def test_cached_greedy_search_is_the_argmax_loop() -> None:
    model = tiny().eval()
    image = torch.randn(3, 1, 1, 32, 32)
    ids = torch.full((3, 1), BOS)
    while ids.shape[1] < 12:
        following = model(image, ids).report_logits[:, -1].argmax(-1)
        ended = (ids == EOS).any(1)
        ids = torch.cat([ids, torch.where(ended, 0, following)[:, None]], 1)
    generated, states = model.predict(image)
    assert generated is not None
    assert torch.equal(generated, ids[:, : generated.shape[1]])
    assert states is None


def test_beam_search_finds_reports_at_least_as_likely_as_greedy_search() -> None:
    """Total log-probability over complete reports; wide beams are never worse than the greedy path here."""
    torch.manual_seed(4)
    model = tiny(vocabulary=8).eval()
    model.decoder.lm_head.weight.data.mul_(2)
    images = torch.randn(16, 1, 1, 32, 32)

    def log_probability(ids: Tensor) -> Tensor:
        logits = model(images, ids).report_logits[:, :-1].log_softmax(-1)
        chosen = logits.gather(-1, ids[:, 1:, None])[..., 0]
        ended = (ids[:, :-1] == EOS).cumsum(1) > 0
        return chosen.masked_fill(ended, 0).sum(1)

    greedy = log_probability(model.predict(images)[0])
    beams = log_probability(model.predict(images, num_beams=16, length_penalty=0.0)[0])
    assert (beams >= greedy - 1e-4).all()
    assert (beams > greedy + 1e-3).any()


def test_generation_is_prompted_by_the_predicted_states() -> None:
    """It is the argmax loop under the predicted states, whichever the classifier predicts, without prompt tokens."""
    torch.manual_seed(0)
    model = tiny(("rg", "dc")).eval()
    model.decoder.transformer.wpe.weight.data.mul_(100)
    model.decoder.transformer.wte.weight.data[50:] *= 100
    images = torch.randn(4, 1, 1, 32, 32)
    written = []
    for state in (1, 2):
        model.classifier.bias.data.view(14, 4)[:, state] += 100 * state
        generated, states = model.predict(images)
        assert (states == state).all()
        assert generated.max() < 50
        ids = torch.full((4, 1), BOS)
        while ids.shape[1] < generated.shape[1]:
            following = model(images, ids, states).report_logits[:, -1].argmax(-1)
            ids = torch.cat([ids, torch.where((ids == EOS).any(1), 0, following)[:, None]], 1)
        assert torch.equal(generated, ids)
        written.append(model(images, torch.ones(4, 5).long(), states).report_logits)
    assert not torch.allclose(*written, atol=1e-6)
    with pytest.raises(ValueError, match=r"prompted with condition states; pass labels \(B, C\)"):
        model(images, torch.ones(4, 3).long())
    plain = ModelConfig((8, 16), (1, 1), decoder_width=32, decoder_layers=1, prompt=False)
    assert tiny(("rg", "dc"), config=plain)(images, torch.ones(4, 3).long()).report_logits.shape == (4, 3, 50)


def test_retrieved_reports_are_read_by_the_decoder_and_never_ones_own() -> None:
    model = tiny(("rg", "re")).eval()
    batch = a_batch()
    arguments = batch["pixel_values"], batch["input_ids"], None, None
    empty = model(*arguments)
    assert not empty.retrieved.found.any()
    remember(model, batch)
    filled = model(*arguments, batch["index"])
    assert filled.retrieved.found.sum() == 6 * 6
    assert (filled.report_logits - empty.report_logits).abs().max() > 1e-6
    model.memory.update(batch["index"], filled.image_embedding, batch["labels"])
    excluded = model(*arguments, batch["index"])
    assert torch.equal(excluded.retrieved.found.sum(1), torch.full((6,), 6))
    found = model(*arguments).retrieved
    assert torch.allclose((found.embeddings[:, 0] * filled.image_embedding).sum(1), torch.ones(6), atol=1e-5)


def test_views_that_are_missing_do_not_matter() -> None:
    model = tiny(TASKS).eval()
    batch = a_batch(2, views=2)
    mask = torch.tensor([[True, False], [True, True]])
    other = batch["pixel_values"].clone()
    other[0, 1] = 9.0
    first, second = (
        model(pixels, batch["input_ids"], batch["labels"], mask) for pixels in (batch["pixel_values"], other)
    )
    for name in ("report_logits", "condition_logits", "image_embedding"):
        assert torch.allclose(getattr(first, name), getattr(second, name), atol=1e-6)
    ids = [model.predict(pixels, mask, num_beams=2)[0] for pixels in (batch["pixel_values"], other)]
    assert torch.equal(*ids)
    seen = model(other, batch["input_ids"], batch["labels"])
    assert (seen.report_logits[0] - first.report_logits[0]).abs().max() > 1e-6


@pytest.mark.parametrize("tasks", SUBSETS, ids="+".join)
def test_shared_parameters_are_those_that_several_tasks_reach(tasks: tuple[str, ...]) -> None:
    """Counted from the gradients themselves; every parameter of the model is reached by some task."""
    model = tiny(tasks)
    batch = a_batch()
    if "re" in tasks:
        remember(model, batch)
    losses = losses_of(model, batch)
    assert len(losses) == len(tasks)
    assert all(loss.isfinite() for loss in losses)
    reached = dict.fromkeys(model.parameters(), 0)
    for loss in losses:
        found = torch.autograd.grad(loss, list(reached), retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(reached, found, strict=True):
            reached[parameter] += gradient is not None
    assert min(reached.values()) >= 1
    shared = {id(p) for p in model.shared_parameters()}
    assert shared == {id(p) for p, count in reached.items() if count > 1}


def test_the_default_model_is_compact() -> None:
    model = ReportGenerator(ModelConfig(), 1000, 64, tasks=TASKS)
    assert 5e6 < sum(p.numel() for p in model.parameters()) < 30e6


def test_activation_checkpointing_changes_no_gradient() -> None:
    gradients, generated, recomputed = [], [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = tiny(TASKS).train()
        prepared(model, TrainConfig(tasks=TASKS, activation_checkpointing=checkpointing))
        losses = losses_of(model, a_batch())
        shared = model.shared_parameters()
        gradients.append([torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True) for loss in losses])
        batch = a_batch()
        generated.append(model.eval().predict(batch["pixel_values"], num_beams=2)[0])
        recomputed.append(sum(isinstance(m.forward, partial) for m in model.modules()))
    assert torch.equal(*generated)
    assert recomputed == [0, 4]  # two stages, one block of the decoder, one of the report encoder
    for first, second in zip(*gradients, strict=True):
        for a, b in zip(first, second, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch.compile warns itself
def test_compilation_changes_no_task_gradient() -> None:
    gradients = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = tiny(TASKS).train()
        prepared(model, TrainConfig(tasks=TASKS, compile=compiled))
        losses = losses_of(model, a_batch())
        parameters = list(model.parameters())
        gradients.append([torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True) for x in losses])
    for first, second in zip(*gradients, strict=True):
        for a, b in zip(first, second, strict=True):
            assert (a is None or not a.any()) == (b is None or not b.any())
            assert a is None or b is None or torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_pretrained_encoders_are_loaded_from_a_folder(tmp_path: Path, kind: str) -> None:
    if kind == "vit":
        saved = ViTModel(
            ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32,
                      patch_size=16)
        )  # fmt: skip
    else:
        saved = ConvNextModel(ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1]))
    saved.save_pretrained(tmp_path / "encoder")
    model = tiny(config=ModelConfig(encoder=str(tmp_path / "encoder"), decoder_width=32, decoder_layers=1)).eval()
    assert model.encoder.width == 16
    loaded = dict(model.encoder.net.named_parameters())
    assert all(torch.equal(loaded[name], value) for name, value in saved.named_parameters())
    assert model(torch.randn(2, 1, 1, 32, 32), torch.ones(2, 3).long()).report_logits.shape == (2, 3, 50)
    with pytest.raises(ValueError, match=r"is neither one of .* nor a model that transformers can load"):
        tiny(config=ModelConfig(encoder=str(tmp_path / "nothing"), decoder_width=32, decoder_layers=1))


def test_too_long_reports_and_bad_architectures_are_named() -> None:
    with pytest.raises(ValueError, match="13 tokens, this model reads at most 12"):
        tiny()(torch.zeros(1, 1, 1, 32, 32), torch.ones(1, 13).long())
    for options, message in (
        ({"encoder_widths": (8,), "encoder_depths": (1, 1)}, "one entry for each stage"),
        ({"decoder_width": 30, "decoder_heads": 4}, "multiple of"),
        ({"dropout": 1.0}, "dropout"),
        ({"patch_size": 0}, "must be >= 1"),
        ({"retrieved": 9, "candidates": 3}, "retrieved <= candidates"),
    ):
        with pytest.raises(ValueError, match=message):
            ModelConfig(**options)
    for tasks in ((), ("rg", "rg"), ("rg", "vqa")):
        with pytest.raises(ValueError, match="must be some of"):
            tiny(tasks)


def test_a_handful_of_studies_is_learned_by_heart() -> None:
    """All four tasks at once: the reports come back word for word, the states too."""
    studies = phantom_studies(4)
    tokenizer = Tokenizer.learn([s.report for s in studies], 300)
    dataset = ReportDataset(studies, tokenizer, image_size=32, max_length=60)
    items = [dataset[i] for i in range(4)]
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    config = TrainConfig(tasks=TASKS, image_size=32, max_length=60, logit_adjustment=0.0, model=TINY)
    model = build_model(config, tokenizer, studies)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = losses_of(model, batch)
    for _ in range(200):
        losses = losses_of(model, batch)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    assert losses[0] < 0.1
    assert losses[1] < 0.1
    assert losses[2] < 0.5 * first[2]
    assert losses[3] < 0.5 * first[3]
    generated, states = model.eval().predict(batch["pixel_values"])
    assert [tokenizer.decode(ids) for ids in generated.tolist()] == [
        tokenizer.decode(ids) for ids in batch["input_ids"].tolist()
    ]
    assert torch.equal(states, batch["labels"])
    assert report_loss(model(batch["pixel_values"], batch["input_ids"], batch["labels"]).report_logits,
                       batch["input_ids"]) < 0.1  # fmt: skip
