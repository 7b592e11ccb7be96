"""What every dynamics promises to whoever advances it."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from optimizers.aggregators.by_name import aggregator
from sde_mtl.problems import AdditiveNoise, DoubleWell, FiniteSumRegression, MinibatchNoise, Quadratic
from sde_mtl.simulation import (
    SCHEMES,
    Dynamics,
    EffectiveSDE,
    EulerMaruyama,
    LinearSDE,
    Recursion,
    build_dynamics,
    simulate,
)

PROBLEM = Quadratic([[[1.0, 0.2], [0.2, 3.0]], [[2.0, 0.0], [0.0, 0.7]]], [[1.0, 0.0], [-1.0, 0.5]])
NOISE = AdditiveNoise.correlated([1.0, 0.5], correlation=-0.4, dimension=2)
REGRESSION = FiniteSumRegression.random(samples=30, dimension=2, tasks=2)
LINEAR, CAME_GRAD = aggregator("linear"), aggregator("came-grad")
DYNAMICS: dict[str, Dynamics] = {
    "recursion": Recursion(PROBLEM, NOISE, CAME_GRAD, [1.0, 4.0], 0.05),
    "recursion, minibatches": Recursion(REGRESSION, MinibatchNoise(REGRESSION, 4), LINEAR, [1.0, 1.0], 0.05),
    "recursion, wells": Recursion(DoubleWell(0.3, offset=0.2), NOISE, LINEAR, [1.0, 1.0], 0.05),
    "effective SDE": EffectiveSDE(PROBLEM, NOISE, CAME_GRAD, [1.0, 4.0], 0.05),
    "linear SDE": LinearSDE(PROBLEM, NOISE, [1.0, 4.0], 0.05),
    "own SDE, diagonal": EulerMaruyama(lambda x: -x, lambda x: 0.3 * x, 2, 0.02),
    "own SDE, scalar": EulerMaruyama(lambda x: x, torch.tensor([0.1, 0.2]), 2, 0.02, noise="scalar"),
    "own SDE, full": EulerMaruyama(lambda x: x, lambda x: torch.stack([x, 2 * x], -1), 2, 0.02, noise="full"),
    "own SDE, views": EulerMaruyama(lambda x: x[:], lambda x: x.view_as(x), 2, 0.02),
}
EVERY = pytest.mark.parametrize("dynamics", DYNAMICS.values(), ids=DYNAMICS.keys())
ATTRIBUTES = ("mean", "covariance", "kept", "passage", "occupation")


@dataclass
class Scribbling:
    """A dynamics that overwrites the positions it was given, as the protocol allows."""

    inner: Dynamics

    def __post_init__(self) -> None:
        self.dimension, self.time_step = self.inner.dimension, self.inner.time_step

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        moved = self.inner.advance(theta.clone(), paths, step, seed)
        theta.fill_(torch.nan)
        return moved


@dataclass
class Pure(Scribbling):
    """The negative of it: positions that were given stay as they are."""

    def advance(self, theta: Tensor, paths: Tensor, step: int, seed: int) -> Tensor:
        return self.inner.advance(theta.clone(), paths, step, seed)


@EVERY
@given(n=st.integers(1, 9), seed=st.integers(0, 2**64 - 1), step=st.integers(0, 2**31), single=st.booleans())
def test_a_step_is_the_same_whether_or_not_theta_is_overwritten(
    dynamics: Dynamics, n: int, seed: int, step: int, single: bool
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**63)
    theta = torch.randn(n, 2, generator=generator, dtype=torch.float32 if single else torch.float64)
    start, paths = theta.clone(), torch.arange(n)
    elsewhere = dynamics.advance(start.clone(), paths, step, seed)
    moved = dynamics.advance(theta, paths, step, seed)
    assert torch.equal(moved, elsewhere)
    assert moved.dtype == start.dtype
    assert not torch.equal(moved, start), "negative control: a step that does nothing is seen"
    if type(dynamics) is EulerMaruyama:
        assert moved.data_ptr() == theta.data_ptr()
    else:
        assert torch.equal(theta, start)


@EVERY
def test_simulations_use_only_what_a_step_returns(dynamics: Dynamics) -> None:
    scribbled, pure = (
        simulate(wrapped, [1.0, -0.5], 6, paths=30, record=[0, 2, 6], keep=[3], target=lambda theta: theta[:, 0] < 0.9,
                 region=lambda theta: theta[:, 1] > 0)
        for wrapped in (Scribbling(dynamics), Pure(dynamics))
    )  # fmt: skip
    for name in ATTRIBUTES:
        assert torch.equal(getattr(scribbled, name), getattr(pure, name)), name


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_start_that_a_user_gives_stays_as_it_is(dynamics: Dynamics, dtype: torch.dtype, tmp_path) -> None:
    start = torch.tensor([1.0, -0.5], dtype=dtype)
    for wrapped in (dynamics, Scribbling(dynamics)):
        simulate(wrapped, start, 3, paths=2, checkpoint=tmp_path / "run.ckpt", dtype=dtype)
        assert start.tolist() == [1.0, -0.5]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_by_name_is_its_class(scheme: str) -> None:
    dynamics = build_dynamics(scheme, PROBLEM, NOISE, LINEAR, [1.0, 4.0], 0.05)
    assert type(dynamics) is SCHEMES[scheme]
    assert dynamics.time_step == 0.05


def test_schemes_that_do_not_fit_are_named() -> None:
    parts = [1.0, 4.0], 0.05
    with pytest.raises(ValueError, match="unknown scheme 'ode'; there are recursion, effective-sde, linear-sde"):
        build_dynamics("ode", PROBLEM, NOISE, LINEAR, *parts)
    with pytest.raises(ValueError, match="time_step belongs to the SDEs"):
        build_dynamics("recursion", PROBLEM, NOISE, LINEAR, *parts, time_step=0.01)
    wells = DoubleWell(0.3)
    for problem, rule in ((PROBLEM, CAME_GRAD), (wells, LINEAR)):
        with pytest.raises(ValueError, match="linear-sde needs the linear aggregator, a quadratic"):
            build_dynamics("linear-sde", problem, NOISE, rule, *parts)
