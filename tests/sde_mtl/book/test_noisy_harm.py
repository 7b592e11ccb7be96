import numpy as np
import pytest
import torch

from sde_mtl import AdditiveNoise
from sde_mtl.book import harm_under_noise, predicted_harm
from sde_mtl.theory import pair

WEIGHTS = (1.0, 4.0)


@pytest.mark.parametrize("correlation", [-0.7, 0.0, 0.7])
@pytest.mark.parametrize("task", [0, 1])
def test_simulation_meets_the_prediction(correlation: float, task: int) -> None:
    noise = AdditiveNoise.correlated([0.5, 0.5], correlation=correlation, dimension=2)
    share = harm_under_noise(pair(1.0, np.deg2rad(60)), WEIGHTS, noise, task=task)
    assert abs(share.measured - share.predicted) < 5 * max(share.error, 1e-4)


def test_forgetting_the_correlation_is_noticed() -> None:
    G = pair(1.0, np.deg2rad(150))
    share = harm_under_noise(G, WEIGHTS, AdditiveNoise.correlated([0.5, 0.5], correlation=-0.7, dimension=2))
    alone = predicted_harm(G, WEIGHTS, AdditiveNoise.correlated([0.5, 0.5], dimension=2))
    assert abs(share.measured - alone) > 5 * share.error


def test_harm_is_certain_or_impossible_without_much_noise() -> None:
    quiet = AdditiveNoise.correlated([1e-12, 1e-12], dimension=2)
    assert predicted_harm(pair(1.0, np.deg2rad(150)), WEIGHTS, quiet) == pytest.approx(1)
    assert predicted_harm(torch.eye(2).double(), WEIGHTS, quiet) == pytest.approx(0)
