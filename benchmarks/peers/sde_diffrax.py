"""diffrax's Euler solver, jitted: one batched state or vmapped paths, the fast or the exact Brownian motion."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
from numpy.typing import NDArray

from peers.process import LEARNING_RATE, Contestant, Precision, Process

try:
    from jax import enable_x64
except ImportError:  # before jax 0.8
    from jax.experimental import enable_x64

PACKAGES = ("diffrax", "jax", "equinox")


def builder(*, exact: bool, vmapped: bool) -> Callable[[Process, int, int, Precision], Callable[[int], NDArray[Any]]]:
    """``exact``: VirtualBrownianTree, else UnsafeBrownianPath."""

    def build(process: Process, paths: int, steps: int, precision: Precision) -> Callable[[int], NDArray[Any]]:
        end = steps * LEARNING_RATE
        with enable_x64(precision == "float64"):
            H, m, S, diagonal, start = (jnp.asarray(part) for part in process.arrays(precision))

            def solve(y0: jax.Array, key: jax.Array) -> jax.Array:
                shape = jax.ShapeDtypeStruct(y0.shape, y0.dtype)
                motion = (
                    diffrax.VirtualBrownianTree(0.0, end, tol=LEARNING_RATE / 2, shape=shape, key=key)
                    if exact
                    else diffrax.UnsafeBrownianPath(shape=shape, key=key)
                )

                def diffusion(t: Any, y: Any, args: Any) -> lineax.AbstractLinearOperator:
                    if process.diagonal:
                        return lineax.DiagonalLinearOperator(jnp.broadcast_to(diagonal, y0.shape))
                    if y0.ndim == 1:
                        return lineax.MatrixLinearOperator(S)
                    return lineax.FunctionLinearOperator(lambda w: w @ S.T, shape)

                drift = diffrax.ODETerm(lambda t, y, args: (m - y) @ H)
                terms = diffrax.MultiTerm(drift, diffrax.ControlTerm(diffusion, motion))
                return diffrax.diffeqsolve(
                    terms, diffrax.Euler(), 0.0, end, LEARNING_RATE, y0, saveat=diffrax.SaveAt(t1=True),
                    max_steps=steps + 8, adjoint=diffrax.ForwardMode(),
                ).ys[0]  # fmt: skip

            if vmapped:
                whole = jax.jit(lambda key: jax.vmap(lambda k: solve(start, k))(jax.random.split(key, paths)))
            else:
                whole = jax.jit(lambda key: solve(jnp.broadcast_to(start, (paths, len(start))), key))

        def run(seed: int) -> NDArray[Any]:
            with enable_x64(precision == "float64"):
                return np.asarray(whole(jax.random.key(seed)))

        return run

    return build


CONTESTANTS = {
    "diffrax, batched": Contestant(builder(exact=False, vmapped=False)),
    "diffrax, vmapped": Contestant(builder(exact=False, vmapped=True), steps=500),
    "diffrax, VirtualBrownianTree": Contestant(builder(exact=True, vmapped=True), paths=500),
}
