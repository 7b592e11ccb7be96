"""The zoo of :mod:`optimizers.testing`, and hypothesis strategies over CAME-Grad's options."""

from hypothesis import strategies as st

from optimizers.testing.samplers import SAMPLERS, WELL_POSED, Matrix, sample

__all__ = [
    "SAMPLERS",
    "WELL_POSED",
    "Matrix",
    "exponents",
    "gradients",
    "kappas",
    "nus",
    "rhos",
    "sample",
    "seeds",
    "task_weights",
]

seeds = st.integers(0, 2**32 - 1)
rhos = st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99])
kappas = st.floats(1.0, 5.0)
nus = st.floats(0.0, 1.0)
exponents = st.integers(-30, 30)


@st.composite
def gradients(draw: st.DrawFn, *, kinds: tuple[str, ...] = tuple(SAMPLERS), max_tasks: int = 12) -> Matrix:
    """A matrix of the zoo."""
    return sample(draw(st.sampled_from(kinds)), draw(st.integers(1, max_tasks)), draw(seeds))


@st.composite
def task_weights(draw: st.DrawFn, tasks: int) -> list[float]:
    """Weights ≥ 0, some of them zero, not all."""
    weights = draw(st.lists(st.sampled_from([0.0, 0.3, 1.0, 4.0]), min_size=tasks, max_size=tasks))
    return weights if any(weights) else [1.0] * tasks
