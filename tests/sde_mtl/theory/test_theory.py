import json

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from sde_mtl.theory import (
    STATEMENTS,
    Check,
    descent,
    t01_interaction,
    t02_drift_deviation,
    t03_diffusion_decay,
    t05_validity,
)
from sde_mtl.theory.check import DerivationError, require

LONG = ("T6", "T7", "T10", "T11", "T13", "T14", "T15", "T16", "T18")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in sorted(STATEMENTS)]
)
def test_every_check_passes_and_every_statement_has_a_control(name: str) -> None:
    checks = STATEMENTS[name](0, 10_000)
    assert [row.id for row in checks if not row.passed] == []
    assert any(row.control for row in checks)
    assert len({row.id for row in checks}) == len(checks)
    json.dumps([row.as_dict() for row in checks])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_statistical_checks_do_not_hang_on_the_seed(seed: int) -> None:
    assert [row for row in STATEMENTS["T3"](seed, 10_000) if not row.passed] == []


def test_a_row_passes_only_within_its_tolerance() -> None:
    def row(error: float, control: bool = False) -> Check:
        return Check("X", "claim", 0.0, error, error, 1.0, "absolute", "by hand", control)

    assert row(1.0).passed
    assert not row(1.1).passed
    assert not row(float("nan")).passed
    assert row(1.1, control=True).passed
    assert not row(0.5, control=True).passed
    assert not row(float("nan"), control=True).passed
    assert (row(2.0).verdict, row(0.5, True).verdict) == ("FAILS", "NOT REJECTED")


def test_a_derivation_that_does_not_close_raises() -> None:
    with pytest.raises(DerivationError, match="does not close: 1 = 2"):
        require(1 == 2, "1 = 2")


def test_truncation_error_is_the_pairs_without_task_zero() -> None:
    rng = np.random.default_rng(0)
    G, w = rng.normal(size=(4, 6)), np.array([1.0, 2.0, 0.5, 3.0])
    M = G @ G.T
    missing = t01_interaction.squared_norm(M, w) - t01_interaction.truncated_squared_norm(M, w)
    by_hand = 2 * sum(w[i] * w[j] * M[i, j] for i in range(1, 4) for j in range(i + 1, 4))
    assert missing == pytest.approx(by_hand)
    assert t01_interaction.derive(3, 2) != 0


def test_drift_deviation_limits() -> None:
    """Parallel gradients deviate nowhere; opposite equal ones have no mean, so the angle is undefined."""
    assert t02_drift_deviation.predict(2.0, 0.0, [1, 1]).angle == pytest.approx(0, abs=1e-12)
    assert not t02_drift_deviation.predict(2.0, 0.0, [1, 1]).harms.any()
    strong = t02_drift_deviation.predict(10.0, np.deg2rad(150), [1, 1])
    assert strong.harms.tolist() == [True, False]
    assert strong.worst_joint < 0


@given(ratio=st.floats(0.05, 20), angle=st.floats(0.05, 3.1), rho=st.sampled_from([0.1, 0.5, 0.9]))
def test_rectified_is_never_worse_for_the_worst_task_than_the_mean(ratio: float, angle: float, rho: float) -> None:
    """u* maximizes min_i g_iᵀu over a ball around μ; ρ = 0 leaves μ itself."""
    g = np.array([[1.0, 0.0], [ratio * np.cos(angle), ratio * np.sin(angle)]])
    alpha = t02_drift_deviation.dual_weight(ratio, angle, rho)
    mean, combined = g.mean(0), alpha * g[0] + (1 - alpha) * g[1]
    u = mean + rho * np.linalg.norm(mean) * combined / np.linalg.norm(combined)
    assert (g @ u).min() >= (g @ mean).min() - 1e-9 * ratio**2


def test_stationary_laws_by_hand() -> None:
    """H = 2, Σ = 1, η = 0.1: continuous 0.1/4, discrete 0.01/(1 − 0.8²)."""
    law = t03_diffusion_decay.OrnsteinUhlenbeck(np.eye(1) * 2, np.ones(1), np.eye(1), 0.1)
    assert law.stationary().item() == pytest.approx(0.025)
    assert law.discrete_stationary().item() == pytest.approx(0.01 / 0.36)
    assert law.discrete_covariance(1).item() == pytest.approx(0.01)
    assert law.discrete_mean(1, [2.0]).item() == pytest.approx(1.8)
    assert law.mean(np.log(2) / 2, [2.0]).item() == pytest.approx(1.5)


def test_opposite_noise_leaves_no_diffusion() -> None:
    assert t03_diffusion_decay.trace_ratio([[1.0, -1.0], [-1.0, 1.0]], [1, 1]) == 0
    assert t03_diffusion_decay.trace_ratio([[1.0, 0.0], [0.0, 4.0]], [1, 3]) == 1


def test_validity_needs_two_tasks() -> None:
    with pytest.raises(ValueError, match="K = 2, got a Gramian of shape"):
        t05_validity.is_valid(np.eye(3))


def test_commuting_closed_forms_are_those_of_the_matrix_equations() -> None:
    """sympy's rotated 2×2 laws, lambdified, against scipy's Lyapunov solvers."""
    laws = t03_diffusion_decay.derive()
    values = {"h0": 0.7, "h1": 2.0, "v0": 1.0, "v1": 0.3, "eta": 0.05, "phi": 0.4, "t": 1.3}
    R = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    law = t03_diffusion_decay.OrnsteinUhlenbeck(
        R @ np.diag([0.7, 2.0]) @ R.T, np.zeros(2), R @ np.diag([1.0, 0.3]) @ R.T, 0.05
    )
    for name, expected in (
        ("covariance", law.covariance(1.3)),
        ("recursion", law.discrete_stationary()),
    ):
        symbols = sorted(laws[name].free_symbols, key=str)
        found = sympy.lambdify(symbols, laws[name])(*(values[str(symbol)] for symbol in symbols))
        assert np.allclose(found, expected, rtol=1e-10, atol=1e-14), name


def test_the_phase_diagram_of_few_steps_already_separates() -> None:
    """ν = 0.2 towards the mean's minimizer, ν = 0.8 towards the weighted one, equal weights as ν = 0.2."""
    diagram = descent.phase_diagram((0.2, 0.8), (0.3,), steps=400)
    assert diagram.position[0, 0] < 0.1 < 0.9 < diagram.position[0, 1]
    assert abs(diagram.control[0]) < 1e-3
