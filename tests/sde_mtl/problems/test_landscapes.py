import pytest
import torch
from torch import Tensor

from optimizers import cagrad, came_grad_coefficients, gramian, linear
from sde_mtl.problems import CAGradToy, DoubleWell, FiniteSumRegression

PROBLEMS = [
    CAGradToy(),
    DoubleWell(1.0, sharp=5.0, flat=0.5, offset=0.7),
    DoubleWell(0.5, dimension=1),
    FiniteSumRegression.random(samples=40, dimension=3, tasks=4),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: type(p).__name__)
def test_gradients_are_those_of_the_losses(problem) -> None:
    """Central differences at 30 random points, and shapes with leading dimensions."""
    theta = torch.randn(5, 6, problem.dimension, dtype=torch.float64)
    gradients = problem.gradients(theta)
    assert gradients.shape == (5, 6, problem.tasks, problem.dimension)
    assert problem.losses(theta).shape == (5, 6, problem.tasks)
    for axis in range(problem.dimension):
        shift = torch.zeros(problem.dimension).double()
        shift[axis] = 1e-6
        numeric = (problem.losses(theta + shift) - problem.losses(theta - shift)) / 2e-6
        assert torch.allclose(gradients[..., axis], numeric, rtol=1e-4, atol=1e-5)


def train(problem: CAGradToy, aggregator, start: list[float], steps: int = 4000) -> Tensor:
    theta = torch.tensor([start], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.5]).double()
    for _ in range(steps):
        G = problem.gradients(theta)
        theta = theta - 0.02 * torch.einsum("nk,nkd->nd", aggregator(gramian(G), weights), G)
    return problem.losses(theta)[0]


@pytest.mark.slow
def test_conflict_averse_directions_escape_where_linear_scalarization_stalls() -> None:
    """The phenomenon for which the toy was made, from a start in a valley."""
    toy = CAGradToy()
    stalled, averse = train(toy, linear, [-8.5, 7.5]), train(toy, cagrad, [-8.5, 7.5])
    came = train(toy, came_grad_coefficients, [-8.5, 7.5])
    assert averse.mean() < stalled.mean() - 1 or came.mean() < stalled.mean() - 1


def test_wells() -> None:
    well = DoubleWell(0.3, sharp=8.0, flat=0.5, offset=0.4)
    assert well.losses(torch.tensor([0.0, 0.0]).double()).sum() > well.losses(torch.tensor([1.0, 0.0]).double()).sum()
    assert well._curvature(torch.tensor(-3.0)).item() == pytest.approx(8.0, abs=1e-3)
    assert well._curvature(torch.tensor(3.0)).item() == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(ValueError, match="height = 0 must be > 0"):
        DoubleWell(0)
    with pytest.raises(ValueError, match="dimension = 3"):
        DoubleWell(1, dimension=3)


def test_minibatch_noise_has_its_covariance_and_no_bias() -> None:
    """Mean within 5 SE of the full gradient, every covariance entry within 6 SE; half the batch is rejected."""
    problem = FiniteSumRegression.random(samples=50, dimension=2, tasks=2, seed=1)
    n, theta = 40_000, torch.tensor([0.3, -1.0]).double()
    g = problem.minibatch_gradients(theta.expand(n, 2), torch.arange(n), 3, batch_size=6, seed=9)
    centred = g - problem.gradients(theta)
    assert (centred.mean(0).abs() < 5 * g.std(0) / n**0.5).all()
    products = torch.einsum("nia,njb->niajb", centred, centred)
    error = products.std(0) / n**0.5
    exact = problem.noise_covariance(theta, batch_size=6)
    assert ((products.mean(0) - exact).abs() < 6 * error).all()
    assert ((products.mean(0) - problem.noise_covariance(theta, batch_size=3)).abs() > 6 * error).any()


def test_minibatches_do_not_depend_on_company() -> None:
    problem = FiniteSumRegression.random(samples=50, dimension=2, tasks=2)
    theta = torch.zeros(100, 2).double()
    together = problem.minibatch_gradients(theta, torch.arange(100), 0, batch_size=5, seed=0)
    alone = problem.minibatch_gradients(theta[:1], torch.tensor([42]), 0, batch_size=5, seed=0)
    assert torch.equal(together[42], alone[0])
    with pytest.raises(ValueError, match="inputs must be"):
        FiniteSumRegression(torch.zeros(3, 2), torch.zeros(4, 1))
