import math

import pytest
import torch
from torch.nn import functional as F

from rrg.data.grammar import phantom_studies
from rrg.data.study import LabelState
from rrg.model import ModelConfig
from rrg.model.retrieval import RetrievalMemory, Retrieved
from rrg.model.tasks import alignment_loss, condition_loss, report_loss, retrieval_loss
from rrg.training.setup import log_frequencies


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def nothing(batch: int, width: int) -> Retrieved:
    return Retrieved(torch.zeros(batch, 1, width), torch.zeros(batch, 1, 14).long(), torch.zeros(batch, 1).bool())


def test_losses_ignore_padding() -> None:
    logits = torch.randn(1, 6, 50)
    short, padded = torch.tensor([[1, 9, 8, 2]]), torch.tensor([[1, 9, 8, 2, 0, 0]])
    assert report_loss(logits[:, :4], short) == pytest.approx(report_loss(logits, padded).item())
    assert condition_loss(torch.zeros(2, 14, 4), torch.zeros(2, 14).long()).item() == pytest.approx(1.3863, abs=1e-4)


def test_parts_of_a_batch_add_up_to_the_loss_of_the_batch() -> None:
    """With the joint number of tokens, though the parts have different numbers of them."""
    logits, ids = torch.randn(4, 6, 50), torch.randint(3, 50, (4, 6))
    ids[0, 2:] = 0
    tokens = float((ids[:, 1:] != 0).sum())
    parts = report_loss(logits[:1], ids[:1], tokens) + report_loss(logits[1:], ids[1:], tokens)
    assert parts.item() == pytest.approx(report_loss(logits, ids).item(), rel=1e-6)
    wrong = (report_loss(logits[:1], ids[:1]) + report_loss(logits[1:], ids[1:])) / 2
    assert abs(wrong - report_loss(logits, ids)) > 1e-3


def test_logit_adjustment_makes_the_argmax_balanced() -> None:
    """Where the inputs say nothing, the adjusted loss is least at equal logits, plain cross-entropy at log π."""
    prior = torch.tensor([0.9, 0.1]).log()[None]
    labels = torch.tensor([[0]] * 9 + [[1]])
    for adjustment, expected in ((prior, torch.zeros(1, 2)), (None, prior)):
        logits = torch.zeros(1, 1, 2, requires_grad=True)
        optimizer = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-9)

        def closure(logits: torch.Tensor = logits, adjustment: torch.Tensor | None = adjustment) -> torch.Tensor:
            logits.grad = None
            loss = condition_loss(logits.expand(10, 1, 2), labels, adjustment)
            loss.backward()
            return loss

        optimizer.step(closure)
        found = logits.detach()[0]
        assert (found - found.mean()).flatten().tolist() == pytest.approx(
            (expected - expected.mean()).flatten().tolist(), abs=1e-3
        )


def test_frequencies_are_counted() -> None:
    studies = phantom_studies(50)
    frequencies = log_frequencies(studies).exp()
    cardiomegaly = sum(study.labels[1] == LabelState.POSITIVE for study in studies)
    assert frequencies[1, LabelState.POSITIVE].item() == pytest.approx((cardiomegaly + 1) / 54)


def test_alignment_is_log_n_without_information_and_falls_with_agreement() -> None:
    ids = torch.arange(8)[:, None] + 3
    image = unit(8, 16)
    assert alignment_loss(image, unit(8, 16), ids, 0.0).item() == pytest.approx(math.log(8), rel=1e-6)
    assert alignment_loss(image, image, ids, 50.0) < 0.01 < alignment_loss(image, image.roll(1, 0), ids, 50.0)


def test_equal_reports_are_not_negatives_of_each_other() -> None:
    """Two normal reports: aligned embeddings are optimal, which they would not be as negatives."""
    ids = torch.tensor([[5], [5], [6]])
    image = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=-1)
    assert alignment_loss(image, image, ids, 50.0).item() == pytest.approx(2 / 3 * math.log(2), rel=1e-4)


def test_retrieval_loss_is_zero_for_the_ranking_by_shared_conditions() -> None:
    """Embeddings whose inner products are ln-proportional to the target: KL = 0; any other ranking is worse."""
    labels = torch.zeros(3, 14, dtype=torch.int64)
    labels[0, 1] = labels[1, 1] = labels[2, 5] = LabelState.POSITIVE
    clusters = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    scaled = clusters * (0.07 * 10) ** 0.5
    assert retrieval_loss(scaled, scaled, labels, nothing(3, 2)).item() == pytest.approx(0, abs=1e-5)
    assert retrieval_loss(scaled, scaled.roll(1, 0), labels, nothing(3, 2)) > 0.5


def test_missing_candidates_take_no_part_in_the_retrieval_loss() -> None:
    image, report = unit(4, 8), unit(4, 8)
    labels = torch.randint(0, 4, (4, 14))
    alone = retrieval_loss(image, report, labels, nothing(4, 8))
    padded = Retrieved(torch.zeros(4, 7, 8), torch.ones(4, 7, 14).long(), torch.zeros(4, 7).bool())
    assert retrieval_loss(image, report, labels, padded).item() == pytest.approx(alone.item(), rel=1e-6)
    there = Retrieved(unit(4, 7, 8), torch.ones(4, 7, 14).long(), torch.ones(4, 7).bool())
    assert abs(retrieval_loss(image, report, labels, there) - alone) > 1e-3


def test_the_memory_finds_what_brute_force_finds() -> None:
    memory = RetrievalMemory(50, 8, 14)
    reports = unit(30, 8)
    slots = torch.randperm(50)[:30]
    memory.update(slots, reports, torch.zeros(30, 14))
    query = unit(5, 8)
    found = memory.retrieve(query, 4, exclude=slots[:3])
    expected = (query @ reports[3:].T).topk(4).values
    assert torch.allclose((found.embeddings * query[:, None]).sum(-1), expected, atol=1e-6)
    assert memory.retrieve(query, 40).found.sum(1).tolist() == [30] * 5
    assert ModelConfig().candidates >= ModelConfig().retrieved
