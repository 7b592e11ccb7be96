"""Statements about multi-objective training: one module each, with derivation, prediction and check.

Every module t01 … t20 has a docstring that states and bounds the claim, ``derive()`` (sympy, raises unless the
derivation closes), prediction functions, and ``check(seed, paths) -> list[Check]``. What several of them share:

OrnsteinUhlenbeck       laws of linear scalarization on quadratics (T3)
linearize, Sensitivity  CAME-Grad's update and its Jacobian (T4)
pair                    two gradients in the plane
kinks, descent          where the delta method ends; noiseless training on two quadratic tasks
hidden_weights          expected coefficients under gradient noise, and resting points (T13 … T20)
noisy_training          training with noise of any law, momentum, coefficients of another micro-batch
require                 raises DerivationError unless a derivation closes
"""

from collections.abc import Callable

from sde_mtl.theory import (
    descent,
    examples,
    hidden_weights,
    kinks,
    noisy_training,
    t01_interaction,
    t02_drift_deviation,
    t03_diffusion_decay,
    t04_effective_diffusion,
    t05_validity,
    t06_resting_points,
    t07_weighted_centre,
    t08_kappa,
    t09_adaptive_fusion,
    t10_escape,
    t11_orders,
    t12_bias,
    t13_effective_scalarization,
    t14_conservation,
    t15_batch_size,
    t16_rates,
    t17_tracking,
    t18_replay,
    t20_task_weights,
)
from sde_mtl.theory.check import Check, DerivationError, require
from sde_mtl.theory.examples import pair
from sde_mtl.theory.sensitivity import Sensitivity, linearize
from sde_mtl.theory.t03_diffusion_decay import OrnsteinUhlenbeck

STATEMENTS: dict[str, Callable[[int, int], list[Check]]] = {
    "T1": t01_interaction.check,
    "T2": t02_drift_deviation.check,
    "T3": t03_diffusion_decay.check,
    "T4": t04_effective_diffusion.check,
    "T5": t05_validity.check,
    "T6": t06_resting_points.check,
    "T7": t07_weighted_centre.check,
    "T8": t08_kappa.check,
    "T9": t09_adaptive_fusion.check,
    "T10": t10_escape.check,
    "T11": t11_orders.check,
    "T12": t12_bias.check,
    "T13": t13_effective_scalarization.check,
    "T14": t14_conservation.check,
    "T15": t15_batch_size.check,
    "T16": t16_rates.check,
    "T17": t17_tracking.check,
    "T18": t18_replay.check,
    "T20": t20_task_weights.check,
}

FULL: dict[str, Callable[[int, int], list[Check]]] = {
    "T4": t04_effective_diffusion.check_full,
    "T6": t06_resting_points.check_full,
    "T10": t10_escape.check_full,
    "T13": t13_effective_scalarization.check_full,
    "T17": t17_tracking.check_full,
}
"""Longer checks of ``sde-mtl verify --full``, beside the others with ten times their paths."""

__all__ = [
    "FULL",
    "STATEMENTS",
    "Check",
    "DerivationError",
    "OrnsteinUhlenbeck",
    "Sensitivity",
    "descent",
    "examples",
    "hidden_weights",
    "kinks",
    "linearize",
    "noisy_training",
    "pair",
    "require",
    "t01_interaction",
    "t02_drift_deviation",
    "t03_diffusion_decay",
    "t04_effective_diffusion",
    "t05_validity",
    "t06_resting_points",
    "t07_weighted_centre",
    "t08_kappa",
    "t09_adaptive_fusion",
    "t10_escape",
    "t11_orders",
    "t12_bias",
    "t13_effective_scalarization",
    "t14_conservation",
    "t15_batch_size",
    "t16_rates",
    "t17_tracking",
    "t18_replay",
    "t20_task_weights",
]
