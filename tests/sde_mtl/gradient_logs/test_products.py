import numpy as np
import pytest
from logs import split_frozen

from sde_mtl.gradient_logs import FrozenProducts, FrozenSet, frozen_products

WEIGHTS = np.array([1.0, 4.0])
NULL = np.array([[4.0, 0.0], [-1.0, 1.0]])
"""g_1ᵀg_J = 0 for the weights (1, 4), and g_J is not 0."""


def measured(seed: int, means: np.ndarray, n: int = 32, **options: float) -> FrozenProducts:
    return frozen_products(split_frozen(np.random.default_rng(seed), n, means, **options), WEIGHTS)


@pytest.fixture(scope="module")
def found() -> list[FrozenProducts]:
    """Two hundred sets of one law."""
    return [measured(seed, NULL, noise=2.0) for seed in range(200)]


def test_products_are_unbiased_under_noise_of_the_same_micro_batch() -> None:
    """Within 4 SE over 100 sets; the products on the same micro-batch are off by tr Σ_12 = 0.8·9."""
    means = np.array([[1.0, 0.0], [0.5, 1.0]])
    found, naive = [], []
    for seed in range(100):
        frozen = split_frozen(np.random.default_rng(seed), 16, means, noise=3.0, together=0.8)
        products = frozen_products(frozen, WEIGHTS)
        found.append([[e.value for e in row] for row in products.products])
        naive.append(frozen.gramian.mean(0))
    error = np.std(found, 0) / 10
    assert (np.abs(np.mean(found, 0) - means @ means.T) < 4 * error).all()
    assert np.mean(naive, 0)[0, 1] == pytest.approx(0.5 + 0.8 * 9, rel=0.1)


def test_the_jackknife_rejects_a_true_null_at_its_level_and_finds_harm(
    found: list[FrozenProducts],
) -> None:
    """g_1ᵀg_J = 0: 5 % within 4 SE of 200 sets; where it is −8 it is found nearly always."""
    assert abs(np.mean([abs(products.with_joint[0].z) > 2.04 for products in found]) - 0.05) < 4 * 0.0154
    harmed = NULL - np.array([[0.0, 0.0], [0.5, 0.0]])
    assert np.mean([measured(seed, harmed, noise=2.0).with_joint[0].z < -2.04 for seed in range(20)]) > 0.9


def test_without_any_signal_the_jackknife_is_cautious() -> None:
    outside = [abs(measured(seed, np.zeros((2, 1)), noise=2.0).products[0][1].z) > 2.04 for seed in range(60)]
    assert np.mean(outside) < 0.1


def test_errors_are_those_of_repeated_sets(found: list[FrozenProducts]) -> None:
    for read in (
        lambda p: p.with_joint[1],
        lambda p: p.cosines_with_joint[1],
        lambda p: p.signal_to_noise[0],
        lambda p: p.joint_signal_to_noise,
        lambda p: p.diffusion,
        lambda p: p.coefficients[0],
    ):
        values, errors = zip(*((read(p).value, read(p).error) for p in found), strict=True)
        assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)


def test_noise_scale_is_covered(found: list[FrozenProducts]) -> None:
    """tr Σ_11/‖g_1‖² = 4/16, in about 95 of 100 sets."""
    scales = [products.noise_scale[0] for products in found]
    assert abs(np.mean([scale.low <= 0.25 <= scale.high for scale in scales]) - 0.95) < 4 * 0.0154
    nothing = measured(0, np.zeros((2, 1)), noise=2.0).noise_scale[0]
    assert nothing.high == np.inf


@pytest.mark.parametrize("noise", [0.5, 3.0])
@pytest.mark.parametrize("together", [-0.5, 0.0, 0.8])
def test_diffusion_keeps_to_its_bound(noise: float, together: float) -> None:
    """T14, R ≤ 1 + SNR_J, on every set with ‖E F‖² ≥ 0."""
    for seed in range(8):
        found = measured(seed, np.array([[1.0, 0.0], [-0.9, 0.3]]), noise=noise, together=together)
        assert found.diffusion.value <= found.diffusion_bound.value + 2 * found.diffusion.error


def test_came_grad_is_linear_scalarization_in_high_dimension() -> None:
    """T13: cos(E F, Σc̄_ig_i) is 1 within 4 SE over sets where it is 1, and less than that in two dimensions."""
    high = [measured(seed, NULL, noise=2.0, d=400).scalarization_cosine.value for seed in range(40)]
    assert np.mean(high) == pytest.approx(1, abs=4 * np.std(high) / np.sqrt(40) + 0.01)
    low = [measured(seed, NULL, noise=3.0, d=2, n=60).scalarization_cosine.value for seed in range(20)]
    assert np.nanmean(low) < np.mean(high) - 0.01


def test_heads_hide_harm() -> None:
    """The same trunk with heads: g_1ᵀg_J of all parameters gains the squared length of the head's gradient."""
    frozen = split_frozen(np.random.default_rng(0), 32, NULL - np.array([[0.0, 0.0], [1.0, 0.0]]), noise=2.0, head=6.0)
    shared = frozen.restricted(np.array([True, False]))
    assert frozen_products(shared, WEIGHTS).with_joint[0].z < -3
    all_parameters = frozen_products(frozen, WEIGHTS, groups=("trunk", "heads"))
    assert all_parameters.with_joint[0].z > 3
    parts = all_parameters.by_group
    assert [e.value for e in parts["heads"]] == pytest.approx([36, 4 * 36])
    assert [e.error for e in parts["heads"]] == pytest.approx([0, 0], abs=1e-9)
    both = [trunk.value + head.value for trunk, head in zip(parts["trunk"], parts["heads"], strict=True)]
    assert both == pytest.approx([e.value for e in all_parameters.with_joint])
    assert parts["trunk"][0].z == pytest.approx(frozen_products(shared, WEIGHTS).with_joint[0].z)


def test_noise_alone_conflicts_as_its_correlation_says() -> None:
    for together, expected in ((0.0, 0.5), (0.95, 0.0)):
        found = measured(0, NULL, n=120, noise=2.0, together=together)
        assert found.chance_pairs == pytest.approx(expected, abs=0.15)
        assert found.chance_first == found.chance_pairs


def test_few_micro_batches_are_refused() -> None:
    g = np.ones((3, 2, 4))
    with pytest.raises(ValueError, match="need 4 micro-batches, the set at step 5 has 3"):
        frozen_products(FrozenSet(5, np.ones((3, 2)), g @ g.transpose(0, 2, 1), g, None), WEIGHTS)
