import itertools

import numpy as np
import pytest
import torch

from sde_mtl.theory.descent import came_grad_rule, chatter, descend, last, trajectories
from sde_mtl.theory.examples import WEIGHTS, example

RULE = came_grad_rule(torch.tensor(WEIGHTS).double(), nu=0.6)


@pytest.mark.parametrize("optimizer", [None, torch.optim.SGD, torch.optim.Adam])
def test_every_position_is_its_own_and_the_start_stays(optimizer: type[torch.optim.Optimizer] | None) -> None:
    start = torch.tensor([[2.0, 2.0], [0.6, 1.0]], dtype=torch.float64)
    positions = list(descend(start, RULE, 5, 0.05, optimizer=optimizer))
    assert len(positions) == 6
    assert start.tolist() == [[2.0, 2.0], [0.6, 1.0]]
    assert torch.equal(positions[0], start)
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(positions))
    assert torch.equal(positions[-1], last(descend(start, RULE, 5, 0.05, optimizer=optimizer)))


def test_gradient_descent_is_torch_sgd() -> None:
    start = torch.tensor([2.0, 2.0]).double()
    plain, sgd = (last(descend(start, RULE, 40, 0.05, decay=3.0, optimizer=o)) for o in (None, torch.optim.SGD))
    assert torch.allclose(plain, sgd, rtol=1e-12)
    assert not torch.allclose(plain, last(descend(start, RULE, 40, 0.05)), rtol=1e-3), "negative control: no decay"


def test_a_run_does_not_depend_on_those_beside_it() -> None:
    rates = torch.tensor([[0.01], [0.05]]).double()
    both = last(descend(torch.full((2, 2), 2.0).double(), RULE, 30, rates))
    alone = last(descend(torch.full((1, 2), 2.0).double(), RULE, 30, rates[1:]))
    assert torch.equal(both[1:], alone)


def test_trajectories_begin_together_and_end_at_their_minimizers() -> None:
    paths = trajectories([[1.0, 4.0], [4.0, 1.0]], 0.6)
    assert paths.shape == (1501, 2, 2)
    assert np.array_equal(paths[0, 0], paths[0, 1])
    for run, weights in enumerate(([1.0, 4.0], [4.0, 1.0])):
        assert np.abs(paths[-1, run] - example().minimizer(weights).numpy()).max() < 0.02


def test_only_the_mean_centre_chatters() -> None:
    loud, quiet = chatter([0.01], steps=600), chatter([0.01], center="weighted", steps=600)
    assert loud[0] > 1e-3 > 1e-6 > quiet[0]
