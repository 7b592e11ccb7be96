"""The same mathematics in torch and compiled, piece by piece; test_dual.py compares the dual in torch with cvxpy."""

import numpy as np
import torch
import zoo
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimizers import solve_dual
from optimizers.aggregators._came_grad_batched import adaptive_fusion, solve_stages
from optimizers.dual.batched import solve_batch, two_tasks
from optimizers.gradients.checks import check_gramian, gramian_tolerance
from optimizers.kernels.came_grad import adaptive_fusion as compiled_adaptive_fusion
from optimizers.kernels.came_grad import stage_rows
from optimizers.kernels.columns import (
    COEFFICIENTS,
    ENHANCED,
    RECTIFIED,
    RESIDUAL,
    RESOLVABLE,
    VALID,
    VALUE,
    dual_width,
    stages_width,
    start,
)
from optimizers.kernels.dual import power_of_two_above, solve_rows
from optimizers.kernels.floats import EPS, SOLVED
from optimizers.kernels.two_tasks import dual_two_tasks
from optimizers.kernels.validity import is_gramian
from optimizers.linalg import power_of_two

TOLERANCE = gramian_tolerance(torch.float64)


def compiled(M: Tensor, rho: float) -> Tensor:
    rows = np.empty((len(M), dual_width(M.shape[-1])))
    solve_rows(M.numpy(), rho, TOLERANCE, rows, 0, len(M))
    return torch.from_numpy(rows)


def batched(M: Tensor, rho: float) -> Tensor:
    return solve_batch(M, M.new_full((1, M.shape[-1]), 1.0 / M.shape[-1]), rho)


@settings(max_examples=300)
@given(G=zoo.gradients(max_tasks=24), rho=zoo.rhos)
def test_the_dual_in_torch_and_compiled_agree_or_the_kernel_says_so(G: zoo.Matrix, rho: float) -> None:
    """f(α) agrees to 1e-12 of ‖μ‖max‖g‖ and the gap is small, or the residual is above 1e-14 and the caller told."""
    M = torch.from_numpy(G @ G.T)[None]
    fast, slow = compiled(M, rho)[0], batched(M, rho)[0]
    if fast[RESIDUAL] <= SOLVED and slow[RESIDUAL] <= SOLVED:
        size = M.mean((1, 2)).clamp_min(0).sqrt() * M.diagonal(dim1=1, dim2=2).amax(-1).sqrt()
        assert abs(fast[VALUE] - slow[VALUE]) <= 1e-12 * size.item() + torch.finfo(torch.float64).tiny
    final = solve_dual(M, rho)
    assert final.residual.item() <= max(SOLVED, min(fast[RESIDUAL].item(), slow[RESIDUAL].item()))


@settings(max_examples=300)
@given(G=zoo.gradients(max_tasks=2), rho=zoo.rhos)
def test_two_tasks_in_torch_and_compiled_agree(G: zoo.Matrix, rho: float) -> None:
    """f at the two minimizers, to 1e-14 of ‖μ‖max‖g‖ and the rounding of ‖g_α‖² where g_α nearly vanishes."""
    M = torch.from_numpy(G @ G.T)
    if len(G) < 2 or not M.any():
        return
    M = M / power_of_two(M.diagonal().amax())
    b = M.mean(-1)
    if b.mean() <= 1e-12:
        return
    radius = rho * b.mean().sqrt()
    a, length = dual_two_tasks(M[0, 0].item(), M[0, 1].item(), M[1, 1].item(), *b.tolist(), radius.item())
    alpha = two_tasks(M[None], b[None], radius[None])[0]

    def value(alpha: Tensor) -> Tensor:
        return b @ alpha + radius * (alpha @ M @ alpha).clamp_min(0).sqrt()

    compiled_alpha = torch.tensor([a, 1 - a], dtype=torch.float64)
    size = b.mean().sqrt() * M.diagonal().amax().sqrt()
    assert abs(value(compiled_alpha) - value(alpha)) <= 1e-14 * size + radius * EPS**0.5
    assert abs(length - (compiled_alpha @ M @ compiled_alpha).clamp_min(0).sqrt()) <= EPS**0.5


PRODUCTS = st.floats(-4.0, 4.0) | st.sampled_from([0.0, 1.0, -1.0, 1e-17, -1e-17])


@settings(max_examples=500)
@given(st.lists(st.tuples(PRODUCTS, PRODUCTS), min_size=1, max_size=5), zoo.nus)
@example([(1.0, -3.0), (1.0, 1.0)], 0.5)
@example([(-1.0, -1.0)], 0.5)
@example([(-1.0, 3.0), (1.0, -9.0)], 0.5)
def test_adaptive_fusion_in_torch_and_compiled_agree(products: list[tuple[float, float]], limit: float) -> None:
    """Bit for bit, on the products g_iᵀu_en and κg_iᵀg_J themselves: the Gramian is the identity."""
    enhanced, joint = np.array(products).T
    compiled_nu = compiled_adaptive_fusion(np.eye(len(products)), joint, 1.0, enhanced, limit)
    assert compiled_nu == adaptive_fusion(torch.from_numpy(enhanced), torch.from_numpy(joint), limit).item()


@settings(max_examples=200)
@given(
    G=zoo.gradients(max_tasks=8), rho=zoo.rhos, kappa=zoo.kappas, nu=zoo.nus, weighted=st.booleans(),
    adapted=st.booleans(), data=st.data(),
)  # fmt: skip
def test_stages_in_torch_and_compiled_agree(
    G: zoo.Matrix, rho: float, kappa: float, nu: float, weighted: bool, adapted: bool, data: st.DataObject
) -> None:
    """The update from compiled and batched coefficients, relative to κ‖g_J‖, where both are solved and well posed."""
    tasks = len(G)
    M = torch.from_numpy(G @ G.T)[None]
    w = torch.tensor([data.draw(zoo.task_weights(tasks))], dtype=torch.float64)
    rows = np.empty((1, stages_width(tasks)))
    stage_rows(M.numpy(), w.numpy(), rho, kappa, nu, weighted, adapted, TOLERANCE, rows, 0, 1)
    fast, slow = torch.from_numpy(rows)[0], solve_stages(M, w, rho, kappa, nu, weighted, adapted)[0]
    if (
        fast[RESIDUAL] > SOLVED
        or slow[RESIDUAL] > SOLVED
        or slow[RESOLVABLE] > 1e-9
        or _near_a_threshold(M, w, slow, tasks)
    ):
        return
    at = start(COEFFICIENTS, tasks)
    update = torch.from_numpy(G.T) @ (fast[at : at + tasks] - slow[at : at + tasks])
    scale = kappa * (torch.from_numpy(G.T) @ w[0]).norm() + kappa * w.max() * np.linalg.norm(G, axis=1).max() * 1e-3
    assert update.norm() <= 1e-5 * scale + 1e-300
    assert fast[VALID] == slow[VALID] or abs(slow[VALUE]) <= 1e-12 * M.max()


def _near_a_threshold(M: Tensor, w: Tensor, row: Tensor, tasks: int) -> bool:
    """Where ‖μ‖, ‖g_J‖ or ‖u*‖ nearly vanish, or adaptive fusion jumps, rounding decides what comes next."""
    largest = M.diagonal(dim1=1, dim2=2).amax()
    rectified, enhanced = (row[start(vector, tasks) :][:tasks] for vector in (RECTIFIED, ENHANCED))
    short = torch.stack([rectified @ M[0] @ rectified, w[0] @ M[0] @ w[0], M.mean()])
    enhanced, joint = M[0] @ enhanced, M[0] @ w[0]
    flat = (enhanced.abs().amin() <= 1e-6 * enhanced.abs().amax()) | (joint.abs().amin() <= 1e-6 * joint.abs().amax())
    return bool((short <= 1e-8 * largest).any() or flat)


ENTRIES = st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0, 1.0 + 1e-9, float("nan"), float("inf"), 1e-320])


@given(values=st.lists(ENTRIES, min_size=4, max_size=4))
def test_validity_in_torch_and_compiled_agree(values: list[float]) -> None:
    M = torch.tensor(values, dtype=torch.float64).reshape(2, 2)
    try:
        check_gramian(M)
        valid = True
    except ValueError:
        valid = False
    assert is_gramian(M.numpy(), np.empty(2), TOLERANCE) == valid


@given(st.floats(2.0**-1023, 2.0**1022) | st.sampled_from([0.0, 1.0, 0.5]))
def test_powers_of_two_in_torch_and_compiled_agree(x: float) -> None:
    """The largest that is ≤ x and the smallest above it."""
    assert power_of_two_above(x) == (2 * power_of_two(torch.tensor(x, dtype=torch.float64)).item() if x else 1.0)
