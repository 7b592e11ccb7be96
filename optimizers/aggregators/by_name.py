"""Aggregators by name with their options, as command lines and configuration files give them."""

import ast
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optimizers.aggregators._aligned_mtl import aligned_mtl
from optimizers.aggregators._cagrad import cagrad
from optimizers.aggregators._came_grad import came_grad_coefficients
from optimizers.aggregators._imtl_g import imtl_g
from optimizers.aggregators._linear import linear
from optimizers.aggregators._mgda import mgda
from optimizers.aggregators._nash_mtl import nash_mtl
from optimizers.aggregators._pcgrad import pcgrad
from optimizers.aggregators.base import Aggregator


def equal(gramian: Tensor, task_weights: Tensor) -> Tensor:
    """Linear scalarization with equal weights of the same sum: the control that theory T6 asks for.

    Example:
        >>> equal(torch.eye(2).double(), torch.tensor([1.0, 4.0]).double())
        tensor([2.5000, 2.5000], dtype=torch.float64)
    """
    weights = torch.as_tensor(task_weights, dtype=torch.float64)
    return linear(gramian, weights.mean(-1, keepdim=True).expand(weights.shape))


AGGREGATORS: dict[str, Callable[..., Tensor]] = {
    "linear": linear,
    "equal": equal,
    "mgda": mgda,
    "pcgrad": pcgrad,
    "cagrad": cagrad,
    "imtl-g": imtl_g,
    "aligned-mtl": aligned_mtl,
    "nash-mtl": nash_mtl,
    "came-grad": came_grad_coefficients,
}


TORCHJD = "torchjd:"
"""What the names of TorchJD's methods begin with; :func:`optimizers.torchjd.torchjd_by_name` makes them."""


def aggregator(name: str, **options: Any) -> Aggregator:
    """An aggregator with its options bound.

    Args:
        name: a key of :data:`AGGREGATORS`, also with options as in ``came-grad:nu=0.6``.
        options: of that aggregator, such as ``kappa`` and ``nu`` for "came-grad", ``c`` for "cagrad".

    Raises:
        ValueError: for an unknown name or option, or an option out of its range.

    Example:
        >>> aggregator("came-grad", nu=1.0, kappa=1.0)(torch.eye(2).double(), torch.tensor([1.0, 4.0]).double())
        tensor([1., 4.], dtype=torch.float64)
        >>> aggregator("came-grad:nu=1.0:kappa=1.0")(torch.eye(2).double(), torch.tensor([1.0, 4.0]).double())
        tensor([1., 4.], dtype=torch.float64)
        >>> aggregator("adam")
        Traceback (most recent call last):
        ValueError: unknown aggregator 'adam'; there are linear, equal, mgda, pcgrad, cagrad, imtl-g, aligned-mtl,
        nash-mtl, came-grad
    """
    name, written = parse_options(name)
    if name not in AGGREGATORS:
        raise ValueError(f"unknown aggregator {name!r}; there are {', '.join(AGGREGATORS)}")
    options = {**written, **options}
    known = list(inspect.signature(AGGREGATORS[name]).parameters)[2:]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    bound = partial(AGGREGATORS[name], **options)
    bound(torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    return bound


def parse_options(text: str, *, prefix: str = "", words: bool = True) -> tuple[str, dict[str, Any]]:
    """Name and options of ``NAME[:option=value…]``, with values as Python writes them.

    Args:
        text: to parse.
        prefix: that the text may begin with, and that is no part of the name.
        words: whether a value that is no Python literal is a word, as in ``center=weighted``; otherwise it is refused.

    Raises:
        ValueError: for an option without a value, or one that is refused, naming it.

    Example:
        >>> parse_options("came-grad:nu=0.6:center=weighted")
        ('came-grad', {'nu': 0.6, 'center': 'weighted'})
        >>> parse_options("torchjd:GradDrop:leak=[0.0,1.0]", prefix="torchjd:", words=False)
        ('GradDrop', {'leak': [0.0, 1.0]})
    """
    name, *settings = text.removeprefix(prefix).split(":")
    wanted = "option=value" if words else "option=number, or a list of numbers"
    options: dict[str, Any] = {}
    for setting in settings:
        option, _, value = setting.partition("=")
        if not (option and value):
            raise ValueError(f"{text!r}: {setting!r} must be {wanted}")
        try:
            options[option] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            if not words:
                raise ValueError(f"{text!r}: {setting!r} must be {wanted}") from error
            options[option] = value
    return name, options
