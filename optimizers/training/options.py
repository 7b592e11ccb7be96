"""Checks of what the training step is constructed with, and of a state before any of it is loaded."""

from typing import Any, Literal, get_args

import torch

from optimizers.aggregators.base import JacobianAggregator, ScheduledAggregator, check_aggregator
from optimizers.errors import OnSolverFailure

OnNonFinite = Literal["raise", "skip", "propagate"]
STATE_KEYS = {"optimizer", "options", "aggregator", "skipped", "unsolved", "reuse", "average", "tracking"}


def check_optimizer(optimizer: Any) -> None:
    """Refuse what is no torch optimizer, or one that needs a closure.

    Raises:
        TypeError: naming its type.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError(
            "LBFGS re-evaluates one loss in a closure and cannot follow an aggregate of several; "
            "use a first-order optimizer such as AdamW or SGD"
        )


def check_step_options(
    aggregator: Any,
    *,
    refresh_every: int,
    ema: float | None,
    track: float | None,
    clip_norm: float | None,
    clip_value: float | None,
    on_nonfinite: str,
    on_solver_failure: str,
) -> None:
    """Refuse an aggregator that is none, and options outside their domain or that do not fit it.

    Raises:
        TypeError, ValueError: as :class:`optimizers.MultiTaskOptimizer`.
    """
    check_aggregator(aggregator)
    for name, value, known in (
        ("on_nonfinite", on_nonfinite, get_args(OnNonFinite)),
        ("on_solver_failure", on_solver_failure, get_args(OnSolverFailure)),
    ):
        if value not in known:
            first = ", ".join(map(repr, known[:-1]))
            raise ValueError(f"{name} = {value!r} must be {first} or {known[-1]!r}")
    if refresh_every < 1:
        raise ValueError(f"refresh_every = {refresh_every} must be >= 1; 1 solves on every step")
    if ema is not None and not 0.0 <= ema < 1.0:
        raise ValueError(f"ema = {ema} must lie in [0, 1): the share of the past in the averaged Gramian")
    if track is not None and not 0.0 <= track < 1.0:
        raise ValueError(f"track = {track} must lie in [0, 1): the share of the past in the tracked gradients")
    if track is not None and ema is not None:
        raise ValueError(f"track = {track} and ema = {ema}: average the gradients or their Gramians, not both")
    if isinstance(aggregator, JacobianAggregator):
        kind = type(aggregator).__name__
        if refresh_every > 1:
            raise ValueError(
                f"refresh_every = {refresh_every} needs coefficients to reuse, which {kind} does not have; use 1"
            )
        for name, decay in (("ema", ema), ("track", track)):
            if decay is not None:
                raise ValueError(f"{name} = {decay} averages for coefficients, which {kind} does not have; use None")
    if isinstance(aggregator, ScheduledAggregator) and (refresh_every > 1 or ema is not None or track is not None):
        raise ValueError(
            f"a schedule gives the coefficients of every step: refresh_every = {refresh_every}, ema = {ema} and "
            f"track = {track} would be ignored, leave them out"
        )
    for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if limit is not None and not 0.0 < limit < float("inf"):
            raise ValueError(f"{name} = {limit} must be finite and > 0; None clips nothing")
    if clip_norm is not None and clip_value is not None:
        raise ValueError(f"clip_norm = {clip_norm} and clip_value = {clip_value}: clip by the one or by the other")


def check_state(state: Any, options: dict[str, Any], name: str) -> None:
    """Refuse what is not a state of the optimizer of this name with these aggregator options.

    Raises:
        ValueError: saying what it is instead.
    """
    if not isinstance(state, dict) or not STATE_KEYS - {"tracking"} <= set(state) <= STATE_KEYS:
        raise ValueError(
            f"not a state of {name}: expected the keys {sorted(STATE_KEYS)}; a plain torch optimizer's state belongs "
            "to .optimizer.load_state_dict"
        )
    if state["options"] != options:
        raise ValueError(
            f"the state was saved with {state['options']}, this optimizer has {options}; construct it with the saved "
            "options"
        )
