"""One version: of the three packages, of the distribution, and of what is cited."""

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import optimizers
import rrg
import sde_mtl
from optimizers import _version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def test_packages_project_and_citation_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert [optimizers.__version__, sde_mtl.__version__, rrg.__version__, citation] == [project] * 4


def test_sources_that_were_not_installed_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(_version, "version", missing)
    assert optimizers.__version__ == sde_mtl.__version__ == rrg.__version__ == "0+unknown"


@pytest.mark.parametrize("package", ["optimizers", "sde_mtl", "rrg"])
def test_the_version_is_looked_up_when_it_is_asked_for(package: str) -> None:
    program = f"import sys, {package}; print('optimizers._version' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute '__versions__'"):
        _ = importlib.import_module(package).__versions__
