"""The import graph of the packages, read from their sources; nothing is imported, so that a circle is found, not met.

Every import counts: at the top of a file, inside a function, under ``TYPE_CHECKING``, and by
``importlib.import_module`` where its argument is a literal. A folder of a package is a *room*, with all that is inside,
and so is a file at the package's root; the ``__init__`` of a package is its facade, which stands above what it shows.
"""

import ast
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = ("optimizers", "sde_mtl", "rrg")


@dataclass(frozen=True, order=True)
class Import:
    """One import in the source of a module.

    Attributes:
        source: the module that imports, such as ``optimizers.dual.solve``.
        target: the module that is imported; of other distributions only the first part, such as ``torch``.
        line: where, counted from one.
    """

    source: str
    target: str
    line: int


@dataclass(frozen=True)
class ImportGraph:
    """Modules and the arrows between them.

    Attributes:
        files: the source of every module, by its dotted name; a folder's ``__init__`` bears the folder's name.
        imports: all imports of all modules, in order.
    """

    files: Mapping[str, Path]
    imports: tuple[Import, ...]

    @cached_property
    def modules(self) -> dict[str, set[str]]:
        """The modules of these packages that each module imports."""
        arrows: dict[str, set[str]] = {module: set() for module in self.files}
        for found in self.imports:
            if found.target in arrows and found.target != found.source:
                arrows[found.source].add(found.target)
        return arrows

    @cached_property
    def rooms(self) -> dict[str, set[str]]:
        """The rooms of these packages from which each room imports."""
        arrows: dict[str, set[str]] = {self.room(module): set() for module in self.files}
        for module, targets in self.modules.items():
            arrows[self.room(module)] |= {self.room(target) for target in targets} - {self.room(module)}
        return arrows

    def room(self, module: str) -> str:
        """The package's folder in which a module is, however deep; a file at its root is a room of its own.

        Example:
            >>> room = ImportGraph({}, ()).room
            >>> room("rrg.data.labels.rules"), room("optimizers.oracle"), room("optimizers")
            ('rrg.data', 'optimizers.oracle', 'optimizers')
        """
        return ".".join(module.split(".")[:2])

    def folders(self, package: str) -> dict[str, str]:
        """The folders of a package, each with the first sentence or paragraph of what its ``__init__`` says of it."""
        return {
            module: self.describe(module)
            for module, path in self.files.items()
            if module.startswith(f"{package}.") and path.name == "__init__.py"
        }

    def describe(self, module: str) -> str:
        """The first paragraph of a module's docstring on one line, roles and literals in single quotes of code."""
        described = ast.get_docstring(ast.parse(self.files[module].read_text(encoding="utf-8"))) or ""
        return re.sub(r"(?::\w+:|`)?`~?([^`]+)``?", r"`\1`", " ".join(described.split("\n\n")[0].split()))

    def others(self, module: str) -> set[str]:
        """What a module imports from elsewhere: the standard library and other distributions."""
        return {found.target for found in self.imports if found.source == module and found.target not in self.files}


def read_import_graph(folders: Iterable[Path] | None = None) -> ImportGraph:
    """Read the sources of packages.

    Args:
        folders: of the packages; by default ``optimizers``, ``sde_mtl`` and ``rrg`` as they are installed.

    Raises:
        ModuleNotFoundError: if a package is not installed.
        SyntaxError: for a file that is not Python.

    Example:
        >>> graph = read_import_graph()
        >>> "optimizers.kernels" in graph.rooms["optimizers.dual"], "torch" in graph.others("optimizers.linalg")
        (True, True)
    """
    files: dict[str, Path] = {}
    for folder in _installed(PACKAGES) if folders is None else folders:
        for path in sorted(folder.rglob("*.py")):
            files[_name(path.relative_to(folder.parent))] = path
    return ImportGraph(files, tuple(found for module in files for found in sorted(_imports(module, files))))


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle of the graph, its first node once more at the end; empty if every arrow can run down.

    Example:
        >>> circle({"roof": ["wall"], "wall": ["floor"], "floor": []})
        []
        >>> sorted(set(circle({"roof": ["wall"], "wall": ["roof"]})))
        ['roof', 'wall']
    """
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def storeys(arrows: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """How high each node stands: 0 if it needs nothing, otherwise one above the highest that it needs.

    Raises:
        graphlib.CycleError: if there is a circle, in which nothing is lowest.

    Example:
        >>> storeys({"roof": ["wall", "floor"], "wall": ["floor"], "floor": []})
        {'floor': 0, 'wall': 1, 'roof': 2}
    """
    height: dict[str, int] = {}
    for node in TopologicalSorter(arrows).static_order():
        height[node] = max((height[below] + 1 for below in arrows.get(node, ())), default=0)
    return height


def reduced(arrows: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """The arrows that do not follow from others: a → c goes where a → b → c says as much.

    Example:
        >>> reduced({"roof": ["wall", "floor"], "wall": ["floor"], "floor": []})
        {'roof': {'wall'}, 'wall': {'floor'}, 'floor': set()}
    """
    reach: dict[str, set[str]] = {}
    for node in TopologicalSorter(arrows).static_order():
        below = set(arrows.get(node, ()))
        reach[node] = below.union(*(reach[other] for other in below))
    return {
        node: {target for target in targets if not any(target in reach[other] for other in targets)}
        for node, targets in ((node, set(targets)) for node, targets in arrows.items())
    }


def _installed(packages: Iterable[str]) -> Iterator[Path]:
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"the package {package} is not installed", name=package)
        yield Path(spec.origin).parent


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(module: str, files: Mapping[str, Path]) -> Iterator[Import]:
    package = module if files[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(files[module].read_text(encoding="utf-8"))):
        for name in _imported(node, package, files):
            yield Import(module, _resolved(name, files), getattr(node, "lineno", 0))


def _imported(node: ast.AST, package: str, files: Mapping[str, Path]) -> Iterator[str]:
    """Full dotted names that one statement or call imports, as written."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        start = _absolute("." * node.level + (node.module or ""), package)
        for alias in node.names:
            yield f"{start}.{alias.name}" if f"{start}.{alias.name}" in files else start
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "importlib.import_module"):
        match node.args[:1]:
            case [ast.Constant(value=str(name))]:
                yield _absolute(name, package)


def _absolute(name: str, package: str) -> str:
    """A name without leading dots: one dot is the package itself, each further one its parent."""
    relative = name.lstrip(".")
    level = len(name) - len(relative)
    if not level:
        return name
    parent = package.split(".")
    return ".".join([*parent[: len(parent) - level + 1], *filter(None, [relative])])


def _resolved(name: str, files: Mapping[str, Path]) -> str:
    """The module that a dotted name leads to, or its first part if that is none of ours."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (known := ".".join(parts[:length])) in files:
            return known
    return parts[0]
