"""The named properties: a statement, the check that could refute it, and the matrices to try.

Unless the property is about repeated calls, a state is reset and torch's random stream is seeded before each call, so a
method that draws is judged on one stream.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from optimizers.testing import checks
from optimizers.testing._subject import Subject
from optimizers.testing.checks import Case, Finding
from optimizers.testing.strategies import EXACT, KINDS, Matrix, gradients, task_weights

SCALES = (1.0, 0.0, 1e-30, 1e-10, 1e3, 1e5, 1e10, 1e15)
CONTRARY = (
    "integer_matrices", "in_conflict", "strongly_stationary", "weakly_stationary", "opposite_and_a_third",
    "badly_scaled",
)  # fmt: skip
"""Kinds on which tasks disagree."""


@dataclass(frozen=True)
class Property:
    """A named check.

    Attributes:
        name: in tables and in ``--require``.
        statement: what holds where it holds.
        find: subject, case → size of the violation, and what is wrong.
        kinds: of :data:`optimizers.testing.strategies.KINDS`.
        extra: a strategy for ``Case.extra``, given the shape (K, d).
        weights: whether weights are drawn (where the subject takes them); ones otherwise.
        excludes: subject → why the property is not applicable, or "".
    """

    name: str
    statement: str
    find: Callable[[Subject, Case], Finding]
    kinds: tuple[str, ...] = CONTRARY
    extra: Callable[[int, int], st.SearchStrategy[Any]] | None = None
    weights: bool = True
    excludes: Callable[[Subject], str] = lambda subject: ""


def _factors(tasks: int, width: int) -> st.SearchStrategy[float]:
    exponents = st.integers(-20, 20).map(lambda power: 2.0**power)
    return st.tuples(exponents, st.sampled_from([1.0, 3.0, 5.0])).map(lambda pair: pair[0] * pair[1])


def _scalings(tasks: int, width: int) -> st.SearchStrategy[Any]:
    several = st.lists(st.integers(1, 4), min_size=tasks, max_size=tasks)
    return st.tuples(st.integers(1, 3), st.integers(1, 3), several, several)


def _signed_permutations(tasks: int, width: int) -> st.SearchStrategy[Any]:
    width = -(-width // 4) * 4
    return st.tuples(st.permutations(range(width)), st.lists(st.sampled_from([1, -1]), min_size=width, max_size=width))


def _orders(tasks: int, width: int) -> st.SearchStrategy[Any]:
    return st.permutations(range(tasks))


def _any_scale(tasks: int, width: int) -> st.SearchStrategy[float]:
    return st.sampled_from(SCALES)


def _needs_weights(subject: Subject) -> str:
    return "" if subject.weighted else "takes no task weights"


PROPERTIES: dict[str, Property] = {
    check.name: check
    for check in (
        Property(
            "finite",
            "F(G) is finite and no call raises, at scales 0 and 1e-30 … 1e15",
            checks.finite,
            tuple(KINDS),
            _any_scale,
        ),
        Property(
            "expected_shape",
            "(K, d) gradients give a (d,) update, for every K and d",
            checks.expected_shape,
            tuple(KINDS),
        ),
        Property(
            "keeps_dtype_and_device",
            "the result has the dtype and device of the input; coefficients may be float64",
            checks.dtype_and_device,
            EXACT,
        ),
        Property(
            "input_unmodified", "the call leaves its arguments as they are", checks.input_unmodified, tuple(KINDS)
        ),
        Property(
            "deterministic",
            "a second call with the same argument gives the same bits",
            checks.deterministic,
            tuple(KINDS),
        ),
        Property(
            "batch_equals_loop",
            "a batch of Gramians gives what they give one by one",
            checks.batch,
            EXACT,
            excludes=checks.refuses_batches,
        ),
        Property(
            "permutation_invariant",
            "F(PG) = F(G): the order of the tasks (and their weights) does not matter",
            checks.permutation,
            EXACT,
            _orders,
        ),
        Property("positively_homogeneous", "F(c G) = c F(G) for c > 0", checks.homogeneous, EXACT, _factors),
        Property(
            "scale_invariant_direction", "F(c G) has the direction of F(G) for c > 0", checks.direction, EXACT, _factors
        ),
        Property("linear_under_scaling", "c ↦ F(diag(c) G) is linear on c > 0", checks.linear, EXACT, _scalings),
        Property(
            "rotation_equivariant",
            "F(G Q) = F(G) Q for orthogonal Q: coordinates do not matter",
            checks.rotation,
            EXACT,
            _signed_permutations,
        ),
        Property("non_conflicting", "g_iᵀF ≥ 0 for every task: nobody is harmed", checks.harm_to_some),
        Property("weakly_non_conflicting", "g_iᵀF ≥ 0 for some task: never is everybody harmed", checks.harm_to_all),
        Property(
            "no_loss_without_conflict",
            "where no two gradients conflict, nobody is harmed",
            checks.harm_to_some,
            ("without_conflict",),
        ),
        Property(
            "descends_mean", "μᵀF ≥ 0 with equal weights: the mean loss does not rise", checks.mean, weights=False
        ),
        Property(
            "descends_weighted_sum",
            "g_JᵀF ≥ 0 for all weights: the weighted loss does not rise",
            checks.weighted_sum,
            excludes=_needs_weights,
        ),
        Property(
            "vanishes_at_strong_stationarity",
            "F(G) = 0 where some w > 0 has wᵀG = 0",
            checks.vanishes,
            ("strongly_stationary",),
        ),
        Property(
            "strongly_stationary",
            "F(G) = 0 only where some w > 0 has wᵀG = 0",
            checks.vanishes_only,
            ("non_stationary", "weakly_stationary"),
        ),
    )
}


def cases(check: Property, subject: Subject, tasks: tuple[int, int]) -> st.SearchStrategy[Case]:
    """The cases on which a property is tried."""

    def with_weights(G: Matrix) -> st.SearchStrategy[Case]:
        ones = st.just(np.ones(len(G)))
        weights = task_weights(len(G)) if check.weights else ones
        extra = st.none() if check.extra is None else check.extra(*G.shape)
        return st.builds(
            Case,
            st.just(torch.from_numpy(G)),
            weights.map(torch.from_numpy) if subject.weighted else st.none(),
            extra,
        )

    return gradients(check.kinds, tasks).flatmap(with_weights)
