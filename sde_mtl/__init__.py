from sde_mtl.dynamics import LinearSDE, Recursion
from sde_mtl.noise import AdditiveNoise
from sde_mtl.problems import Quadratic
from sde_mtl.simulate import simulate
