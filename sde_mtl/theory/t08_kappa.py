r"""T8, κ is a learning-rate multiplier, or nothing (new).

F is homogeneous of degree one in κ. With SGD, with or without heavy-ball momentum, (η, κ) and (ηκ, 1) give the same
iterates; with coupled L2 decay λ, which torch's SGD adds to the gradient, (η, κ, λ) and (ηκ, 1, λ/κ) do.

Adam divides F by the size of its past: F enters as m̂/(√v̂ + ε), and both moments carry κ, which cancels as ε → 0; the
first step moves by ηκ|F|/(κ|F| + ε), so that the relative effect of κ is ε/(κ|F|) to first order. The same goes for
AdamW, whose decay is decoupled, for RMSprop and for Adagrad. With *coupled* L2 κ does not cancel in Adam: κF + λθ is κ
times F + (λ/κ)θ, so that (κ, λ) and (1, λ/κ) give the same iterates as ε → 0. κ is then a divisor of the decay.

So a comparison of CAME-Grad at κ = 1.5 with linear scalarization at the same η compares learning rates or decays.

What it does not say: gradient clipping by norm cancels κ where it binds, clipping by value does not; and with SGD the
decoupled decay ηλ of other libraries needs the same λη on both sides.
"""

from collections.abc import Callable

import numpy as np
import sympy
import torch

from optimizers import CAMEGrad
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.examples import WEIGHTS, example


def derive() -> sympy.Expr:
    """The leading relative difference of Adam's first step between κ and 1, as ε → 0.

    Raises:
        DerivationError: if heavy-ball iterates with coupled L2 do not agree symbolically over three steps.

    Example:
        >>> derive()
        (kappa - 1)/(F*kappa)
    """
    eta, kappa, beta, F, eps, decay = sympy.symbols("eta kappa beta F epsilon lambda", positive=True)
    updates = sympy.symbols("F0:3", real=True)

    def heavy_ball(rate: sympy.Expr, factor: sympy.Expr, decay: sympy.Expr) -> sympy.Expr:
        theta, velocity = sympy.Symbol("start"), sympy.Integer(0)
        for update in updates:
            velocity = beta * velocity + factor * update + decay * theta
            theta = theta - rate * velocity
        return sympy.expand(theta)

    same = sympy.simplify(heavy_ball(eta, kappa, decay) - heavy_ball(eta * kappa, sympy.Integer(1), decay / kappa))
    require(same == 0, "T8, heavy ball with coupled L2")
    coupled = sympy.simplify((kappa * F + decay * eta) / (F + decay / kappa * eta))  # η stands for θ
    require(coupled == kappa, "T8, Adam's gradient with coupled L2 carries κ")

    def first_step(factor: sympy.Expr) -> sympy.Expr:
        return factor * F / (factor * F + eps)

    ratio = first_step(kappa) / first_step(sympy.Integer(1)) - 1
    return sympy.factor(sympy.limit(ratio / eps, eps, 0))


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}
STEPS = 40
TINY = 1e-14
"""ε at which the rules that divide by the gradient's size are compared."""


def trajectory(kind: str, learning_rate: float, kappa: float, **options: float) -> torch.Tensor:
    """Iterates (STEPS, 2) of torch's optimizer under CAME-Grad on T6's example.

    Args:
        kind: a key of ``OPTIMIZERS``.
        learning_rate, options: of that optimizer.
        kappa: of CAME-Grad.
    """
    problem = example()
    theta = torch.nn.Parameter(torch.tensor([2.0, 2.0], dtype=torch.float64))
    optimizer = CAMEGrad(OPTIMIZERS[kind]([theta], lr=learning_rate, **options), kappa=kappa, nu=0.6)
    path = []
    for _ in range(STEPS):
        optimizer.step(list(problem.losses(theta)), WEIGHTS)
        path.append(theta.detach().clone())
    return torch.stack(path)


def distance(kind: str, one: tuple[float, ...], other: tuple[float, ...], **options: float) -> float:
    """Largest distance of the iterates at two triples (η, κ, weight decay).

    Args:
        kind, options: of the optimizer.
        one, other: (η, κ) or (η, κ, λ).

    Example:
        >>> distance("sgd", (0.01, 1.5), (0.015, 1.0)) < 1e-14
        True
    """

    def run(rate: float, kappa: float, decay: float = 0.0) -> torch.Tensor:
        chosen = {**options, "weight_decay": decay} if decay else options
        return trajectory(kind, rate, kappa, **chosen)

    return float((run(*one) - run(*other)).abs().max())


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Iterates through torch's own optimizers, with and without decay, and where κ does matter as controls."""
    derive()
    kappa, eta, decay = 1.5, 0.01, 0.5
    unmatched = distance("sgd", (eta, kappa), (eta, 1.0))
    epsilons = np.array([1e-4, 1e-5, 1e-6])
    adam = [distance("adam", (eta, kappa), (eta, 1.0), eps=e) for e in epsilons]
    order = float(np.polyfit(np.log(epsilons), np.log(adam), 1)[0])

    def row(letter: str, claim: str, found: float, tolerance: float, control: bool = False) -> Check:
        return Check(f"T8.{letter}", claim, 0.0, found, found, tolerance, "absolute",
                     "40 torch steps, largest distance of the iterates", control=control, scale=unmatched)  # fmt: skip

    matched, coupled = ((eta, kappa), (eta * kappa, 1.0)), ((eta, kappa, decay), (eta * kappa, 1.0, decay / kappa))
    rows = [
        row("a", "SGD: (η, κ) and (ηκ, 1)", distance("sgd", *matched), 1e-13),
        row("b", "the same with momentum 0.9", distance("sgd", *matched, momentum=0.9), 1e-12),
        Check("T8.c", "Adam: effect of κ is O(ε), order", 1.0, order, abs(order - 1), 1e-3, "absolute",
              "log–log over ε = 1e-4 … 1e-6, 40 torch steps"),
        row("d", "SGD at κ = 1.5 and κ = 1, same η", unmatched, 1e-12, True),
        row("e", "SGD: (η, κ, λ) and (ηκ, 1, λ), coupled L2",
            distance("sgd", (eta, kappa, decay), (eta * kappa, 1.0, decay)), 1e-12, True),
        row("f", "SGD: (η, κ, λ) and (ηκ, 1, λ/κ), coupled L2", distance("sgd", *coupled), 1e-13),
        row("g", "the same with momentum 0.9", distance("sgd", *coupled, momentum=0.9), 1e-12),
        row("h", "Adam: (κ, λ) and (1, λ/κ), coupled L2, ε = 1e-14",
            distance("adam", (eta, kappa, decay), (eta, 1.0, decay / kappa), eps=TINY), 1e-10),
        row("i", "Adam: κ cancels with coupled L2 too",
            distance("adam", (eta, kappa, decay), (eta, 1.0, decay), eps=TINY), 1e-10, True),
    ]  # fmt: skip
    for letter, kind, options in (("j", "adamw", {"weight_decay": decay}), ("k", "rmsprop", {}), ("l", "adagrad", {})):
        found = distance(kind, (eta, kappa), (eta, 1.0), eps=TINY, **options)
        rows.append(row(letter, f"{kind}: κ cancels, ε = 1e-14", found, 1e-10))
    return rows
