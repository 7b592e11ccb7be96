r"""T8, κ is a learning-rate multiplier, or nothing (new).

F is homogeneous of degree one in κ. With SGD, with or without heavy-ball momentum and without weight decay, (η, κ) and
(ηκ, 1) give the same iterates. With Adam F enters as m̂/(√v̂ + ε): both moments carry κ, which cancels as ε → 0; the
first step moves by ηκ|F|/(κ|F| + ε), so that the relative effect of κ is ε/(κ|F|) to first order.

So a comparison of CAME-Grad at κ = 1.5 with linear scalarization at the same η compares learning rates.

What it does not say: with weight decay (η, κ) and (ηκ, 1) differ by the decay's share, and gradient clipping by norm
cancels κ where it binds.
"""

import numpy as np
import sympy
import torch

from optimizers import CAMEGrad
from sde_mtl.theory.check import Check, require
from sde_mtl.theory.examples import WEIGHTS, example


def derive() -> sympy.Expr:
    """The leading relative difference of Adam's first step between κ and 1, as ε → 0.

    Raises:
        DerivationError: if heavy-ball iterates do not agree symbolically over three steps.

    Example:
        >>> derive()
        (kappa - 1)/(F*kappa)
    """
    eta, kappa, beta, F, eps = sympy.symbols("eta kappa beta F epsilon", positive=True)
    updates = sympy.symbols("F0:3", real=True)

    def heavy_ball(rate: sympy.Expr, factor: sympy.Expr) -> sympy.Expr:
        theta = velocity = sympy.Integer(0)
        for update in updates:
            velocity = beta * velocity + factor * update
            theta = theta - rate * velocity
        return sympy.expand(theta)

    same = sympy.simplify(heavy_ball(eta, kappa) - heavy_ball(eta * kappa, sympy.Integer(1)))
    require(same == 0, "T8, heavy ball")

    def first_step(factor: sympy.Expr) -> sympy.Expr:
        return factor * F / (factor * F + eps)

    ratio = first_step(kappa) / first_step(sympy.Integer(1)) - 1
    return sympy.factor(sympy.limit(ratio / eps, eps, 0))


def trajectory(
    kind: str, learning_rate: float, kappa: float, *, eps: float = 1e-8, steps: int = 60, **options: float
) -> torch.Tensor:
    """Iterates (steps, 2) of torch's optimizer under CAME-Grad on T6's example."""
    problem = example()
    theta = torch.nn.Parameter(torch.tensor([2.0, 2.0], dtype=torch.float64))
    inner: torch.optim.Optimizer
    if kind == "adam":
        inner = torch.optim.Adam([theta], lr=learning_rate, eps=eps)
    else:
        inner = torch.optim.SGD([theta], lr=learning_rate, **options)  # type: ignore[arg-type]
    optimizer = CAMEGrad(inner, kappa=kappa, nu=0.6)
    path = []
    for _ in range(steps):
        optimizer.step(list(problem.losses(theta)), WEIGHTS)
        path.append(theta.detach().clone())
    return torch.stack(path)


def check(seed: int = 0, paths: int = 10_000) -> list[Check]:
    """Iterates of SGD, momentum and Adam through torch itself, and two cases where κ does matter."""
    derive()
    kappa, eta = 1.5, 0.01

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).abs().max())

    sgd = distance(trajectory("sgd", eta, kappa), trajectory("sgd", eta * kappa, 1.0))
    ball = distance(trajectory("sgd", eta, kappa, momentum=0.9), trajectory("sgd", eta * kappa, 1.0, momentum=0.9))
    decayed = distance(
        trajectory("sgd", eta, kappa, weight_decay=0.5), trajectory("sgd", eta * kappa, 1.0, weight_decay=0.5)
    )
    unmatched = distance(trajectory("sgd", eta, kappa), trajectory("sgd", eta, 1.0))
    epsilons = np.array([1e-4, 1e-5, 1e-6, 1e-7])
    adam = [distance(trajectory("adam", eta, kappa, eps=e), trajectory("adam", eta, 1.0, eps=e)) for e in epsilons]
    slope = float(np.polyfit(np.log(epsilons), np.log(adam), 1)[0])
    return [
        Check("T8.a", "SGD: (η, κ) and (ηκ, 1), largest distance", 0, sgd, sgd, 1e-13, "absolute", "60 torch steps"),
        Check("T8.b", "the same with momentum 0.9", 0, ball, ball, 1e-12, "absolute", "60 torch steps"),
        Check("T8.c", "Adam: effect of κ is O(ε), order", 1.0, slope, abs(slope - 1), 0.05, "absolute",
              "log–log over ε = 1e-4 … 1e-7, 60 torch steps"),
        Check("T8.d", "SGD at κ = 1.5 and κ = 1, same η", 0, unmatched, unmatched, 1e-12, "absolute",
              "60 torch steps", control=True),
        Check("T8.e", "(η, κ) and (ηκ, 1) with weight decay ½", 0, decayed, decayed, 1e-12, "absolute",
              "60 torch steps", control=True),
    ]  # fmt: skip
