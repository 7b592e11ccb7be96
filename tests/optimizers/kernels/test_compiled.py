"""How the compiled kernels solve: alone and in a batch, in threads, after a fork, and what they leave to torch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.caching import IndexDataCacheFile
from torch import Tensor

from optimizers import came_grad, came_grad_coefficients, came_grad_stages, solve_dual
from optimizers.dual.batched import solve_batch
from optimizers.kernels.cholesky import append, delete
from optimizers.kernels.columns import RESIDUAL, VALUE, dual_width
from optimizers.kernels.compiled import CodeFiles, source_stamp
from optimizers.kernels.dual import solve_rows

TOLERANCE = 2.0**-26
WELL_POSED_GAP = 1e-14


def compiled(M: Tensor, rho: float, tolerance: float = TOLERANCE) -> Tensor:
    rows = np.empty((len(M), dual_width(M.shape[-1])))
    solve_rows(M.numpy(), rho, tolerance, rows, 0, len(M))
    return torch.from_numpy(rows)


def batched(M: Tensor, rho: float) -> Tensor:
    return solve_batch(M, M.new_full((1, M.shape[-1]), 1.0 / M.shape[-1]), rho)


@settings(max_examples=100)
@given(tasks=st.integers(2, 32), seed=zoo.seeds, rho=zoo.rhos, exponent=zoo.exponents)
def test_independent_gradients_are_solved_by_the_kernel_alone_to_1e14(
    tasks: int, seed: int, rho: float, exponent: int
) -> None:
    G = zoo.sample("independent", tasks, seed) * 10.0**exponent
    rows = compiled(torch.from_numpy(G @ G.T)[None], rho)
    assert rows[0, RESIDUAL] <= WELL_POSED_GAP


@settings(max_examples=60)
@given(kind=st.sampled_from(zoo.WELL_POSED), tasks=st.integers(2, 6), seed=zoo.seeds, count=st.integers(1, 40))
def test_a_problem_has_the_same_answer_alone_and_in_a_batch(kind: str, tasks: int, seed: int, count: int) -> None:
    M = torch.stack([torch.from_numpy(G @ G.T) for G in (zoo.sample(kind, tasks, seed + i) for i in range(count))])
    together = came_grad_coefficients(M)
    for index in range(count):
        assert torch.equal(together[index], came_grad_coefficients(M[index]))
        assert torch.equal(together[index], came_grad_stages(M[index]).coefficients)


def test_threads_change_nothing() -> None:
    """A batch long enough to be cut gives the bits that one thread gives."""
    G = torch.randn(20_000, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    M = G @ G.mT
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = came_grad_coefficients(M), solve_dual(M).alpha
        torch.set_num_threads(2)
        several = came_grad_coefficients(M), solve_dual(M).alpha
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(alone, several, strict=True):
        assert torch.equal(a, b)


def test_a_bad_problem_in_any_piece_is_named() -> None:
    M = torch.eye(3, dtype=torch.float64).repeat(10_000, 1, 1)
    M[9_999, 1, 1] = torch.nan
    with pytest.raises(ValueError, match=r"task 1 of problem \(9999,\) is not finite"):
        came_grad_coefficients(M)


def test_a_zero_gradient_and_a_pareto_stationary_point_are_left_to_the_batched_method() -> None:
    """The kernel says that it has no answer; the public function has one."""
    for G in ([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]):
        g = torch.tensor(G, dtype=torch.float64)
        M = (g @ g.T)[None]
        assert compiled(M, 0.5)[0, RESIDUAL] == torch.inf
        solution = solve_dual(M, 0.5)
        assert bool(solution.converged.all())
        assert torch.equal(solution.value, batched(M, 0.5)[:, VALUE])


@settings(max_examples=100)
@given(tasks=st.integers(1, 12), seed=zoo.seeds, position=st.integers(0, 11))
def test_the_factor_follows_its_support(tasks: int, seed: int, position: int) -> None:
    """RᵀR = M_SS, Rᵀp = e and Rᵀq = b after every row appended and one deleted."""
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(tasks, tasks + 3))
    G /= np.linalg.norm(G, axis=1, keepdims=True)
    M, e, b = G @ G.T, rng.random(tasks), rng.normal(size=tasks)
    R, p, q = np.empty((tasks, tasks)), np.empty(tasks), np.empty(tasks)
    for k in range(tasks):
        column = np.zeros(tasks)
        column[:k] = M[:k, k]
        assert append(R, p, q, column, e[k], b[k], k, 1e-10)
    keep = [i for i in range(tasks) if i != position]
    if position < tasks:
        delete(R, p, q, position, tasks)
    k = len(keep)
    upper = np.triu(R[:k, :k], 1) + np.diag(1 / np.diagonal(R)[:k])
    assert upper.T @ upper == pytest.approx(M[np.ix_(keep, keep)], abs=1e-12)
    assert upper.T @ p[:k] == pytest.approx(e[keep], abs=1e-12)
    assert upper.T @ q[:k] == pytest.approx(b[keep], abs=1e-12)


def test_a_dependent_row_is_refused() -> None:
    R, p, q = np.empty((2, 2)), np.empty(2), np.empty(2)
    assert append(R, p, q, np.zeros(2), 1.0, 1.0, 0, 1e-10)
    assert not append(R, p, q, np.array([1.0, 0.0]), 1.0, 1.0, 1, 1e-10)


def test_results_refuse_gradients_changed_after_them() -> None:
    G = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    result = came_grad(G)
    update = result.update.clone()
    G.zero_()
    assert torch.equal(result.update, update)
    with pytest.raises(RuntimeError, match="changed in place after came_grad"):
        _ = result.rectified


@pytest.mark.slow
def test_a_forked_process_has_threads_of_its_own() -> None:
    """A fork inherits the pool but not its threads; a kernel there must not wait for them for ever."""
    script = """
import multiprocessing, torch
from optimizers import came_grad_coefficients
M = torch.eye(3, dtype=torch.float64).repeat(20_000, 1, 1)
torch.set_num_threads(2)
def solve():
    assert came_grad_coefficients(M).numpy().all()
solve()
child = multiprocessing.get_context("fork").Process(target=solve)
child.start(); child.join(60)
assert child.exitcode == 0, child.exitcode
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_an_edit_of_any_kernel_makes_others_compile_anew(folder: str, tmp_path: Path) -> None:
    """Numba alone would keep a caller whose own file did not change, and run the old code that it was compiled with."""
    package = tmp_path / "edited"
    (package / folder).mkdir(parents=True)
    for parent in {package, package / folder}:
        (parent / "__init__.py").touch()
    called = "from optimizers.kernels.compiled import kernel\n@kernel\ndef called(x):\n    return x + {}\n"
    callee = package / folder / "callee.py"
    callee.write_text(called.format(1))
    (package / "caller.py").write_text(
        f"from edited{'.' if folder else ''}{folder}.callee import called\n"
        "from optimizers.kernels.compiled import kernel\n@kernel\ndef caller(x):\n    return called(x)\n"
    )
    command = [sys.executable, "-c", "from edited.caller import caller; print(caller(1))"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    assert subprocess.check_output(command, env=environment) == b"2\n"
    index = next((package / "__pycache__").glob("caller*.nbi"))
    kept = index.stat().st_mtime_ns
    assert subprocess.check_output(command, env=environment) == b"2\n"
    assert index.stat().st_mtime_ns == kept, "an unchanged kernel must not be compiled again"
    callee.write_text(called.format(10))
    assert subprocess.check_output(command, env=environment) == b"11\n"


@pytest.mark.parametrize(("files", "safe"), [(CodeFiles, True), (IndexDataCacheFile, False)])
def test_processes_that_compile_at_once_keep_their_own_code(
    files: type[IndexDataCacheFile], safe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw an empty folder; the second writes between the two writes of the first. Numba alone mixes them up."""
    first, second = (files(str(tmp_path), "function", "stamp") for _ in range(2))
    write = first._save_data

    def after_the_second(name: str, data: str) -> None:
        monkeypatch.setattr(second, "_load_index", dict)
        second.save("float32", "code for float32")
        monkeypatch.undo()
        write(name, data)

    monkeypatch.setattr(first, "_save_data", after_the_second)
    first.save("float64", "code for float64")
    assert files(str(tmp_path), "function", "stamp").load("float64") in (None, "code for float64")
    assert (files(str(tmp_path), "function", "stamp").load("float32") == "code for float32") == safe


def test_an_edit_of_a_constant_makes_kernels_compile_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stamp, read = source_stamp.__wrapped__, Path.read_bytes
    before = stamp("optimizers.kernels.dual")
    assert stamp("optimizers.kernels.dual") == before
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == "floats.py"))
    assert stamp("optimizers.kernels.dual") != before


def test_a_float32_gramian_that_the_kernel_leaves_unsolved_keeps_the_tolerance_of_float32() -> None:
    M = torch.tensor([[1.0, 0.3, 0.0], [0.3 + 1e-5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert compiled(M[None].double(), 0.5, 2.0**-11.5)[0, RESIDUAL] == torch.inf
    assert torch.equal(came_grad_coefficients(M), came_grad_stages(M).coefficients)
