"""Importing the package is cheap: optional and slow dependencies come with what uses them."""

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
import optimizers
loaded = [name for name in ("cvxpy", "scipy", "sympy", "torchjd", "torch.distributed.tensor") if name in sys.modules]
assert not loaded, loaded
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


def test_the_package_imports_no_solver() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
