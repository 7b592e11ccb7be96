"""BLEU-1…4 and ROUGE-L with one reference a report, as the report generation literature scores them."""

import math
from collections import Counter
from collections.abc import Sequence

TINY, SMALL = 1e-15, 1e-9
ROUGE_BETA = 1.2


def bleu(references: Sequence[str], hypotheses: Sequence[str], order: int = 4) -> list[float]:
    r"""Corpus BLEU of every order up to ``order``.

    Clipped n-gram matches and n-gram counts are summed over the corpus,

    .. math:: \text{BLEU-}N = \min\bigl(1, e^{1 - r/c}\bigr) \prod_{n=1}^{N} p_n^{1/N},

    with r and c the total lengths of references and hypotheses (Papineni et al. 2002). An order without a
    match counts ``(0 + 1e-15) / (count + 1e-9)``, the convention of the COCO caption scorer, so that BLEU is 0 to
    every printed digit instead of undefined. Hypotheses without a word score 0.

    Args:
        references: one text a report; tokens are separated by white space.
        hypotheses: as many generated texts.
        order: N.

    Returns:
        ``[BLEU-1, …, BLEU-N]``, each in [0, 1].

    Raises:
        ValueError: for no texts, or unequally many.

    Example:
        p₁ = 5/6 and p₂ = 3/5, equal lengths: BLEU-2 = √(5/6 · 3/5) = √½.

        >>> [round(x, 4) for x in bleu(["the cat is on the mat"], ["the cat sat on the mat"], 2)]
        [0.8333, 0.7071]
    """
    check_pairs(references, hypotheses)
    matches, counts = [0] * order, [0] * order
    reference_length = hypothesis_length = 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        expected, produced = reference.split(), hypothesis.split()
        reference_length += len(expected)
        hypothesis_length += len(produced)
        for n in range(1, order + 1):
            ngrams = _ngrams(produced, n)
            matches[n - 1] += (ngrams & _ngrams(expected, n)).total()
            counts[n - 1] += ngrams.total()
    if hypothesis_length == 0:
        return [0.0] * order
    brevity = math.exp(min(0.0, 1 - reference_length / hypothesis_length))
    scores = []
    log_product = 0.0
    for n in range(order):
        log_product += math.log((matches[n] + TINY) / (counts[n] + SMALL))
        scores.append(brevity * math.exp(log_product / (n + 1)))
    return scores


def rouge_l(references: Sequence[str], hypotheses: Sequence[str], beta: float = ROUGE_BETA) -> float:
    r"""Mean ROUGE-L F-measure, from the longest common subsequence of each pair.

    .. math:: F = \frac{(1 + β²) P R}{R + β² P}, \quad P = \frac{\text{LCS}}{|\text{hypothesis}|},
              \quad R = \frac{\text{LCS}}{|\text{reference}|}

    (Lin 2004), 0 where the LCS is empty; β = 1.2 as in the COCO caption scorer.

    Args:
        references: one text a report; tokens are separated by white space.
        hypotheses: as many generated texts.
        beta: weight of recall.

    Returns:
        in [0, 1].

    Raises:
        ValueError: for no texts, or unequally many.

    Example:
        LCS = 3 of 4 and 3 words: P = 1, R = ¾, F = 2.44 · ¾ / (¾ + 1.44).

        >>> round(rouge_l(["police killed the gunman"], ["police the gunman"]), 4)
        0.8356
    """
    check_pairs(references, hypotheses)
    total = 0.0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        expected, produced = reference.split(), hypothesis.split()
        common = _lcs(expected, produced)
        if common:
            precision, recall = common / len(produced), common / len(expected)
            total += (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    return total / len(references)


def check_pairs(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    """Raise a ``ValueError`` unless there is one hypothesis for each reference and at least one."""
    if not references or len(references) != len(hypotheses):
        raise ValueError(
            f"need one hypothesis for each reference and at least one, "
            f"got {len(references)} references and {len(hypotheses)} hypotheses"
        )


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _lcs(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            above = row[j]
            row[j] = diagonal + 1 if x == y else max(above, row[j - 1])
            diagonal = above
    return row[-1]
