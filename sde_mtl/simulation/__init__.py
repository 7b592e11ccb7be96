"""Training as a stochastic process, and the simulation of many of its paths.

Dynamics                            what ``simulate`` advances; bring your own
Recursion, EffectiveSDE, LinearSDE  the exact training loop and its SDEs
EulerMaruyama                       any SDE of your own
simulate                            many paths of either, as an Ensemble
fuse                                the compiled steps of a dynamics, where there are any
SCHEMES, build_dynamics             dynamics by name

Grids of simulations are in :mod:`sde_mtl.simulation.sweep`, which needs pyarrow.
"""

from sde_mtl.simulation._simulate import DivergedWarning, recorded_steps, simulate
from sde_mtl.simulation.dynamics import Dynamics, EffectiveSDE, LinearSDE, Recursion, aggregate
from sde_mtl.simulation.ensemble import Ensemble
from sde_mtl.simulation.euler_maruyama import EulerMaruyama
from sde_mtl.simulation.fused import FusedSteps, fuse
from sde_mtl.simulation.schemes import SCHEMES, build_dynamics
from sde_mtl.simulation.state import CheckpointError

__all__ = [
    "SCHEMES",
    "CheckpointError",
    "DivergedWarning",
    "Dynamics",
    "EffectiveSDE",
    "Ensemble",
    "EulerMaruyama",
    "FusedSteps",
    "LinearSDE",
    "Recursion",
    "aggregate",
    "build_dynamics",
    "fuse",
    "recorded_steps",
    "simulate",
]
