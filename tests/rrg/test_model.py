import pytest
import torch

from rrg.data.corpus import ReportDataset
from rrg.data.grammar import phantom_studies
from rrg.data.tokenizer import BOS, EOS, Tokenizer
from rrg.model import ModelConfig, ReportGenerator
from rrg.tasks import condition_loss, report_loss, task_losses

TINY = ModelConfig((8, 16), (1, 1), decoder_width=32, decoder_layers=1)


def tiny(vocabulary: int = 50) -> ReportGenerator:
    return ReportGenerator(TINY, vocabulary, max_length=12)


def test_later_tokens_do_not_reach_earlier_predictions() -> None:
    model = tiny().eval()
    image = torch.randn(1, 1, 32, 32)
    ids = torch.randint(3, 50, (1, 12))
    other = ids.clone()
    other[0, 7:] = 4
    first, second = model(image, ids).report_logits, model(image, other).report_logits
    assert torch.allclose(first[:, :7], second[:, :7], atol=1e-5)
    assert not torch.allclose(first[:, 7:], second[:, 7:], atol=1e-5)


def test_the_image_reaches_both_heads() -> None:
    model = tiny().eval()
    ids = torch.randint(3, 50, (1, 12))
    first, second = (model(torch.randn(1, 1, 32, 32), ids) for _ in range(2))
    assert (first.report_logits - second.report_logits).abs().max() > 1e-6
    assert (first.condition_logits - second.condition_logits).abs().max() > 1e-6


def test_cached_greedy_search_is_the_argmax_loop() -> None:
    model = tiny().eval()
    image = torch.randn(3, 1, 32, 32)
    ids = torch.full((3, 1), BOS)
    while ids.shape[1] < 12:
        following = model(image, ids).report_logits[:, -1].argmax(-1)
        ended = (ids == EOS).any(1)
        ids = torch.cat([ids, torch.where(ended, 0, following)[:, None]], 1)
    generated = model.generate(image)
    assert torch.equal(generated, ids[:, : generated.shape[1]])


def test_beam_search_finds_reports_at_least_as_likely_as_greedy_search() -> None:
    """Total log-probability over complete reports; wide beams are never worse than the greedy path here."""
    torch.manual_seed(4)
    model = tiny(vocabulary=8).eval()
    model.decoder.lm_head.weight.data.mul_(2)
    images = torch.randn(16, 1, 32, 32)

    def log_probability(ids: torch.Tensor) -> torch.Tensor:
        logits = model(images, ids).report_logits[:, :-1].log_softmax(-1)
        chosen = logits.gather(-1, ids[:, 1:, None])[..., 0]
        ended = (ids[:, :-1] == EOS).cumsum(1) > 0
        return chosen.masked_fill(ended, 0).sum(1)

    greedy = log_probability(model.generate(images))
    beams = log_probability(model.generate(images, num_beams=16, length_penalty=0.0))
    assert (beams >= greedy - 1e-4).all()
    assert (beams > greedy + 1e-3).any()


def test_losses_ignore_padding() -> None:
    logits = torch.randn(1, 6, 50)
    short, padded = torch.tensor([[1, 9, 8, 2]]), torch.tensor([[1, 9, 8, 2, 0, 0]])
    assert report_loss(logits[:, :4], short) == pytest.approx(report_loss(logits, padded).item())
    assert condition_loss(torch.zeros(2, 14, 4), torch.zeros(2, 14).long()).item() == pytest.approx(1.3863, abs=1e-4)


def test_too_long_reports_and_bad_architectures_are_named() -> None:
    with pytest.raises(ValueError, match="13 tokens, this model reads at most 12"):
        tiny()(torch.zeros(1, 1, 32, 32), torch.ones(1, 13).long())
    for options, message in (
        ({"encoder_widths": (8,), "encoder_depths": (1, 1)}, "one entry for each stage"),
        ({"decoder_width": 30, "decoder_heads": 4}, "multiple of"),
        ({"dropout": 1.0}, "dropout"),
        ({"patch_size": 0}, "must be >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ModelConfig(**options)


def test_a_handful_of_studies_is_learned_by_heart() -> None:
    studies = phantom_studies(4)
    tokenizer = Tokenizer.learn([s.report for s in studies], 300)
    dataset = ReportDataset(studies, tokenizer, image_size=32, max_length=60)
    items = [dataset[i] for i in range(4)]
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    model = ReportGenerator(TINY, len(tokenizer), 60)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        losses = task_losses(model(batch["pixel_values"], batch["input_ids"]), batch)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    assert max(loss.item() for loss in losses) < 0.1
    generated = model.eval().generate(batch["pixel_values"])
    assert [tokenizer.decode(ids) for ids in generated.tolist()] == [
        tokenizer.decode(ids) for ids in batch["input_ids"].tolist()
    ]
