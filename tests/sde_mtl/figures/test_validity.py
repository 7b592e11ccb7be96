import numpy as np
import pytest
import torch

from optimizers import came_grad
from sde_mtl.figures import validity

PAIR, WEIGHTS, RHO = [[-2.0, -2.0], [-1.0, 2.0]], [0.8, 0.2], 0.25


def test_products_over_the_fusion_share_are_those_of_the_update() -> None:
    axis = validity.fusion(PAIR, WEIGHTS, rho=RHO).axes[0]
    G = torch.tensor(PAIR).double()
    update = came_grad(G, WEIGHTS, rho=RHO, kappa=1.0, nu=0.9).update
    at = [float(np.interp(0.9, np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))) for line in axis.lines[:2]]
    assert at == pytest.approx((G @ update).tolist())


@pytest.mark.parametrize("rho", [0.2, 0.8])
def test_equally_long_gradients_are_never_inside_a_region_of_harm(rho: float) -> None:
    axis = validity.regions([rho], points=61).axes[0]
    vertices = np.concatenate([path.vertices for path in axis.collections[0].get_paths()])
    near = vertices[np.abs(np.log(vertices[:, 1])) < 0.05]
    assert len(vertices) > 10
    assert (near[:, 0] > 140).all(), "the boundary meets b = a at 180° only"
