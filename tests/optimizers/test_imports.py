"""Importing the packages is cheap: optional and slow dependencies come with what uses them."""

import subprocess
import sys
from pathlib import Path

import pytest

SLOW = {
    "optimizers": (
        "numba", "cvxpy", "scipy", "sympy", "transformers", "tensorboard", "torchjd", "hypothesis", "matplotlib",
        "pyarrow", "torch.distributed.tensor",
    ),
    "rrg": ("numba", "cvxpy", "scipy", "sympy", "transformers", "matplotlib", "pyarrow", "tensorboard", "torchjd"),
    "sde_mtl": ("numba", "transformers", "matplotlib", "pyarrow", "tensorboard", "torchjd", "hypothesis"),
}  # fmt: skip
USE = """
import sys
import optimizers
optimizers.oracle.primal
assert "cvxpy" in sys.modules
from optimizers import *
assert callable(oracle.dual)
try:
    optimizers.nothing
except AttributeError as error:
    assert "'optimizers' has no attribute 'nothing'" in str(error)
else:
    raise AssertionError("no error")
"""


def run(code: str) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(package: str, names: tuple[str, ...]) -> list[str]:
    """Which of the modules are there after the package was imported."""
    return run(f"import sys, {package}; print(*[n for n in {names} if n in sys.modules])").split()


@pytest.mark.parametrize("package", SLOW)
def test_a_package_imports_nothing_slow(package: str) -> None:
    assert loaded(package, SLOW[package]) == []


def test_what_is_imported_is_found() -> None:
    """Negative control."""
    assert loaded("optimizers.oracle", SLOW["optimizers"])[:1] == ["cvxpy"]
    assert loaded("optimizers.kernels.gradients", ("numba",)) == ["numba"]


def test_the_theory_imports_no_solver() -> None:
    assert loaded("sde_mtl", ("cvxpy",)) == []


def test_the_oracle_comes_with_its_first_use() -> None:
    run(USE)
