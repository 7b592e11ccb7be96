"""What every aggregator of the Gramian keeps to, and what only some of them claim, over the zoo of matrices."""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import zoo
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from optimizers import cagrad, came_grad_coefficients, linear, mgda, pcgrad
from optimizers.aggregators._aligned_mtl import aligned_mtl
from optimizers.aggregators._imtl_g import imtl_g
from optimizers.aggregators._nash_mtl import nash_mtl

AGGREGATORS: dict[str, Callable[..., Tensor]] = {
    "linear": linear,
    "mgda": mgda,
    "pcgrad": pcgrad,
    "pcgrad, expectation": partial(pcgrad, order="expectation"),
    "cagrad": cagrad,
    "imtl-g": imtl_g,
    "aligned-mtl": aligned_mtl,
    "aligned-mtl, median": partial(aligned_mtl, scale="median"),
    "aligned-mtl, rmse": partial(aligned_mtl, scale="rmse"),
    "nash-mtl": nash_mtl,
    "nash-mtl, asymmetric": partial(nash_mtl, asymmetric=True),
    "came-grad": came_grad_coefficients,
    "came-grad, weighted centre": partial(came_grad_coefficients, center="weighted"),
}
names = pytest.mark.parametrize("name", AGGREGATORS)
SYMMETRIC = [name for name in AGGREGATORS if name != "pcgrad"]
DEGREE = {name: 0 if name.startswith("nash") else 1 for name in AGGREGATORS}
"""F(tG) = t^degree F(G), t > 0."""
WEIGHT_DEGREE = DEGREE | {"nash-mtl, asymmetric": 0.5}
"""F with tω is t^degree F with ω."""
NEVER_HARMS = ["mgda", "nash-mtl", "nash-mtl, asymmetric"]
DESCENDS = ["linear", "cagrad", "aligned-mtl", "aligned-mtl, median", "aligned-mtl, rmse", "came-grad, weighted centre"]
"""g_JᵀF ≥ 0."""
ZERO_WHERE_STATIONARY = ["mgda", "imtl-g", "nash-mtl", "nash-mtl, asymmetric"]
CONDITIONED = ("independent", "duplicated", "zero_row")
"""Kinds on which every method but Aligned-MTL's rank and IMTL-G's total is continuous."""


def update(name: str, G: zoo.Matrix, weights: object = None) -> zoo.Matrix:
    return np.asarray(AGGREGATORS[name](torch.from_numpy(G @ G.T), weights).numpy() @ G)


def longest(G: zoo.Matrix) -> float:
    return float(np.linalg.norm(G, axis=1).max())


def drawn_weights(seed: int, tasks: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 4, size=tasks))


def steep(name: str, G: zoo.Matrix) -> float:
    """How many times rounding is magnified, at most about: IMTL-G divides by a sum that may cancel, the inverse root
    and the bargaining solution by the Gramian's least eigenvalue."""
    norms = np.linalg.norm(G, axis=1)
    units = G[norms > 0] / norms[norms > 0, None]
    values = np.linalg.eigvalsh(units @ units.T)
    condition = 1 / max(values[values > 1e-10].min(initial=1.0), 1e-10)
    if name == "imtl-g":
        c = imtl_g(torch.from_numpy(G @ G.T)).abs().sum()
        return float(condition * max(1.0, float(c)) ** 2)
    return float(condition)


@names
@given(G=zoo.gradients(max_tasks=8), seed=zoo.seeds, exponent=zoo.exponents, zeros=st.booleans())
def test_finite_float64_of_the_right_shape(name: str, G: zoo.Matrix, seed: int, exponent: int, zeros: bool) -> None:
    """Every kind of matrix, at 61 scales, with weights of which some may be zero; the solvers reach their tolerance."""
    weights = drawn_weights(seed, len(G))
    if zeros and len(G) > 1:
        weights[seed % len(G)] = 0.0
    G = G * 10.0**exponent
    c = AGGREGATORS[name](torch.from_numpy(G @ G.T), weights)
    assert c.dtype == torch.float64
    assert c.shape == (len(G),)
    assert c.isfinite().all()


@names
@given(tasks=st.integers(1, 6), seed=zoo.seeds)
def test_what_is_no_gramian_but_passes_for_one_gives_no_nan(name: str, tasks: int, seed: int) -> None:
    """Symmetric, |M_ij| ≤ ‖g_i‖‖g_j‖, but indefinite: an answer, or an answer and a warning."""
    rng = np.random.default_rng(seed)
    norms = 10.0 ** rng.uniform(-3, 3, size=tasks)
    C = rng.uniform(-1, 1, size=(tasks, tasks))
    M = (np.triu(C, 1) + np.triu(C, 1).T + np.eye(tasks)) * np.outer(norms, norms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert AGGREGATORS[name](torch.from_numpy(M)).isfinite().all()


@names
@given(G=zoo.gradients(max_tasks=8), power=st.integers(-100, 100), seed=zoo.seeds)
def test_scaling_law_to_the_bit(name: str, G: zoo.Matrix, power: int, seed: int) -> None:
    """Powers of two commute with rounding: 2^power on G is 2^((degree − 1)·power) on the coefficients."""
    weights = drawn_weights(seed, len(G))
    M = torch.from_numpy(G @ G.T)
    plain, scaled = AGGREGATORS[name](M, weights), AGGREGATORS[name](M * 4.0**power, weights)
    assert torch.equal(plain * 2.0 ** ((DEGREE[name] - 1) * power), scaled)


@names
@given(G=zoo.gradients(kinds=CONDITIONED, max_tasks=8), factor=st.floats(1e-3, 1e3), seed=zoo.seeds)
def test_scaling_law_of_the_weights(name: str, G: zoo.Matrix, factor: float, seed: int) -> None:
    weights = drawn_weights(seed, len(G))
    plain, scaled = update(name, G, weights), update(name, G, weights * factor)
    expected = plain * factor ** WEIGHT_DEGREE[name]
    assert np.linalg.norm(scaled - expected) <= 1e-9 * steep(name, G) * np.linalg.norm(expected) + 1e-13 * longest(G)


@pytest.mark.parametrize("name", SYMMETRIC)
@given(G=zoo.gradients(kinds=CONDITIONED, max_tasks=7), seed=zoo.seeds)
def test_permuting_the_tasks_changes_nothing(name: str, G: zoo.Matrix, seed: int) -> None:
    """The update, since coefficients of duplicates may be shared otherwise."""
    order = np.random.default_rng(seed).permutation(len(G))
    weights = drawn_weights(seed, len(G))
    plain, permuted = update(name, G, weights), update(name, G[order], weights[torch.from_numpy(order)])
    size = longest(G) + np.linalg.norm(plain)
    assert np.linalg.norm(plain - permuted) <= 1e-7 * steep(name, G) ** 0.5 * size


def test_pcgrad_in_the_tasks_order_depends_on_it() -> None:
    """Negative control of the property above, and why it is left out there."""
    G = zoo.sample("independent", 5, 0)
    assert np.linalg.norm(update("pcgrad", G) - update("pcgrad", G[::-1].copy())) > 0.01 * longest(G)


@names
@given(G=zoo.gradients(kinds=CONDITIONED, max_tasks=7), seed=zoo.seeds)
def test_rotating_parameter_space_rotates_the_update(name: str, G: zoo.Matrix, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(G.shape[1], G.shape[1])))[0]
    plain, rotated = update(name, G), update(name, G @ Q)
    size = longest(G) + np.linalg.norm(plain)
    assert np.linalg.norm(plain @ Q - rotated) <= 1e-7 * steep(name, G) ** 0.5 * size


@names
@given(seed=zoo.seeds, tasks=st.integers(1, 6))
def test_a_batch_is_a_loop(name: str, seed: int, tasks: int) -> None:
    """Kinds that take different branches, over two leading dimensions, with weights of each problem."""
    kinds = ("independent", "duplicated", "zero_row", "stationary", "opposite", "zero")
    M = torch.stack([torch.from_numpy(G @ G.T) for G in (zoo.sample(kind, tasks, seed) for kind in kinds)])
    M = torch.stack([M, 1e-6 * M])
    weights = drawn_weights(seed, 12 * tasks).reshape(2, 6, tasks)
    together = AGGREGATORS[name](M, weights)
    assert together.shape == (2, 6, tasks)
    for index in np.ndindex(2, 6):
        alone = AGGREGATORS[name](M[index], weights[index])
        assert (together[index] - alone).norm() <= 1e-7 * (alone.norm() + weights[index].sum()), kinds[index[1]]


@pytest.mark.parametrize("name", NEVER_HARMS)
@given(G=zoo.gradients(max_tasks=12), seed=zoo.seeds)
def test_no_task_is_harmed(name: str, G: zoo.Matrix, seed: int) -> None:
    u = update(name, G, drawn_weights(seed, len(G)))
    assert (G @ u >= -1e-12 * np.linalg.norm(G, axis=1) * longest(G) * max(1.0, float(np.linalg.norm(u)))).all()


@pytest.mark.parametrize("name", [name for name in AGGREGATORS if name not in NEVER_HARMS])
def test_the_others_harm_some_task_somewhere(name: str) -> None:
    """Negative control: so no more is claimed than holds."""
    harmed = 0
    for seed in range(200):
        G = zoo.sample("independent", 4, seed) * np.array([[1.0], [0.1], [3.0], [1.0]])
        u = update(name, G, [1.0, 4.0, 1.0, 0.1])
        harmed += int((G @ u < -1e-6 * np.linalg.norm(G, axis=1) * np.linalg.norm(u)).any())
    assert harmed > 0


@pytest.mark.parametrize("name", DESCENDS)
@given(G=zoo.gradients(kinds=("independent", "low_rank", "duplicated", "zero_row", "badly_scaled")), seed=zoo.seeds)
def test_the_weighted_loss_descends(name: str, G: zoo.Matrix, seed: int) -> None:
    weights = drawn_weights(seed, len(G))
    joint, u = weights.numpy() @ G, update(name, G, weights)
    assert joint @ u >= -1e-9 * np.linalg.norm(joint) * longest(G)


@pytest.mark.parametrize(
    ("name", "rows", "weights"),
    [
        ("came-grad", [[10.0, 0.0], [-1.0, 0.1]], [0.01, 4.0]),
        ("imtl-g", [[1.0, 0.0, 0.1], [0.0, 1.0, 0.1], [0.16, 0.16, 0.06]], [1.0, 1.0, 1.0]),
    ],
)
def test_others_may_ascend_it(name: str, rows: list[list[float]], weights: list[float]) -> None:
    """Negative control: CAME-Grad at the paper's ν follows the mean loss (theory T6), IMTL-G's shares add up to one."""
    G = np.array(rows)
    joint, u = np.array(weights) @ G, update(name, G, weights)
    assert joint @ u < -0.1 * np.linalg.norm(joint) * np.linalg.norm(u)


@pytest.mark.parametrize("name", ZERO_WHERE_STATIONARY)
@given(tasks=st.integers(2, 9), seed=zoo.seeds, kind=st.sampled_from(["stationary", "opposite"]))
def test_it_stops_at_pareto_stationary_points(name: str, tasks: int, seed: int, kind: str) -> None:
    G = zoo.sample(kind, tasks, seed)
    assert np.linalg.norm(update(name, G, drawn_weights(seed, tasks))) <= 1e-6 * longest(G)


@pytest.mark.parametrize("name", [name for name in AGGREGATORS if name not in ZERO_WHERE_STATIONARY])
def test_the_others_move_on_at_some_pareto_stationary_point(name: str) -> None:
    """Negative control: e₁, −e₁ and e₂ have 0 in their hull."""
    moved = 0.0
    for rows in ([[1, 0], [-1, 0], [0, 1]], [[1, 0], [-3, 0]], [[1, 0], [-1, 1], [-1, -1]]):
        G = np.array(rows, dtype=float)
        moved = max(moved, float(np.linalg.norm(update(name, G))))
    assert moved > 0.1


@names
@given(G=zoo.gradients(kinds=CONDITIONED, max_tasks=6), seed=zoo.seeds)
def test_weights_are_weights_of_the_gradients(name: str, G: zoo.Matrix, seed: int) -> None:
    """F(G, ω) = F(diag(ω)G, 1), for all but those whose docstrings say otherwise."""
    assume(len(G) > 1)
    weights = drawn_weights(seed, len(G))
    direct, weighted = update(name, G, weights), update(name, G * weights.numpy()[:, None])
    size = longest(G) + np.linalg.norm(direct)
    same = np.linalg.norm(direct - weighted) <= 1e-7 * steep(name, G) * size
    otherwise = name.startswith("aligned") or name in ("came-grad", "nash-mtl, asymmetric")
    assert same or otherwise


@pytest.mark.parametrize("name", ["aligned-mtl", "came-grad", "nash-mtl, asymmetric"])
def test_those_that_say_otherwise_do_otherwise(name: str) -> None:
    G, weights = zoo.sample("independent", 3, 0), torch.tensor([1.0, 4.0, 0.5]).double()
    weighted = update(name, G * weights.numpy()[:, None])
    assert np.linalg.norm(update(name, G, weights) - weighted) > 0.1 * np.linalg.norm(weighted)


@names
@given(G=zoo.gradients(kinds=("independent", "zero_row"), max_tasks=6), exponent=st.integers(-12, 12))
def test_float32_gramians_are_computed_in_float64(name: str, G: zoo.Matrix, exponent: int) -> None:
    M = torch.from_numpy(G @ G.T * 10.0**exponent).float()
    M = (M + M.T) / 2
    assert torch.equal(AGGREGATORS[name](M), AGGREGATORS[name](M.double()))


@names
def test_one_task_goes_along_its_gradient(name: str) -> None:
    u = update(name, np.array([[3.0, 4.0]]), [2.0])
    assert u / np.linalg.norm(u) == pytest.approx([0.6, 0.8])
