"""Euler–Maruyama for any drift and diffusion, in place, on any device."""

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from sde_mtl.random import normals

Field = Callable[[Tensor], Tensor]
"""θ (n, d) to a value for each path."""
Noise = Literal["diagonal", "full", "scalar"]
COEFFICIENT = {"diagonal": "(n, d) or (d,)", "full": "(n, d, m) or (d, m)", "scalar": "(n, d) or (d,)"}


class EulerMaruyama:
    r"""Euler–Maruyama for a stochastic differential equation of your own (Kloeden and Platen 1992, section 10.2),

    .. math:: dΘ = f(Θ)\,dt + g(Θ)\,dW, \qquad θ ← θ + f(θ)\,dt + g(θ)\sqrt{dt}\,z,

    for :func:`sde_mtl.simulate`, in whose dtype and on whose device it runs. Strong order ½ (1 if g is constant), weak
    order 1 (theory T11). Noise is that of (seed, path, step) for any batch of paths.

    Args:
        drift: f, (n, d) → (n, d). It may return a buffer of its own, but must not change θ.
        diffusion: g, by the kind of noise, as a function of θ or a constant tensor (additive noise).
        dimension: d.
        time_step: dt > 0.
        noise: "diagonal": g is (n, d) or (d,), W has d components; "full": (n, d, m) or (d, m), m components;
            "scalar": (n, d) or (d,), one component drives all coordinates.

    Raises:
        ValueError: for a time step that is not positive, another kind of noise, or a constant of the wrong shape; when
            advancing, for a drift or diffusion of the wrong shape.

    Example:
        >>> import torch
        >>> from sde_mtl import simulate
        >>> process = EulerMaruyama(lambda theta: -2 * theta, torch.tensor([0.5]), dimension=1, time_step=0.01)
        >>> ensemble = simulate(process, [1.0], 100, paths=4000)
        >>> bool((ensemble.mean - 0.98**100).abs() < 5 * ensemble.mean_error())
        True
    """

    def __init__(
        self,
        drift: Field,
        diffusion: Field | Tensor,
        dimension: int,
        time_step: float,
        *,
        noise: Noise = "diagonal",
    ) -> None:
        if not 0 < time_step < math.inf:
            raise ValueError(f"time_step = {time_step} must be finite and > 0")
        if noise not in COEFFICIENT:
            raise ValueError(f"noise = {noise!r} must be one of {', '.join(COEFFICIENT)}")
        self.drift, self.diffusion, self.noise = drift, diffusion, noise
        self.dimension, self.time_step = dimension, time_step
        if isinstance(diffusion, Tensor):
            self._check(diffusion, 1)

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        """One step of every path, written into ``theta`` (n, d), which is returned; keep a copy of your own."""
        f = _apart(self.drift(theta), theta)
        if f.shape != theta.shape:
            raise ValueError(f"drift must return {tuple(theta.shape)} for theta of this shape, got {tuple(f.shape)}")
        if isinstance(self.diffusion, Tensor):
            g = self.diffusion.to(theta)
        else:
            g = _apart(self.diffusion(theta), theta)
            self._check(g, len(theta))
        components = {"diagonal": self.dimension, "scalar": 1}.get(self.noise, g.shape[-1])
        z = normals(paths, step, components, seed=seed, dtype=theta.dtype)
        spread = math.sqrt(self.time_step)
        if self.noise != "full":
            theta.addcmul_(g, z, value=spread)
        elif g.dim() == 2:
            theta.addmm_(z, g.T, alpha=spread)
        else:
            theta.unsqueeze(-1).baddbmm_(g, z.unsqueeze(-1), alpha=spread)
        return theta.add_(f, alpha=self.time_step)

    def _check(self, value: Tensor, paths: int) -> None:
        tail = value.shape[-2:-1] if self.noise == "full" else value.shape[-1:]
        lead = value.shape[: -2 if self.noise == "full" else -1]
        if tail != (self.dimension,) or lead not in ((), (paths,)):
            raise ValueError(
                f"diffusion with {self.noise} noise must be {COEFFICIENT[self.noise]} with d = {self.dimension}, "
                f"got {tuple(value.shape)}"
            )


def _apart(value: Tensor, theta: Tensor) -> Tensor:
    """A drift or diffusion that is θ itself, or a view of it, must not change while θ does."""
    return value.clone() if value.untyped_storage().data_ptr() == theta.untyped_storage().data_ptr() else value
