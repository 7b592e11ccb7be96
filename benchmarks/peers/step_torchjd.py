"""TorchJD: ``mtl_backward`` as it comes and at its best settings, and its engine for Gramians layer by layer."""

from copy import deepcopy

import torch
from torchjd.aggregation import CAGrad, CAGradWeighting, UPGrad
from torchjd.autogram import Engine
from torchjd.autojac import jac_to_grad, mtl_backward

from peers.step_problem import Backward, Forward, Problem

PACKAGES = ("torchjd", "cvxpy", "clarabel", "qpsolvers", "quadprog")


def contestants(problem: Problem) -> dict[str, Backward]:
    found: dict[str, Backward] = {}
    for name, aggregator in (("CAGrad", CAGrad(c=0.5)), ("UPGrad", UPGrad())):
        for chunk, lean in ((None, False), (1, False), (1, True)):

            def backward(forward: Forward, aggregator=aggregator, chunk=chunk, lean=lean) -> None:  # type: ignore[no-untyped-def]
                mtl_backward(
                    forward.losses, forward.features, tasks_params=problem.of_tasks, shared_params=problem.shared,
                    parallel_chunk_size=chunk,
                )  # fmt: skip
                jac_to_grad(problem.shared, aggregator, optimize_gramian_computation=lean)

            settings = "" if chunk is None else ", chunk 1, no matrix" if lean else ", chunk 1"
            found[f"TorchJD {name}{settings}"] = backward
    return found


def autogram(problem: Problem) -> tuple[Problem, dict[str, Backward]]:
    """With a model of its own, as the engine's hooks stay in it."""
    own = deepcopy(problem)
    own.shared = list(own.trunk.parameters())
    own.of_tasks = [list(head.parameters()) for head in own.heads]
    own.parameters = [*own.shared, *own.heads.parameters()]
    engine, weighting = Engine(own.trunk, batch_dim=None), CAGradWeighting(c=0.5)

    def backward(forward: Forward) -> None:
        losses = torch.stack(list(forward.losses))
        losses.backward(weighting(engine.compute_gramian(losses)))

    return own, {"TorchJD autogram CAGrad": backward}
