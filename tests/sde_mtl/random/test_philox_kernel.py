"""The compiled normals against the torch ones, against mpmath and against the published words."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimizers.kernels.compiled import kernel
from sde_mtl.random import normals, philox, philox_kernel, portable_normals
from sde_mtl.random.box_muller import box_muller

WORD = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2**31, 2**32 - 1])
SEED = st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**32 - 1, 2**32, 2**64 - 1])
EPS = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}


@kernel
def words(counter, key0, key1):  # type: ignore[no-untyped-def]
    return philox_kernel.philox(counter[0], counter[1], counter[2], counter[3], key0, key1)


@kernel
def pairs(first, second, out):  # type: ignore[no-untyped-def]
    zero = out.dtype.type(0)
    for i in range(len(first)):
        out[i, 0], out[i, 1] = box_muller(first[i], second[i], zero)


@given(counter=st.tuples(WORD, WORD, WORD, WORD), seed=SEED)
def test_words_are_those_of_the_reference(counter: tuple[int, int, int, int], seed: int) -> None:
    a, b, c, d = (torch.tensor([word]) for word in counter)
    expected = [word.item() for word in philox((a, b, c, d), seed)]
    key0, key1 = np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)
    assert [int(word) for word in words(np.array(counter, np.uint32), key0, key1)] == expected


@given(seed=SEED, path=WORD, step=WORD, components=st.integers(1, 9))
def test_normals_are_those_of_torch(seed: int, path: int, step: int, components: int) -> None:
    """Float64 to 4 ulp, which are torch's as much as ours; float32 to 4e-7 relative of the float64 ones, both ways."""
    paths = torch.tensor([path, 0, 2**32 - 1])
    reference = portable_normals(paths, step, components, seed=seed)
    compiled = normals(paths, step, components, seed=seed)
    assert (compiled - reference).abs().le(8 * EPS[torch.float64] * reference.abs()).all()
    for function in (normals, portable_normals):
        single = function(paths, step, components, seed=seed, dtype=torch.float32)
        assert single.dtype == torch.float32
        assert (single - reference).abs().le(4e-7 * reference.abs()).all()


def test_another_step_path_seed_or_component_is_seen() -> None:
    z = normals(torch.tensor([5]), 3, 8, seed=1)
    others = [normals(torch.tensor([6]), 3, 8, seed=1), normals(torch.tensor([5]), 4, 8, seed=1),
              normals(torch.tensor([5]), 3, 8, seed=2), normals(torch.tensor([5]), 3, 8, seed=1 + 2**32)]  # fmt: skip
    assert not any((z == other).any() for other in others)
    assert len(z.unique()) == 8


@pytest.mark.parametrize(("dtype", "ulps"), [(torch.float64, 2.0), (torch.float32, 5.0)])
def test_box_muller_against_mpmath(dtype: torch.dtype, ulps: float) -> None:
    """Relative error over random words, the ends, the turns of the quadrant and the switch of the logarithm."""
    rng = np.random.default_rng(0)
    edges = np.array([0, 1, 2**29 - 1, 2**29, 2**30, 2**31, 3 * 2**29, 2**32 - 1, 2**32 - 2, 3037000499], np.uint32)
    first = np.concatenate([rng.integers(0, 2**32, 300, dtype=np.uint32), np.repeat(edges, len(edges))])
    second = np.concatenate([rng.integers(0, 2**32, 300, dtype=np.uint32), np.tile(edges, len(edges))])
    found = torch.empty(len(first), 2, dtype=dtype)
    pairs(first, second, found.numpy())
    worst = 0.0
    with mpmath.workdps(40):
        for a, b, (x, y) in zip(first.tolist(), second.tolist(), found.double().tolist(), strict=True):
            radius = mpmath.sqrt(-2 * mpmath.log((a + mpmath.mpf(1) / 2) / 2**32))
            angle = 2 * (b + mpmath.mpf(1) / 2) / 2**32
            for value, exact in ((x, radius * mpmath.cospi(angle)), (y, radius * mpmath.sinpi(angle))):
                worst = max(worst, float(abs((value - exact) / exact)))
    assert worst < 2 * ulps * EPS[dtype]
    assert worst > 0.1 * EPS[dtype], "an error of zero would mean that nothing was compared"


def test_threads_do_not_change_a_number() -> None:
    paths = torch.arange(70_001)
    alone = normals(paths, 2, 5, seed=3)
    torch.set_num_threads(2)
    try:
        assert torch.equal(normals(paths, 2, 5, seed=3), alone)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(normals(paths.flip(0), 2, 5, seed=3).flip(0), alone)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.float32 or torch\.float64, got torch\.float16"):
        normals(torch.arange(2), 0, 1, seed=0, dtype=torch.float16)
