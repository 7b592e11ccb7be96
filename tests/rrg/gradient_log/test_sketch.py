import pytest
import torch

from rrg.gradient_log.sketch import CountSketch


def test_sketch_keeps_inner_products_on_average() -> None:
    """Mean over 400 sketches within 5 SE of ⟨x, y⟩, spread at most the bound; a biased map is rejected."""
    x, y = torch.randn(5000), torch.randn(5000)
    y += 0.5 * x
    inner = torch.tensor([CountSketch(5000, 64, seed)([x]) @ CountSketch(5000, 64, seed)([y]) for seed in range(400)])
    exact, spread = x @ y, inner.std()
    assert abs(inner.mean() - exact) < 5 * spread / 20
    assert spread <= 1.25 * ((x @ x * (y @ y) + exact**2) / 64).sqrt()
    assert abs(1.1 * inner.mean() - exact) > abs(inner.mean() - exact)


@pytest.mark.parametrize(("length", "dim"), [(300, 64), (5000, 64), (5000, 1024), (7, 16)])
def test_every_coordinate_goes_to_one_bucket_with_a_sign(length: int, dim: int) -> None:
    """Of both routes, few blocks and many: coordinates of one block never meet, and signs are ±1."""
    sketch = CountSketch(length, dim, 3)
    chosen = torch.randperm(length)[:40]
    buckets = {}
    for coordinate in chosen.tolist():
        found = sketch([_unit(length, coordinate)])
        (bucket,) = found.nonzero().flatten().tolist()
        assert abs(float(found[bucket])) == 1
        assert buckets.setdefault((coordinate // dim, bucket), coordinate) == coordinate
    x, y = torch.randn(length), torch.randn(length)
    assert torch.allclose(sketch([x]) + 2 * sketch([y]), sketch([x + 2 * y]), atol=1e-3)


def _unit(length: int, coordinate: int) -> torch.Tensor:
    x = torch.zeros(length)
    x[coordinate] = 1
    return x
