"""The scales at which aggregators work lose nothing and overflow nowhere."""

import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st

from optimizers.aggregators.base import scaled, unit_gramian
from optimizers.linalg import power_of_two


@given(x=st.floats(allow_nan=False, allow_infinity=False))
def test_power_of_two(x: float) -> None:
    p = float(power_of_two(torch.tensor(x, dtype=torch.float64)))
    assert p > 0
    assert x == 0 or 1 <= abs(x / p) < 2
    assert float(torch.frexp(torch.tensor(p, dtype=torch.float64)).mantissa) == 0.5


@given(G=zoo.gradients(), power=st.integers(-200, 200))
def test_scaling_by_a_power_of_two_changes_no_bit(G: zoo.Matrix, power: int) -> None:
    M = torch.from_numpy(G @ G.T)
    plain, other = scaled(M, None), scaled(M * 2.0**power, None)
    assert torch.equal(plain.gramian, other.gramian)
    assert torch.equal(plain.gramian, plain.gramian.mT)


@given(G=zoo.gradients(kinds=("independent", "badly_scaled", "zero_row")), seed=zoo.seeds)
def test_the_weighted_gramian_is_that_of_the_weighted_gradients(G: zoo.Matrix, seed: int) -> None:
    weights = torch.rand(len(G), generator=torch.Generator().manual_seed(seed)).double() + 0.1
    rows = torch.from_numpy(G) * weights[:, None]
    found = scaled(torch.from_numpy(G @ G.T), weights)
    direct = rows @ rows.T
    assert torch.equal(found.weights * found.unit, weights)
    size = direct.abs().max()
    factor = found.weighted_gramian().abs().max() / size if size > 0 else 1.0
    assert torch.allclose(found.weighted_gramian(), direct * factor, rtol=1e-12, atol=1e-15 * float(size * factor))


def test_unit_gramian_leaves_absent_tasks_out() -> None:
    unit = unit_gramian(torch.tensor([[4.0, 0.0, 3.0], [0.0, 0.0, 0.0], [3.0, 0.0, 9.0]]), [1.0, 1.0, 1.0])
    assert unit.present.tolist() == [True, False, True]
    assert unit.cosines.tolist() == [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 1.0]]
    assert unit_gramian(torch.eye(2), [0.0, 1.0]).present.tolist() == [False, True]


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e300, 1.7e308])
def test_extreme_gramians_and_weights(size: float) -> None:
    M = size * torch.eye(2).double()
    for weights in ([1e300, 1e300], [1e-300, 1e-300], [1.7e308, 5e-324]):
        problem = scaled(M, weights)
        assert problem.weighted_gramian().isfinite().all()
        assert problem.gramian.diagonal().tolist() == [size / float(power_of_two(M[0, 0]))] * 2
        assert unit_gramian(M, weights).cosines.tolist() == [[1.0, 0.0], [0.0, 1.0]]
