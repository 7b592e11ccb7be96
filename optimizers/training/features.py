"""Gramians of the gradients with respect to a shared representation, and one backward through what computed it.

MGDA-UB (Sener and Koltun 2018, eq. 5) solves on ∂L_i/∂z instead of ∂L_i/∂θ. With z = z(θ) and J = ∂z/∂θ the Gramians
are M_z = Z Zᵀ and M = Z J Jᵀ Zᵀ, so the coefficients are those of M where J Jᵀ is a multiple of the identity on
the span of the rows of Z.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.autograd.graph import Node

from optimizers.gradients._task_gradients import PartialGradients, gradient
from optimizers.training.trainable import Trainable

Edge = tuple[Node | None, int]


def as_features(features: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The representation as a list of tensors, after checking that a backward can go through it.

    Raises:
        ValueError: naming the tensor that is detached or a leaf, or for none.
    """
    tensors = [features] if isinstance(features, Tensor) else list(features)
    if not tensors:
        raise ValueError("features holds no tensor; None differentiates with respect to the parameters")
    for index, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"features[{index}] must be a tensor, got {type(tensor).__name__}")
        if tensor.grad_fn is None:
            what = "a leaf" if tensor.requires_grad else "computed without grad or detached"
            raise ValueError(
                f"features[{index}] is {what}; pass the very tensor that the shared part returned, from which the "
                "losses were computed"
            )
    return tensors


def split_at(features: Sequence[Tensor], losses: Sequence[Tensor], trainable: Trainable) -> Trainable:
    """Takes the parameters before the features as the shared ones, all others as not shared.

    Raises:
        ValueError: if one feature was computed from another, or a parameter acts both before and after the features.
    """
    stops: set[Edge] = {(z.grad_fn, z.output_nr) for z in features}
    before, nested = _leaves_behind((z.grad_fn for z in features), stops)
    if nested:
        raise ValueError("one of the features was computed from another; pass those nearest to the losses only")
    after, _ = _leaves_behind((loss.grad_fn for loss in losses), stops)
    shared, others = [], []
    for index, parameter in enumerate(trainable.parameters):
        if id(parameter) not in before:
            others.append(index)
        elif id(parameter) in after:
            raise ValueError(
                f"parameter {index} of shape {tuple(parameter.shape)} reaches a loss both through features and past "
                "them: it is tied, or something that it computes is missing in features"
            )
        else:
            shared.append(index)
    return Trainable(trainable.parameters, shared, others)


def gradients_at(
    features: Sequence[Tensor], losses: Sequence[Tensor], others: Sequence[Tensor]
) -> tuple[PartialGradients, PartialGradients]:
    """Task gradients of the features and of the parameters behind them, by one backward a task that ends there.

    The graph before the features is left for :func:`gradient_through`.

    Raises:
        ValueError: for sparse or complex gradients, or if no loss was computed from the features.
    """
    of_features: PartialGradients = []
    of_others: PartialGradients = []
    for task, loss in enumerate(losses):
        parts = gradient([loss], [*features, *others], keep=task < len(losses) - 1, name=f"task {task}")
        of_features.append(parts[: len(features)])
        of_others.append(parts[len(features) :])
    if all(part is None for of_task in of_features for part in of_task):
        raise ValueError("no loss was computed from features: pass the very tensor that the heads were given")
    return of_features, of_others


def gradient_through(
    features: Sequence[Tensor], outer: Sequence[Tensor | None], parameters: Sequence[Tensor]
) -> list[Tensor | None]:
    """Jᵀ·outer for the parameters before the features, in one backward; frees the graph."""
    reached = [(z, part) for z, part in zip(features, outer, strict=True) if part is not None]
    outputs, parts = zip(*reached, strict=True)
    return gradient(outputs, parameters, outer=parts, keep=False, name="the features")


def _leaves_behind(nodes: Iterable[Node | None], stops: set[Edge]) -> tuple[set[int], bool]:
    """Identities of the leaves behind the nodes, not past ``stops``; whether a stop was met."""
    waiting = list(nodes)
    seen: set[Node] = set()
    leaves: set[int] = set()
    met = False
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().endswith("AccumulateGrad"):
            leaves.add(id(node.variable))  # type: ignore[attr-defined]
        for edge in node.next_functions:
            if edge in stops:
                met = True
            else:
                waiting.append(edge[0])
    return leaves, met
