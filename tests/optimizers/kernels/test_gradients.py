"""The compiled Gramian and weighted sum against float64 matrix products, whatever the gradients look like."""

from collections.abc import Callable
from itertools import chain

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimizers.gradients._gramian import LONG, gramian, gramian_of_parameters
from optimizers.gradients._weighted_sum import GROUP, weighted_sum
from optimizers.gradients.addresses import addresses
from optimizers.kernels.gradients import BLOCK

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda g: g,
    "transposed": lambda g: g.t().contiguous().t(),
    "expanded": lambda g: g[:1].expand_as(g),
    "one number": lambda g: g[:1, :1].expand_as(g),
    "every other column": lambda g: torch.stack([g, g], -1).flatten(-2)[:, ::2],
    "a part of a longer one": lambda g: torch.cat([g.flatten(), g.flatten()])[1 : 1 + g.numel()].view_as(g),
    "negative view": lambda g: torch.complex(torch.zeros_like(g), -g).conj().imag if g.dtype in DTYPES[:2] else g,
}

some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def task_gradients(draw: st.DrawFn) -> list[list[Tensor | None]]:
    """K lists of P gradients of mixed sizes, dtypes and layouts, some of them None."""
    tasks = draw(st.integers(1, 7))
    sizes = st.tuples(st.integers(1, 7), st.sampled_from([0, 1, 5, 64, 701, BLOCK]))
    shapes = draw(st.lists(st.tuples(sizes, st.sampled_from(DTYPES)), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    same = draw(st.booleans())
    columns = []
    for shape, dtype in shapes:
        layout = draw(st.sampled_from(list(LAYOUTS)))
        column: list[Tensor | None] = []
        for _ in range(tasks):
            layout = layout if same else draw(st.sampled_from(list(LAYOUTS)))
            g = torch.randn(shape, generator=generator).to(dtype)
            column.append(None if draw(st.integers(0, 4)) == 0 else LAYOUTS[layout](g))
        columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]


def matrix(gradients: list[list[Tensor | None]]) -> Tensor:
    """(K, d) float64."""
    columns = []
    for column in zip(*gradients, strict=True):
        like = next((g for g in column if g is not None), torch.zeros(0))
        columns.append(
            torch.stack([torch.zeros(like.numel()) if g is None else g.reshape(-1).double() for g in column])
        )
    return torch.cat([column.double() for column in columns], 1)


@some
@given(task_gradients())
def test_the_gramian_is_that_of_the_matrix(gradients: list[list[Tensor | None]]) -> None:
    found, G = gramian_of_parameters(gradients), matrix(gradients)
    lengths = G.norm(dim=1)
    assert ((found - G @ G.T).abs() <= 1e-13 * torch.outer(lengths, lengths)).all()
    assert torch.equal(found, found.T)


@some
@given(task_gradients(), st.data())
def test_the_sum_is_that_of_the_matrix(gradients: list[list[Tensor | None]], data: st.DataObject) -> None:
    factors = data.draw(st.lists(st.floats(-4, 4), min_size=len(gradients), max_size=len(gradients)))
    before = [[None if g is None else g.clone() for g in of_task] for of_task in gradients]
    kept = [list(of_task) for of_task in gradients]
    found = weighted_sum(gradients, factors, release=True)
    for position, part in enumerate(found):
        column = [of_task[position] for of_task in kept]
        present = [(c, g) for c, g in zip(factors, column, strict=True) if g is not None]
        assert (part is None) == (not present)
        if part is None:
            continue
        assert (part.dtype, part.shape) == (present[0][1].dtype, present[0][1].shape)
        exact = sum(c * g.double() for c, g in present)
        size = sum(abs(c) * g.double().abs() for c, g in present)
        rounding = torch.finfo(part.dtype).eps * len(present)
        assert ((part.double() - exact).abs() <= rounding * size + torch.finfo(part.dtype).tiny).all()
    assert all(g is None for of_task in gradients for g in of_task)
    for g, copy in zip(chain(*kept), chain(*before), strict=True):
        assert g is None or torch.equal(g, copy), "a gradient was written into"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_shares_no_memory_with_gradients(layout: str, dtype: torch.dtype) -> None:
    """Not even of one task with the factor 1; and each sum is its own."""
    g = LAYOUTS[layout](torch.randn(3, 5).to(dtype))
    first, second = weighted_sum([[g, g]], [1.0])
    first.mul_(2.0)
    assert torch.equal(second, g)
    assert torch.equal(first, 2 * g)
    assert len({t.untyped_storage().data_ptr() for t in (g, first, second)}) == 3


@some
@given(st.integers(1, 9), st.sampled_from([LONG - 1, LONG, 3 * BLOCK + 5]), st.sampled_from(DTYPES), st.integers(0, 5))
def test_a_matrix_and_a_batch(tasks: int, flat: int, dtype: torch.dtype, kind: int) -> None:
    g = torch.randn(2, tasks, flat, generator=torch.Generator().manual_seed(kind)).to(dtype)
    g = (g, g.mT.contiguous().mT, g[:1].expand_as(g), g[:, :1].expand_as(g), g[0], g[..., ::2])[kind]
    exact = g.double() @ g.double().mT
    lengths = g.double().norm(dim=-1)
    found = gramian(g)
    assert found.shape == exact.shape
    assert ((found - exact).abs() <= 1e-13 * lengths[..., :, None] * lengths[..., None, :]).all()
    assert torch.equal(found, found.mT)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_entries(threads: int) -> None:
    sizes = [5, 70_000, 1, 40_000, 2 * GROUP + 3]
    gradients: list[list[Tensor | None]] = [[torch.randn(n) for n in sizes] for _ in range(3)]
    gradients[1][1] = None
    G = matrix(gradients)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        M, update = gramian_of_parameters(gradients), weighted_sum(gradients, [1.0, -2.0, 0.5])
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(M, G @ G.T, rtol=1e-12)
    exact = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) @ G
    assert torch.allclose(torch.cat(update).double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 3 * BLOCK + 6])
def test_what_is_not_finite_is_seen(bad: float, place: int) -> None:
    """Sums may be taken in any order, but no NaN is lost in them."""
    gradients = [torch.randn(3 * BLOCK + 7) for _ in range(3)]
    gradients[1][place] = bad
    M = gramian_of_parameters([[g] for g in gradients])
    assert M.isfinite().tolist() == [[True, False, True], [False, False, False], [True, False, True]]
    (update,) = weighted_sum([[g] for g in gradients], [1.0, 1.0, 1.0])
    assert update.isfinite().logical_not().nonzero().tolist() == [[place]]


def test_gradients_of_gradients_and_transforms_stay_with_torch() -> None:
    G = torch.randn(2, LONG, dtype=torch.float64, requires_grad=True)
    gramian(G).sum().backward()
    assert torch.allclose(G.grad, 2 * G.detach().sum(0).expand_as(G))
    batch = torch.randn(3, 2, LONG)
    assert torch.allclose(torch.func.vmap(gramian)(batch), gramian(batch), rtol=1e-12)
    assert addresses([G]) is None
    assert gramian_of_parameters([[g] for g in G]).requires_grad


def test_the_kernel_is_what_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain gradients go to it, and a wrong one is noticed by the comparison above."""
    import optimizers.kernels.gradients as kernels

    right = kernels.gramian_range
    monkeypatch.setattr(kernels, "gramian_range", lambda *arguments: right(*arguments) * (1 + 1e-9))
    g = torch.randn(2, LONG)
    exact = g.double() @ g.double().T
    assert not torch.allclose(gramian(g), exact, rtol=1e-12)
    assert not torch.allclose(gramian_of_parameters([[row] for row in g]), exact, rtol=1e-12)
    assert torch.allclose(gramian(g.bfloat16()), g.bfloat16().double() @ g.bfloat16().double().T, rtol=1e-12)
