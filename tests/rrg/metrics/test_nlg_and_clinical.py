import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rrg.data.study import CONDITIONS
from rrg.metrics.clinical import clinical_efficacy, majority
from rrg.metrics.nlg import bleu, rouge_l

texts = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=8).map(" ".join)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=5)


def brute_bleu(references: list[str], hypotheses: list[str], order: int) -> float:
    """From the definition, by explicit enumeration."""
    precisions = []
    for n in range(1, order + 1):
        hits = count = 0
        for reference, hypothesis in zip(references, hypotheses, strict=True):
            available = [tuple(reference.split()[i : i + n]) for i in range(len(reference.split()) - n + 1)]
            for gram in (tuple(hypothesis.split()[i : i + n]) for i in range(len(hypothesis.split()) - n + 1)):
                count += 1
                if gram in available:
                    available.remove(gram)
                    hits += 1
        precisions.append(hits / count if count else 0.0)
    c, r = (sum(len(t.split()) for t in side) for side in (hypotheses, references))
    brevity = 1.0 if c >= r else math.exp(1 - r / c)
    return brevity * math.prod(precisions) ** (1 / order)


def brute_lcs(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + brute_lcs(a[1:], b[1:])
    return max(brute_lcs(a[1:], b), brute_lcs(a, b[1:]))


@given(pairs=pairs)
def test_bleu_is_its_definition(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = (list(side) for side in zip(*pairs, strict=True))
    for n, score in enumerate(bleu(references, hypotheses), 1):
        expected = brute_bleu(references, hypotheses, n)
        assert score == pytest.approx(expected, rel=1e-7, abs=2e-3 if expected == 0 else 0)


@given(pairs=pairs)
def test_rouge_is_its_definition(pairs: list[tuple[str, str]]) -> None:
    total = 0.0
    for reference, hypothesis in pairs:
        common = brute_lcs(reference.split(), hypothesis.split())
        p, r = common / len(hypothesis.split()), common / len(reference.split())
        total += 2.44 * p * r / (r + 1.44 * p) if common else 0.0
    assert rouge_l(*(list(s) for s in zip(*pairs, strict=True))) == pytest.approx(total / len(pairs))


def test_perfect_and_empty_reports() -> None:
    assert bleu(["a b c d e"], ["a b c d e"]) == pytest.approx([1.0] * 4)
    assert bleu(["a b"], [""]) == [0.0] * 4
    assert bleu([""], [""]) == [0.0] * 4
    assert rouge_l(["a b"], [""]) == 0
    with pytest.raises(ValueError, match="1 references and 0 hypotheses"):
        bleu(["a"], [])


def states(**positives: list[int]) -> torch.Tensor:
    table = torch.zeros(2, 14, dtype=torch.int64)
    for condition, values in positives.items():
        table[:, CONDITIONS.index(condition)] = torch.tensor(values)
    return table


def test_clinical_efficacy_by_hand() -> None:
    """Edema: hit, miss. Cardiomegaly: false alarm on the second study. Micro: 1 hit, 2 said, 2 expected."""
    ce = clinical_efficacy(states(Edema=[1, 1]), states(Edema=[1, 0], Cardiomegaly=[0, 1]), label_set="5")
    assert (ce.micro.precision, ce.micro.recall, ce.micro.f1) == (0.5, 0.5, 0.5)
    assert ce.per_condition["Edema"].f1 == pytest.approx(2 / 3)
    assert ce.macro.f1 == pytest.approx(2 / 15)
    assert ce.example.f1 == 0.5
    assert ce.support["Edema"] == 2


@pytest.mark.parametrize(("policy", "f1"), [("positive", 1.0), ("negative", 0.0), ("ignored", 0.0)])
def test_uncertainty_policies(policy: str, f1: float) -> None:
    ce = clinical_efficacy(states(Edema=[3, 0]), states(Edema=[1, 0]), label_set="5", uncertainty=policy)
    assert ce.micro.f1 == f1


def test_clinical_input_is_checked() -> None:
    good = states()
    with pytest.raises(ValueError, match="label_set must be one of"):
        clinical_efficacy(good, good, label_set="7")
    with pytest.raises(ValueError, match=r"shape \(n, 14\), got \(2, 3\)"):
        clinical_efficacy(good[:, :3], good)
    with pytest.raises(ValueError, match="states other than"):
        clinical_efficacy(good + 9, good)
    with pytest.raises(ValueError, match="uncertainty must be"):
        clinical_efficacy(good, good, uncertainty="maybe")  # type: ignore[arg-type]
    assert majority(good, torch.ones(3, 14)).tolist() == [[1.0] * 14] * 2
