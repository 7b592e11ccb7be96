"""The checks: by how much a case violates a property, and what is wrong with it.

Violations are relative to the largest gradient (times its weight) or to the update, whichever is longer; harm to a task
also to its own gradient. So a method whose updates are shorter than the tolerance times the gradients violates little.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimizers.gradients._gramian import gramian
from optimizers.testing._subject import Subject

INFINITE = float("inf")
TINY = torch.finfo(torch.float64).tiny
ZERO = 1e-6
"""An update shorter than this times the largest gradient has vanished."""
Finding = tuple[float, str]
FINE: Finding = (0.0, "")


@dataclass(frozen=True)
class Case:
    """What a check is run on: (K, d) gradients, task weights where the subject takes them, and what else it draws."""

    G: Tensor
    weights: Tensor | None
    extra: Any = None

    def __str__(self) -> str:
        weights = "" if self.weights is None or (self.weights == 1).all() else f", ω = {_numbers(self.weights)}"
        return f"G = {_numbers(self.G)}{weights}{'' if self.extra is None else f', {self.extra}'}"


def _numbers(x: Tensor) -> str:
    def shown(value: Any) -> str:
        return f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else f"{value + 0.0:.4g}"

    return shown(x.tolist())


def _largest(case: Case) -> float:
    norms = torch.linalg.vector_norm(case.G, dim=1)
    return float((norms if case.weights is None else norms * case.weights.clamp_min(1)).max())


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x))


def _apart(a: Tensor, b: Tensor, scale: float) -> float:
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return INFINITE
    size = max(_norm(a), _norm(b), scale)
    return _norm(a - b) / size if size > 0 else 0.0


def _differ(a: Tensor, b: Tensor, scale: float, what: str) -> Finding:
    return _apart(a, b, scale), f"{what}: {_numbers(a)} and {_numbers(b)}"


def _harm(along: Tensor, F: Tensor, case: Case) -> float:
    size = _norm(along) * max(_norm(F), _largest(case))
    return -float(along @ F) / size if size > 0 else 0.0


def finite(subject: Subject, case: Case) -> Finding:
    F = subject.update(case.extra * case.G, case.weights)
    return (0.0 if F.isfinite().all() else INFINITE), f"update {_numbers(F)}"


def expected_shape(subject: Subject, case: Case) -> Finding:
    F = subject.update(case.G, case.weights)
    return (0.0 if F.shape == case.G.shape[1:] else INFINITE), f"update of shape {tuple(F.shape)}"


def dtype_and_device(subject: Subject, case: Case) -> Finding:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for dtype in (torch.float32, torch.float64):
            argument = case.G.to(device, dtype)
            argument = argument @ argument.T if subject.takes == "gramian" else argument
            result = subject.raw(argument, case.weights if case.weights is None else case.weights.to(device))
            allowed = (dtype, torch.float64) if subject.takes == "gramian" else (dtype,)
            if result.dtype not in allowed or result.device.type != device:
                return INFINITE, f"{dtype} on {device} becomes {result.dtype} on {result.device.type}"
    return FINE


def input_unmodified(subject: Subject, case: Case) -> Finding:
    argument = gramian(case.G) if subject.takes == "gramian" else case.G.clone()
    weights = None if case.weights is None else case.weights.clone()
    before, weights_before = argument.clone(), None if weights is None else weights.clone()
    subject.raw(argument, weights)
    if not torch.equal(argument, before):
        return INFINITE, f"the {subject.takes} became {_numbers(argument)}"
    if weights is not None and weights_before is not None and not torch.equal(weights, weights_before):
        return INFINITE, f"the weights became {_numbers(weights)}"
    return FINE


def deterministic(subject: Subject, case: Case) -> Finding:
    first = subject.update(case.G, case.weights)
    again = subject.update(case.G, case.weights, fresh=False)
    return (0.0 if torch.equal(first, again) else INFINITE), f"two calls: {_numbers(first)} and {_numbers(again)}"


def batch(subject: Subject, case: Case) -> Finding:
    M = torch.stack([gramian(case.G), gramian(case.G.flip(0)), gramian(2 * case.G)])
    together = subject.raw(M, case.weights)
    alone = torch.stack([subject.raw(m, case.weights) for m in M])
    return _differ(together, alone, 1.0, "coefficients together and alone")


def refuses_batches(subject: Subject) -> str:
    if subject.takes != "gramian":
        return "takes one matrix at a time"
    try:
        subject.raw(torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
    except Exception:
        return "refuses batches"
    return ""


def permutation(subject: Subject, case: Case) -> Finding:
    order = torch.tensor(case.extra)
    weights = None if case.weights is None else case.weights[order]
    F, permuted = subject.update(case.G, case.weights), subject.update(case.G[order], weights)
    return _differ(F, permuted, _largest(case), "updates before and after")


def homogeneous(subject: Subject, case: Case) -> Finding:
    F, scaled = subject.update(case.G, case.weights), subject.update(case.extra * case.G, case.weights)
    return _differ(case.extra * F, scaled, case.extra * _largest(case), "c F(G) and F(c G)")


def direction(subject: Subject, case: Case) -> Finding:
    """Directions count by the length of the longer vector, in units of the largest gradient."""
    F, scaled = subject.update(case.G, case.weights), subject.update(case.extra * case.G, case.weights) / case.extra
    if not (F.isfinite().all() and scaled.isfinite().all()):
        return INFINITE, f"updates {_numbers(F)} and {_numbers(scaled)}"
    first, second = (x / _norm(x) if x.any() else x for x in (F, scaled))
    length = min(1.0, max(_norm(F), _norm(scaled)) / max(_largest(case), TINY))
    return _norm(first - second) * length, f"directions of F(G) and F(c G): {_numbers(first)} and {_numbers(second)}"


def linear(subject: Subject, case: Case) -> Finding:
    a, b, first, second = (torch.tensor(x, dtype=torch.float64) for x in case.extra)
    together = subject.update((a * first + b * second)[:, None] * case.G, case.weights)
    apart = a * subject.update(first[:, None] * case.G, case.weights)
    apart = apart + b * subject.update(second[:, None] * case.G, case.weights)
    return _differ(together, apart, _largest(case), "F(diag(a c + b c')G) and a F(diag(c)G) + b F(diag(c')G)")


def rotation(subject: Subject, case: Case) -> Finding:
    width = -(-case.G.shape[1] // 4) * 4
    G = torch.nn.functional.pad(case.G, (0, width - case.G.shape[1]))
    order, signs = case.extra
    h = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    blocks = torch.block_diag(*[torch.kron(h, h) / 2] * (width // 4))
    Q = blocks[torch.tensor(order)[torch.tensor(order) < width]] * torch.tensor(signs, dtype=torch.float64)[:width]
    F, rotated = subject.update(G, case.weights), subject.update(G @ Q, case.weights)
    return _differ(F @ Q, rotated, _largest(case), "F(G) Q and F(G Q)")


def _products(subject: Subject, case: Case) -> tuple[Tensor, Tensor]:
    F = subject.update(case.G, case.weights)
    return F, torch.tensor([_harm(g, F, case) for g in case.G])


def harm_to_some(subject: Subject, case: Case) -> Finding:
    F, harm = _products(subject, case)
    return float(harm.max()), f"F = {_numbers(F)} harms task {int(harm.argmax())}, G F = {_numbers(case.G @ F)}"


def harm_to_all(subject: Subject, case: Case) -> Finding:
    F, harm = _products(subject, case)
    return float(harm.min()), f"F = {_numbers(F)} harms every task, G F = {_numbers(case.G @ F)}"


def mean(subject: Subject, case: Case) -> Finding:
    F = subject.update(case.G, case.weights)
    along = case.G.mean(0)
    return _harm(along, F, case), f"F = {_numbers(F)}, μᵀF = {float(along @ F):.4g}"


def weighted_sum(subject: Subject, case: Case) -> Finding:
    F = subject.update(case.G, case.weights)
    along = case.weights @ case.G if case.weights is not None else case.G.sum(0)
    return _harm(along, F, case), f"F = {_numbers(F)}, g_JᵀF = {float(along @ F):.4g}"


def vanishes(subject: Subject, case: Case) -> Finding:
    F = subject.update(case.G, case.weights)
    return _norm(F) / max(_largest(case), TINY), f"F = {_numbers(F)}"


def vanishes_only(subject: Subject, case: Case) -> Finding:
    """1 where the update has vanished, otherwise 0."""
    F = subject.update(case.G, case.weights)
    return (0.0 if _norm(F) > ZERO * _largest(case) else 1.0), f"F = {_numbers(F)}"
