"""Clinical efficacy (CE): do the generated reports state the findings of the reference reports?

Both texts are labelled by the same labeller; precision, recall and F1 of the positive class then compare the labels.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rrg.data import CONDITIONS, LabelState

FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The five most studied conditions of CheXpert's leaderboard."""

LABEL_SETS: dict[str, tuple[str, ...]] = {"14": tuple(CONDITIONS), "5": FIVE}

Uncertainty = Literal["positive", "negative", "ignored"]
POLICIES: dict[Uncertainty, str] = {
    "positive": "uncertain labels count as positive, that is labels 1 and 3 as in the authors' code",
    "negative": "uncertain labels count as not positive",
    "ignored": "a condition of a study is left out where either label is uncertain",
}
"""What each policy does with CheXbert's label 3."""
DEFAULT: Uncertainty = "positive"
"""The authors' policy, and the one that every table of this project shows."""
TABLED = {"CE": "clinical_efficacy", "DC": "classification", "DC majority": "majority"}
"""Clinical scores of an evaluation: their names in tables, and in result files."""


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 in [0, 1]; a ratio with denominator 0 counts as 0."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClinicalEfficacy:
    """CE scores with everything needed to compare them."""

    label_set: str
    uncertainty: str
    studies: int
    macro: Score
    """Mean of the conditions' scores."""
    micro: Score
    """Score of the counts summed over studies and conditions."""
    example: Score
    """Mean of the studies' scores."""
    per_condition: dict[str, Score]
    support: dict[str, int]
    """Positive references of each condition."""

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries, for JSON."""
        return asdict(self)


def clinical_efficacy(
    references: Tensor,
    predictions: Tensor,
    *,
    label_set: str = "14",
    uncertainty: Uncertainty = DEFAULT,
) -> ClinicalEfficacy:
    """Precision, recall and F1 of the positive class: macro, micro and example averages.

    Blank and negative count as not positive. An uncertain label counts as positive, as negative, or, with
    ``"ignored"``, the entry (study, condition) is left out where either side is uncertain.
    Every ratio with denominator 0 is 0: a condition that is neither present nor predicted lowers
    the macro average, a study without positives lowers the example average.

    Args:
        references: (n, 14) int64 states (:class:`rrg.data.study.LabelState`), in the order of ``CONDITIONS``.
        predictions: (n, 14) int64 states.
        label_set: ``"14"`` or ``"5"`` (:data:`FIVE`).
        uncertainty: policy for the uncertain state.

    Raises:
        ValueError: for other shapes, unknown states, label sets or policies.

    Example:
        >>> reference = torch.zeros(2, 14, dtype=torch.int64)
        >>> reference[0, 1] = reference[1, 9] = LabelState.POSITIVE
        >>> prediction = reference.clone()
        >>> prediction[1, 9] = LabelState.NEGATIVE
        >>> clinical_efficacy(reference, prediction, label_set="5").micro
        Score(precision=1.0, recall=0.5, f1=0.666...)
    """
    if label_set not in LABEL_SETS:
        raise ValueError(f"label_set must be one of {sorted(LABEL_SETS)}, got {label_set!r}")
    conditions = LABEL_SETS[label_set]
    columns = [CONDITIONS.index(condition) for condition in conditions]
    expected, known = _positives(references, uncertainty, "references")
    produced, decided = _positives(predictions, uncertainty, "predictions")
    if expected.shape != produced.shape:
        raise ValueError(f"references have shape {tuple(expected.shape)}, predictions {tuple(produced.shape)}")
    use = (known & decided)[:, columns]
    expected, produced = expected[:, columns] & use, produced[:, columns] & use
    hits = expected & produced

    def counts(dim: int | tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        return hits.sum(dim), produced.sum(dim), expected.sum(dim)

    by_condition = _scores(*counts(0))
    macro, example = by_condition.mean(1), _scores(*counts(1)).mean(1)
    return ClinicalEfficacy(
        label_set=label_set,
        uncertainty=uncertainty,
        studies=len(expected),
        macro=_score(macro),
        micro=_score(_scores(*counts((0, 1)))),
        example=_score(example),
        per_condition={c: _score(by_condition[:, i]) for i, c in enumerate(conditions)},
        support=dict(zip(conditions, expected.sum(0).tolist(), strict=True)),
    )


def score_name(label_set: str = "14", uncertainty: Uncertainty = DEFAULT) -> str:
    """Name of a score in result files, which hold one for each label set and policy; by default the one in tables.

    Example:
        >>> score_name()
        '14 conditions, uncertain positive'
    """
    return f"{label_set} conditions, uncertain {uncertainty}"


def tabled(scores: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The clinical scores of an evaluation that tables show, by their names there; those it lacks are left out.

    Args:
        scores: of :func:`rrg.evaluate.evaluate`.

    Example:
        >>> tabled({"classification": {score_name(): {"micro": {"f1": 0.5}}}})
        {'DC': {'micro': {'f1': 0.5}}}
    """
    return {name: scores[key][score_name()] for name, key in TABLED.items() if scores.get(key)}


def _positives(states: Tensor, uncertainty: str, name: str) -> tuple[Tensor, Tensor]:
    """Positive entries, and the entries that count."""
    if states.dim() != 2 or len(states) == 0 or states.shape[1] != len(CONDITIONS):
        raise ValueError(f"{name} must have shape (n, {len(CONDITIONS)}), got {tuple(states.shape)}")
    if not torch.isin(states, torch.tensor([int(s) for s in LabelState])).all():
        raise ValueError(f"{name} holds states other than {[int(s) for s in LabelState]}")
    uncertain = states == LabelState.UNCERTAIN
    positive = states == LabelState.POSITIVE
    if uncertainty == "positive":
        return positive | uncertain, torch.ones_like(positive)
    if uncertainty == "negative":
        return positive, torch.ones_like(positive)
    if uncertainty == "ignored":
        return positive, ~uncertain
    raise ValueError(f"uncertainty must be positive, negative or ignored, got {uncertainty!r}")


def _scores(hits: Tensor, produced: Tensor, expected: Tensor) -> Tensor:
    """(3, ...) precision, recall and F1 = 2 hits / (produced + expected), 0 for 0/0."""
    numerators = torch.stack([hits, hits, 2 * hits]).double()
    denominators = torch.stack([produced, expected, produced + expected])
    return numerators / denominators.clamp_min(1)


def _score(values: Tensor) -> Score:
    return Score(*(float(value) for value in values))


def majority(references: Tensor, training: Tensor) -> Tensor:
    """The trivial predictions to beat: for every condition the commonest state of the training labels.

    Args:
        references: (n, C) int64, only its length is used.
        training: (N, C) int64.

    Returns:
        (n, C) int64.

    Example:
        >>> majority(torch.zeros(2, 2), torch.tensor([[0, 1], [0, 1], [1, 0]]))
        tensor([[0, 1],
                [0, 1]])
    """
    return training.mode(0).values.expand(len(references), -1)
