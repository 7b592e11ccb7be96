"""One interface before aggregators of every kind."""

import ast
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from optimizers.aggregators.base import JacobianAggregator
from optimizers.gradients._gramian import gramian

Takes = Literal["gramian", "matrix"]
Gives = Literal["coefficients", "update"]
MATRIX_NAMES = ("gradients", "jacobian", "matrix", "grads", "G", "J")
WEIGHT_NAMES = ("task_weights", "weights")


@dataclass(frozen=True)
class Subject:
    """An aggregator under test.

    Attributes:
        name: in tables.
        build: number of tasks → what is called.
        takes: the K×K Gramian, or the (K, d) matrix.
        gives: K coefficients of the rows, or the (d,) update.
        weighted: whether it takes task weights as a second argument.
    """

    name: str
    build: Callable[[int], Any]
    takes: Takes
    gives: Gives
    weighted: bool

    def raw(self, argument: Tensor, weights: Tensor | None = None, *, fresh: bool = True) -> Any:
        """What the aggregator gives for a Gramian or a matrix, whichever it takes.

        Args:
            argument: (K, K) or (K, d); more leading dimensions are passed on.
            weights: (K,), passed on where it takes them.
            fresh: forget the state of earlier calls (``reset()`` where it has one) and seed torch's stream with 0.
        """
        target = self.build(argument.shape[-2])
        call: Callable[..., Any] = (
            target.combine if isinstance(target, JacobianAggregator) and not callable(target) else target
        )
        if fresh:
            torch.random.default_generator.manual_seed(0)
            if hasattr(target, "reset"):
                target.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not self.weighted:
                return call(argument)
            ones = torch.ones(argument.shape[-2], dtype=torch.float64, device=argument.device)
            return call(argument, ones if weights is None else weights)

    def update(self, G: Tensor, weights: Tensor | None = None, *, fresh: bool = True) -> Tensor:
        """The (d,) update of (K, d) gradients.

        Raises:
            TypeError: where the aggregator gives no tensor.
            ValueError: where it gives coefficients of another shape than (K,).
        """
        result = self.raw(gramian(G) if self.takes == "gramian" else G, weights, fresh=fresh)
        if not isinstance(result, Tensor):
            raise TypeError(f"gives {type(result).__name__}, not a tensor")
        result = result.detach()
        if self.gives == "update":
            return result
        if result.shape != (len(G),):
            raise ValueError(f"gives coefficients of shape {tuple(result.shape)} for {len(G)} tasks")
        return result.to(G) @ G


def subject(target: Any, *, name: str | None = None, takes: Takes | None = None) -> Subject:
    """The subject that an object is.

    Args:
        target: see :mod:`optimizers.testing`; a class is instantiated without arguments.
        name: in tables; the object's own by default.
        takes: where the signature does not say.

    Raises:
        TypeError: where it cannot be told what the target takes, with what to do.

    Example:
        >>> from optimizers import mgda
        >>> subject(mgda).takes, subject(lambda matrix: matrix.mean(0)).gives
        ('gramian', 'update')
    """
    if isinstance(target, type):
        target = target()
    kind = _kind(target, takes)
    return Subject(name or _name(target), lambda tasks: target, *kind)


def load(spec: str, *, takes: Takes | None = None) -> Subject:
    """The subject of ``module:name`` or ``module:name(arguments)``.

    Arguments are Python literals; the name ``K`` among them is the number of tasks. The module is looked for in the
    working directory, too.

    Raises:
        ValueError: for what is not of this form, or does not exist.
        ImportError: where the module cannot be imported.
        TypeError: as :func:`subject`.

    Example:
        >>> load("optimizers:mgda").name
        'optimizers:mgda'
        >>> load("optimizers:nothing")
        Traceback (most recent call last):
        ...
        ValueError: 'optimizers' has no 'nothing'
    """
    module_name, colon, expression = spec.partition(":")
    try:
        parsed = ast.parse(expression, mode="eval").body
    except SyntaxError:
        parsed = ast.Constant(None)
    called = isinstance(parsed, ast.Call)
    path = parsed.func if isinstance(parsed, ast.Call) else parsed
    if not (colon and module_name and isinstance(path, ast.Name | ast.Attribute)):
        raise ValueError(f"aggregator {spec!r} must be module:name or module:name(option=value, …)")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    target: Any = importlib.import_module(module_name)
    for part in ast.unparse(path).split("."):
        if not hasattr(target, part):
            raise ValueError(f"{module_name!r} has no {part!r}")
        target = getattr(target, part)
    if not called and not isinstance(target, type):
        return subject(target, name=spec, takes=takes)
    built: dict[int, Any] = {}

    def build(tasks: int) -> Any:
        if tasks not in built:
            positional, named = _arguments(parsed, tasks, spec) if isinstance(parsed, ast.Call) else ([], {})
            built[tasks] = target(*positional, **named)
        return built[tasks]

    return Subject(spec, build, *_kind(build(2), takes))


def _arguments(call: ast.Call, tasks: int, spec: str) -> tuple[list[Any], dict[str, Any]]:
    class Count(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return ast.Constant(tasks) if node.id == "K" else node

    try:
        positional = [ast.literal_eval(Count().visit(_copy(value))) for value in call.args]
        named = {k.arg: ast.literal_eval(Count().visit(_copy(k.value))) for k in call.keywords if k.arg}
    except ValueError as error:
        raise ValueError(
            f"aggregator {spec!r}: arguments must be Python literals, or K, the number of tasks"
        ) from error
    return positional, named


def _copy(node: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(node), mode="eval").body


def _kind(target: Any, takes: Takes | None) -> tuple[Takes, Gives, bool]:
    if takes not in (None, *get_args(Takes)):
        raise ValueError(f"takes = {takes!r} must be 'gramian' or 'matrix'")
    torchjd = sys.modules.get("torchjd.aggregation")
    if torchjd is not None and isinstance(target, torchjd.Aggregator):
        return "matrix", "update", False
    if torchjd is not None and isinstance(target, torchjd.Weighting):
        of_matrix = any(base.__name__ == "_MatrixWeighting" for base in type(target).__mro__)
        return takes or ("matrix" if of_matrix else "gramian"), "coefficients", False
    if isinstance(target, JacobianAggregator) and not callable(target):
        return "matrix", "update", True
    if not callable(target):
        raise TypeError(f"{target!r} is no aggregator: it cannot be called and has no combine(jacobian, task_weights)")
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except ValueError as error:
        raise TypeError(f"{_name(target)} has no signature to tell what it takes; wrap it in a function") from error
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in parameters if p.name in names and p.default is p.empty]
    weighted = len(names) > 1 and names[1] in WEIGHT_NAMES
    if takes is None:
        if not names or len(required) > (2 if weighted else 1):
            raise TypeError(
                f"{_name(target)}({', '.join(names)}) is neither (gramian, task_weights) -> coefficients nor a "
                "function of the (K, d) matrix; wrap it in one that is"
            )
        takes = "gramian" if names[0] == "gramian" or (weighted and names[0] not in MATRIX_NAMES) else "matrix"
    return takes, "coefficients" if takes == "gramian" else "update", weighted


def _name(target: Any) -> str:
    return getattr(target, "__name__", None) or repr(target)
