import pytest
import torch

from optimizers import gramian, linear, oracle
from optimizers.gradients._gramian import CHUNK, gramian_of_parameters


def test_chunks_add_up_in_float64() -> None:
    """In float32 the ones of a long gradient are lost beside a large entry; in float64 they are not."""
    g = torch.ones(2, 3 * CHUNK + 7)
    g[:, 0] = 2.0**13
    exact = 2.0**26 + 3 * CHUNK + 6
    assert gramian(g).tolist() == [[exact] * 2] * 2
    assert gramian_of_parameters([[row] for row in g]).tolist() == [[exact] * 2] * 2
    running = torch.zeros(())
    for chunk in g[0].split(CHUNK):
        running += chunk.square().cumsum(0)[-1]
    assert running.item() != exact


def test_by_parameter_equals_flat() -> None:
    shapes = [(3, 4), (1,), (), (2, 1, 5)]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(3)]
    flat = torch.stack([torch.cat([g.reshape(-1) for g in task]) for task in gradients])
    assert torch.allclose(gramian_of_parameters(gradients), gramian(flat), rtol=1e-14)


def test_batched_is_symmetric() -> None:
    M = gramian(torch.randn(4, 2, 3, 100_000))
    assert M.shape == (4, 2, 3, 3)
    assert torch.equal(M, M.mT)


def test_linear_is_the_weights() -> None:
    assert linear(torch.eye(3).expand(4, 3, 3)).tolist() == [[1.0] * 3] * 4
    assert linear(torch.eye(2), torch.tensor([0.0, 2.0])).tolist() == [0.0, 2.0]
    with pytest.raises(ValueError, match=r"task_weights\[0\] = -1.0"):
        linear(torch.eye(2), [-1.0, 2.0])


@pytest.mark.parametrize("solve", [oracle.primal, oracle.dual])
def test_oracle_refuses_bad_input(solve) -> None:
    with pytest.raises(ValueError, match="task 1 is not finite"):
        solve([[1.0], [float("nan")]], 0.5)
    with pytest.raises(ValueError, match=r"got \(2,\)"):
        solve([1.0, 2.0], 0.5)
    with pytest.raises(ValueError, match=r"rho = 1\.5"):
        solve([[1.0], [2.0]], 1.5)


def test_oracle_primal_and_dual_meet() -> None:
    G = torch.randn(5, 7).numpy()
    (u, primal), (_, dual) = oracle.primal(G, 0.5), oracle.dual(G, 0.5)
    assert primal == pytest.approx(dual, rel=1e-7)
    assert (G @ u).min() == pytest.approx(primal, rel=1e-6)
