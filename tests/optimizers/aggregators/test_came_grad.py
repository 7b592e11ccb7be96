import math

import numpy as np
import pytest
import torch

from optimizers import came_grad, came_grad_coefficients, came_grad_stages, gramian, oracle


def rows(*values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_audit_counterexample_stage_one_can_harm() -> None:
    """Theory T5: in d = 1, g = (1, −10), ρ = ½ the conflict-averse direction is −2.25 and harms task 0."""
    result = came_grad(rows((1.0,), (-10.0,)), rho=0.5)
    assert result.rectified.item() == pytest.approx(-2.25, abs=1e-14)
    assert not result.valid
    assert result.dual_value.item() == pytest.approx(-2.25)
    u, value = oracle.primal([[1.0], [-10.0]], 0.5)
    assert u.item() == pytest.approx(-2.25, abs=1e-8)
    assert value == pytest.approx(-2.25, abs=1e-8)


def test_audit_counterexample_fusion_can_undo_validity() -> None:
    """Theory T5: stage 1 improves both tasks, the fused update harms the second."""
    G = rows((-2.0, -2.0), (-1.0, 2.0))
    options = {"task_weights": [0.8, 0.2], "rho": 0.25, "kappa": 1.0, "nu": 0.9}
    result = came_grad(G, **options)
    assert result.valid
    assert (G @ result.rectified).min() > 0
    assert (G @ result.update).tolist() == pytest.approx([5.7389, -0.2426], abs=5e-5)
    kept = came_grad(G, **options, fusion="adaptive")
    assert (G @ kept.update).tolist() == pytest.approx([(G @ kept.update)[0].item(), 0.0], abs=1e-12)
    assert came_grad_stages(gramian(G), [0.8, 0.2], rho=0.25, kappa=1.0, nu=0.9, fusion="adaptive").fusion < 0.9


def test_all_stages_by_hand() -> None:
    """g = (3,0), (0,3), ω = (1,2): u* = 1.5·(1+ρ)(1,1)/… along the diagonal; ‖g_J‖ = √45."""
    result = came_grad(rows((3.0, 0.0), (0.0, 3.0)), [1.0, 2.0], rho=0.5, kappa=2.0, nu=0.25)
    assert result.mean.tolist() == [1.5, 1.5]
    assert result.joint.tolist() == [3.0, 6.0]
    assert result.alpha.tolist() == [0.5, 0.5]
    assert result.rectified.tolist() == pytest.approx([2.25, 2.25])
    along = 2 * math.sqrt(45) / math.sqrt(2)
    assert result.enhanced.tolist() == pytest.approx([along, along])
    assert result.update.tolist() == pytest.approx([0.75 * along + 0.5 * 3, 0.75 * along + 0.5 * 6])


def test_opposite_pair_and_a_third_take_the_projection_of_the_mean() -> None:
    """e₁, −e₁, e₂: g_α = 0 with μ ≠ 0, where equation 10 is undefined."""
    G = rows((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0))
    result = came_grad(G, rho=0.5)
    assert result.dual_value == 0
    assert result.valid
    assert result.rectified.numpy() == pytest.approx(oracle.nearest_non_conflicting(G.numpy()), abs=1e-6)


@pytest.mark.parametrize("G", [rows((1.0, 2.0), (-1.0, -2.0)), rows((0.0, 0.0), (0.0, 0.0))])
def test_vanishing_mean_leaves_the_joint_gradient(G: torch.Tensor) -> None:
    """μ = 0: u* = 0 and F = νκ g_J."""
    result = came_grad(G, [1.0, 3.0], kappa=2.0, nu=0.25)
    assert result.rectified.tolist() == result.enhanced.tolist() == [0.0, 0.0]
    assert result.update.tolist() == (0.5 * result.joint).tolist()


@pytest.mark.parametrize("tasks", [2, 3, 8])
def test_rectified_agrees_with_the_cone_solver(tasks: int) -> None:
    """A gap of 1e-9 leaves the cone solver's u, on the curved boundary, uncertain by its square root."""
    for seed in range(20):
        G = np.random.default_rng([seed, tasks]).normal(size=(tasks, 12))
        u, _ = oracle.primal(G, 0.5)
        assert came_grad(torch.from_numpy(G)).rectified.numpy() == pytest.approx(u, abs=5e-5)


def test_weighted_centre_is_stage_one_on_weighted_gradients() -> None:
    G, weights = torch.randn(4, 9, dtype=torch.float64), torch.tensor([1.0, 4.0, 0.5, 2.0])
    direct = came_grad(weights[:, None] * G)
    weighted = came_grad(G, weights, center="weighted")
    assert torch.allclose(weighted.rectified, direct.rectified, rtol=0, atol=1e-12)


def test_weighted_centre_ignores_tasks_of_weight_zero() -> None:
    """With ω = (1, 0) it is single-task training, whatever the second task wants."""
    G = rows((1.0, 0.5), (-3.0, 7.0))
    result = came_grad(G, [1.0, 0.0], center="weighted", kappa=1.0)
    assert result.update.tolist() == pytest.approx([1.0, 0.5])


def test_validity_certificate_for_two_tasks() -> None:
    """Theory T5: valid iff min_i cos(μ, g_i) ≥ −ρ, here on 2,000 random pairs, of which both kinds occur."""
    G = torch.randn(2000, 2, 3, dtype=torch.float64) * torch.tensor([1.0, 6.0])[:, None]
    mean = G.mean(-2, keepdim=True)
    cosine = torch.nn.functional.cosine_similarity(G, mean, dim=-1).amin(-1)
    valid = came_grad(G, rho=0.3).valid
    clear = (cosine + 0.3).abs() > 1e-9
    assert torch.equal(valid[clear], (cosine >= -0.3)[clear])
    assert 100 < valid.sum() < 1900


def test_adaptive_fusion_falls_back_where_nobody_can_be_spared() -> None:
    """d = 1, g = (1, −10): every update harms one task, so ν stays at its limit."""
    stages = came_grad_stages(gramian(rows((1.0,), (-10.0,))), nu=0.3, fusion="adaptive")
    assert stages.fusion == 0.3


def test_extreme_float64_scales_do_not_overflow() -> None:
    G = torch.randn(3, 5, dtype=torch.float64)
    plain = came_grad(G)
    for exponent in (-900, 900):
        scaled = came_grad(G * 2.0**exponent)
        assert torch.equal(scaled.update, plain.update * 2.0**exponent)


def test_weights_broadcast_against_a_batch() -> None:
    G = torch.randn(5, 2, 4)
    weights = torch.rand(5, 2) + 0.1
    together = came_grad(G, weights)
    for index in range(5):
        alone = came_grad(G[index], weights[index])
        assert torch.allclose(together.update[index], alone.update, rtol=1e-5)
    one_problem = came_grad(G[0], weights)
    assert one_problem.update.shape == (5, 4)


def test_inputs_are_not_changed() -> None:
    G = torch.randn(3, 4)
    before = G.clone()
    came_grad(G, torch.ones(3))
    assert torch.equal(G, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 1.0}, r"rho = 1.0 must lie in \[0, 1\)"),
        ({"rho": -0.5}, "rho = -0.5"),
        ({"kappa": 0.9}, "kappa = 0.9 must be finite and >= 1"),
        ({"kappa": math.inf}, "kappa = inf"),
        ({"kappa": math.nan}, "kappa = nan"),
        ({"nu": 1.1}, r"nu = 1.1 must lie in \[0, 1\]"),
        ({"nu": -0.1}, "nu = -0.1"),
        ({"center": "median"}, "center = 'median'"),
        ({"fusion": "none"}, "fusion = 'none'"),
        ({"task_weights": [1.0]}, r"each of the 2 tasks, got shape \(1,\)"),
        ({"task_weights": [1.0, -2.0]}, r"task_weights\[1\] = -2.0"),
        ({"task_weights": [math.nan, 1.0]}, r"task_weights\[0\] = nan"),
        ({"task_weights": [0.0, 0.0]}, "all zero"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        came_grad(torch.eye(2), **options)
    with pytest.raises(ValueError, match=message):
        came_grad_coefficients(torch.eye(2), **options)


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        (torch.zeros(3), r"got \(3,\)"),
        (torch.zeros(0, 3), "K >= 1"),
        (torch.zeros(2, 3, dtype=torch.int64), "int64"),
        (torch.zeros(2, 3, dtype=torch.float16), "float16"),
        (torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]), "task 1 is not finite"),
        (torch.tensor([[1.0, torch.inf], [0.0, 0.0]]), "task 0 is not finite"),
    ],
)
def test_bad_gradients_are_named(gradients: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        came_grad(gradients)
