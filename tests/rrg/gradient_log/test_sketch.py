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
