from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rrg.data import images
from rrg.data.images import BrokenImage, ImageCache, read_image

RAMP = np.tile(np.arange(256, dtype=np.uint8), (256, 1))


def test_deep_images_are_scaled_not_clipped(tmp_path: Path) -> None:
    """12 bits in a 16-bit file give the same picture as 8 bits."""
    Image.fromarray(RAMP).save(tmp_path / "8.png")
    Image.fromarray(RAMP.astype(np.uint16) * 16).save(tmp_path / "16.png")
    Image.fromarray(RAMP.astype(np.int32) * 200).save(tmp_path / "32.tiff")
    plain = read_image(tmp_path / "8.png", 32).astype(int)
    for name in ("16.png", "32.tiff"):
        assert np.abs(read_image(tmp_path / name, 32) - plain).max() <= 1
    clipped = np.clip(RAMP.astype(int) * 16, 0, 255).astype(np.uint8)
    Image.fromarray(clipped).save(tmp_path / "clipped.png")
    assert np.abs(read_image(tmp_path / "clipped.png", 32) - plain).max() > 100, "negative control"


def test_one_grey_makes_a_black_image(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 700, dtype=np.uint16)).save(tmp_path / "flat.png")
    assert read_image(tmp_path / "flat.png", 4).tolist() == [[0] * 4] * 4


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1", "CMYK"])
def test_any_colours_become_grey(tmp_path: Path, mode: str) -> None:
    name = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.fromarray(np.where(RAMP < 128, 0, 255).astype(np.uint8)).convert(mode).save(name)
    image = read_image(name, 16)
    assert image.dtype == np.uint8
    assert (image[:, :6].max(), image[:, 10:].min()) == pytest.approx((0, 255), abs=8)


def test_a_large_jpeg_is_the_same_picture(tmp_path: Path) -> None:
    """Decoded at an eighth of its size, it differs from the whole by less than 2 grey levels of 255."""
    large = np.kron(RAMP, np.ones((8, 8), np.uint8))
    Image.fromarray(large).save(tmp_path / "large.jpg", quality=95)
    whole = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(read_image(tmp_path / "large.jpg", 64).astype(int) - whole)[:, 2:-2].max() < 2


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing"])
def test_broken_files_are_named(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"CXR1.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    read_image(path, 16)
    if damage == "missing":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"no image", "empty": b""}[damage])
    with pytest.raises(BrokenImage, match=rf"cannot read the image .*CXR1\.{suffix}"):
        read_image(path, 16)


def test_the_cache_keeps_what_was_used_last_within_its_bytes() -> None:
    made = []

    def make(name: str) -> images.Pixels:
        made.append(name)
        return np.zeros((10, 10), np.uint8)

    cache = ImageCache(250)
    for name in "abacab":
        cache.get(name, lambda name=name: make(name))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
    assert cache.bytes == 200


def test_an_image_beyond_the_cache_is_still_served() -> None:
    cache = ImageCache(10)
    assert cache.get("a", lambda: np.zeros((10, 10), np.uint8)).shape == (10, 10)
    assert (cache.bytes, len(cache.images)) == (0, 0)


def test_workers_share_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker:
        num_workers = 4

    monkeypatch.setattr(images, "get_worker_info", Worker)
    cache = ImageCache(400)
    for name in range(4):
        cache.get(name, lambda: np.zeros((10, 10), np.uint8))
    assert cache.bytes == 100
