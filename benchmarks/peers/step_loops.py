"""Loops that one writes by hand, and the floor below all of them.

All but the floors take CAME-Grad's coefficients from the exact solver, so that only what surrounds it is compared.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from optimizers import came_grad_coefficients
from peers.step_problem import Backward, Forward, Problem

FLOOR = "K backward passes"
PLAIN = "one summed backward"
HAND = "loop over lists, in place"
FLATTENING = "flattening loop"
PACKAGES = ("torch",)


def contestants(problem: Problem) -> dict[str, Backward]:
    return {
        FLOOR: lambda forward: k_backwards(problem, forward),
        PLAIN: lambda forward: sum(forward.losses).backward(),  # type: ignore[union-attr]
        HAND: lambda forward: in_place(problem, forward),
        FLATTENING: lambda forward: flattening(problem, forward),
    }


def k_backwards(problem: Problem, forward: Forward) -> list[Sequence[Tensor]]:
    """The task gradients of the shared parameters, kept until all are there, and nothing else."""
    last = len(forward.losses) - 1
    return [
        torch.autograd.grad(loss, problem.shared, retain_graph=task < last) for task, loss in enumerate(forward.losses)
    ]


def in_place(problem: Problem, forward: Forward) -> None:
    """Inner products parameter by parameter; the update in the memory of the first task's gradient.

    That is wrong for models in which autograd returns one tensor for two parameters.
    """
    gradients = []
    last, shared = len(forward.losses) - 1, len(problem.shared)
    for task, loss in enumerate(forward.losses):
        of_task = problem.of_tasks[task]
        found = torch.autograd.grad(loss, [*problem.shared, *of_task], retain_graph=task < last)
        gradients.append(list(found[:shared]))
        for parameter, part in zip(of_task, found[shared:], strict=True):
            parameter.grad = part
    tasks = len(gradients)
    M = torch.empty(tasks, tasks)
    for i in range(tasks):
        for j in range(i + 1):
            products = [torch.dot(a.view(-1), b.view(-1)) for a, b in zip(gradients[i], gradients[j], strict=True)]
            M[i, j] = M[j, i] = torch.stack(products).sum()
    c = came_grad_coefficients(M).tolist()
    torch._foreach_mul_(gradients[0], c[0])
    for of_task, factor in zip(gradients[1:], c[1:], strict=True):
        torch._foreach_add_(gradients[0], of_task, alpha=factor)
    for parameter, part in zip(problem.shared, gradients[0], strict=True):
        parameter.grad = part


def flattening(problem: Problem, forward: Forward) -> None:
    """The way of LibMTL: ``backward`` for each task, its gradient joined to a row of G, Gᵀc cut up again."""
    sizes = [p.numel() for p in problem.shared]
    G = torch.zeros(len(forward.losses), sum(sizes), device=problem.inputs.device)
    for task, loss in enumerate(forward.losses):
        loss.backward(retain_graph=True)
        for slot, parameter in zip(G[task].split(sizes), problem.shared, strict=True):
            slot.copy_(parameter.grad.reshape(-1))  # type: ignore[union-attr]
            parameter.grad = None
    c = came_grad_coefficients((G @ G.T).cpu()).to(G)
    for parameter, part in zip(problem.shared, (c @ G).split(sizes), strict=True):
        parameter.grad = part.view_as(parameter)
