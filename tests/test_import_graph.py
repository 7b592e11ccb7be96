"""The house stands: no circle of imports, every arrow between folders runs down, names and sizes as agreed."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from sde_mtl.book.import_graph import PACKAGES, ImportGraph, circle, read_import_graph, reduced, storeys

ROOT = Path(__file__).parents[1]
ORDER = {
    "optimizers": [
        {"errors", "files", "linalg", "kernels"},
        {"gradients"},
        {"dual"},
        {"aggregators"},
        {"training"},
        {"torchjd", "testing"},
    ],
    "sde_mtl": [
        {"random"},
        {"problems"},
        {"simulation"},
        {"theory"},
        {"gradient_logs", "method"},
        {"figures"},
        {"book"},
    ],
}
"""From the ground up; rooms of one set may know each other, if not in a circle."""
LISTS = {"theory", "aggregators", "methods"}
"""Folders that list things of one kind, one a file, and may be long."""


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    return read_import_graph(ROOT / package for package in PACKAGES)


@pytest.fixture(scope="module")
def folders(graph: ImportGraph) -> dict[str, Path]:
    """The ``__init__`` of every folder."""
    return {module: path for module, path in graph.files.items() if path.name == "__init__.py"}


def test_no_module_imports_itself_through_others(graph: ImportGraph) -> None:
    assert circle(graph.modules) == []


def test_every_arrow_between_folders_runs_down(graph: ImportGraph) -> None:
    assert circle(graph.rooms) == []


@pytest.mark.parametrize("package", ORDER)
def test_folders_stand_in_their_order(package: str, graph: ImportGraph) -> None:
    assert {f"{package}.{name}" for names in ORDER[package] for name in names} <= set(graph.rooms)
    assert upward(graph, package) == []


def upward(graph: ImportGraph, package: str) -> list[str]:
    """Imports from a room that stands higher."""
    height = {f"{package}.{name}": storey for storey, names in enumerate(ORDER[package]) for name in names}
    return [
        f"{found.source}:{found.line} imports {found.target}"
        for found in graph.imports
        if found.target in graph.files
        and height.get(graph.room(found.source), len(height)) < height.get(graph.room(found.target), 0)
    ]


@pytest.mark.parametrize(
    ("package", "others"),
    [("optimizers", {"sde_mtl", "rrg"}), ("sde_mtl", {"rrg"}), ("rrg", {"sde_mtl"})],
)
def test_packages_know_only_what_they_may(package: str, others: set[str], graph: ImportGraph) -> None:
    """Nor does any need what forces another build of torch on a fresh machine."""
    forbidden = others | {"torchvision", "timm", "torchxrayvision"}
    own = [found for found in graph.imports if found.source.split(".")[0] == package]
    assert [found for found in own if found.target.split(".")[0] in forbidden] == []
    assert len(own) > 100


def test_of_the_kernels_only_their_threads_know_torch(graph: ImportGraph) -> None:
    kernels = [module for module in graph.files if module.startswith("optimizers.kernels")]
    assert [module for module in kernels if "torch" in graph.others(module)] == ["optimizers.kernels.threads"]


def public(path: Path) -> tuple[set[str], set[str], bool]:
    """Names that an ``__init__`` defines or shows; those that their module bears too; whether there is ``__all__``."""
    names: set[str] = set()
    like_their_module: set[str] = set()
    declared = False
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.ImportFrom(module=str(module), names=aliases) if module.split(".")[0] in PACKAGES:
                shown = {alias.asname or alias.name for alias in aliases}
                like_their_module |= shown & {module.rpartition(".")[2]}
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                shown = {name}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                shown = {name}
            case _:
                shown = set()
        declared |= "__all__" in shown
        names |= {name for name in shown if not name.startswith("_")}
    return names, like_their_module, declared


def test_no_module_bears_the_name_of_what_its_package_exports(graph: ImportGraph, folders: dict[str, Path]) -> None:
    """Else ``package.name`` is the function or the module, whichever was imported last."""
    clashes = set()
    for folder, path in folders.items():
        names, like_their_module, _ = public(path)
        beside = {module.rpartition(".")[2] for module in graph.files if module.rpartition(".")[0] == folder}
        modules_shown = {name for name in names & beside if f"{folder}.{name}" in graph.modules[folder]}
        clashes |= {f"{folder}: {name}" for name in like_their_module | (names & beside) - modules_shown}
    assert clashes == set()


def test_a_folder_with_public_names_lists_them(folders: dict[str, Path]) -> None:
    shown = {folder: public(path) for folder, path in folders.items()}
    assert {folder: names for folder, (names, _, declared) in shown.items() if names and not declared} == {}


def test_every_folder_says_in_one_line_what_it_holds(folders: dict[str, Path]) -> None:
    first = {folder: (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
             for folder, path in folders.items()}  # fmt: skip
    assert {folder: text for folder, text in first.items() if not 10 < len(text) < 240 or text[-1] != "."} == {}


def test_folders_and_files_can_be_taken_in(graph: ImportGraph) -> None:
    sizes = Counter(path.parent for path in graph.files.values())
    assert [f"{path}: {size} files" for path, size in sizes.items() if size > 17 and path.name not in LISTS] == []
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in graph.files.items()}
    assert [f"{module}: {length} lines" for module, length in lengths.items() if length > 400] == []


# What the tests above would find.


def house(folder: Path, **sources: str) -> ImportGraph:
    """A package ``optimizers`` of made-up files; ``a__b`` is the file ``a/b.py``."""
    root = folder / "optimizers"
    for name, source in {"__init__": "", **sources}.items():
        path = root / f"{name.replace('__', '/') if name != '__init__' else name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(source)
    return read_import_graph([root])


IMPORTS = {
    "at the top": "from optimizers.dual.solve import x",
    "of the module from its folder": "from optimizers.dual import solve",
    "of the whole name": "import optimizers.dual.solve",
    "relative": "from ..dual import solve",
    "relative, of a name": "from ..dual.solve import x",
    "for types only": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from optimizers.dual.solve import x",
    "inside a function": "def f():\n    from optimizers.dual.solve import x",
    "by a literal": "import importlib\nx = importlib.import_module('optimizers.dual.solve')",
    "by a relative literal": "from importlib import import_module\nx = import_module('..dual.solve', __package__)",
}


@pytest.mark.parametrize("how", IMPORTS)
def test_an_import_is_found(how: str, tmp_path: Path) -> None:
    graph = house(tmp_path, dual__solve="x = 1", gradients__sums=IMPORTS[how])
    assert graph.modules["optimizers.gradients.sums"] == {"optimizers.dual.solve"}
    assert graph.rooms["optimizers.gradients"] == {"optimizers.dual"}


@pytest.mark.parametrize("how", IMPORTS)
def test_a_circle_and_an_arrow_upward_are_found(how: str, tmp_path: Path) -> None:
    down = "from optimizers.gradients.sums import y"
    graph = house(tmp_path, dual__solve=down, gradients__sums=IMPORTS[how])
    assert set(circle(graph.modules)) == {"optimizers.dual.solve", "optimizers.gradients.sums"}
    assert set(circle(graph.rooms)) == {"optimizers.dual", "optimizers.gradients"}
    assert len(upward(graph, "optimizers")) == 1
    assert "optimizers.gradients.sums" in upward(graph, "optimizers")[0]


def test_folders_in_a_circle_are_found_where_modules_are_not(tmp_path: Path) -> None:
    graph = house(
        tmp_path,
        dual__solve="from optimizers.gradients import sums",
        dual__cone="",
        gradients__sums="",
        gradients__checks="from optimizers.dual import cone",
    )
    assert circle(graph.modules) == []
    assert set(circle(graph.rooms)) == {"optimizers.dual", "optimizers.gradients"}


def test_what_is_only_text_is_no_import(tmp_path: Path) -> None:
    source = '"""from optimizers.dual.solve import x"""\n# import optimizers.dual\nname = "optimizers.dual.solve"\n'
    graph = house(tmp_path, dual__solve="import torch.nn, numpy as np", gradients__sums=source)
    assert graph.modules["optimizers.gradients.sums"] == set()
    assert graph.others("optimizers.dual.solve") == {"torch", "numpy"}


def test_public_names_are_found(tmp_path: Path) -> None:
    path = tmp_path / "__init__.py"
    path.write_text(
        "import os\nfrom typing import Any\nfrom optimizers.dual.solve import solve, other\n_a = b = 1\nC: int = 2\n"
    )
    assert public(path) == ({"solve", "other", "C"}, {"solve"}, False)
    path.write_text("from optimizers.dual._solve import solve\n__all__ = ['solve']\ndef __getattr__(name): ...\n")
    assert public(path) == ({"solve"}, set(), True)


def test_storeys_and_arrows_that_follow_from_others() -> None:
    arrows = {"d": ["c", "a"], "c": ["b"], "b": ["a"], "a": []}
    assert storeys(arrows) == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert reduced(arrows) == {"d": {"c"}, "c": {"b"}, "b": {"a"}, "a": set()}
