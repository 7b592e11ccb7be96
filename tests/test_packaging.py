import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_imports_from_an_empty_environment(tmp_path: Path) -> None:
    """Only the dependencies come from here; the three packages must come from the wheel, complete."""
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True, capture_output=True)
    program = (
        "import optimizers, sde_mtl, rrg, rrg.train, rrg.demo, sde_mtl.cli\n"
        "for package in (optimizers, sde_mtl, rrg):\n"
        "    assert package.__file__.startswith({venv!r}), package.__file__\n"
        "    import pathlib; assert (pathlib.Path(package.__file__).parent / 'py.typed').exists()\n"
        "from sde_mtl.book import kept_result\n"
        "assert str(kept_result('phases.json')).startswith({venv!r})\n"
    ).format(venv=str(tmp_path / "venv"))
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    subprocess.run([python, "-c", program], check=True, env=environment, cwd=tmp_path)
    console = tmp_path / "venv/bin/sde-mtl"
    shown = subprocess.run([console, "--help"], check=True, env=environment, capture_output=True, text=True)
    assert "verify" in shown.stdout
