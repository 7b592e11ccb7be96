"""Pixels of a study: read from its files, or rendered from its findings; kept decoded while memory allows."""

import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import get_worker_info

from rrg.data.phantom import render, seed_of
from rrg.data.study import Study

Pixels = NDArray[np.uint8]
MEAN, DEVIATION = 0.5, 0.25
"""Of grey values in [0, 1]: images are standardised with them before a model sees them."""
CACHE_BYTES = 1 << 30
"""Most memory of decoded images, divided among the processes that load them."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for a damaged file."""


class BrokenImage(ValueError):
    """A file that cannot be decoded as an image; the message names it."""


def read_image(path: Path, size: int) -> Pixels:
    """Decode a file, turn it grey, and resize it to a square without keeping its aspect, as R2Gen does.

    Images of more than 8 bits are scaled from their darkest to their brightest pixel, not clipped.

    Args:
        path: anything Pillow reads.
        size: height and width in pixels.

    Returns:
        (size, size) uint8.

    Raises:
        BrokenImage: if the file is missing, truncated, or no image.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "deep.png"
        ...     Image.fromarray(np.array([[0, 4095], [0, 4095]], dtype=np.uint16)).save(path)
        ...     read_image(path, 2)
        array([[  0, 255],
               [  0, 255]], dtype=uint8)
    """
    try:
        with Image.open(path) as image:
            image.draft("L", (size, size))  # lets JPEG decode at a fraction of its size
            return np.asarray(to_grey(image).resize((size, size), Image.Resampling.BILINEAR))
    except UNREADABLE as error:
        raise BrokenImage(f"cannot read the image {path}: {error}") from error


def to_grey(image: Image.Image) -> Image.Image:
    """8-bit grey; deeper images are scaled from their darkest to their brightest pixel."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image.convert("L")
    deep = np.asarray(image, dtype=np.float32)
    low, high = float(deep.min()), float(deep.max())
    return Image.fromarray(np.rint((deep - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))


def study_images(study: Study, size: int, views: int = 1) -> list[Pixels]:
    """The first views of a study, each (size, size) uint8; a study without files has one, rendered.

    Raises:
        BrokenImage: if a file cannot be read.

    Example:
        >>> from rrg.data.grammar import phantom_studies
        >>> [image.shape for image in study_images(phantom_studies(1)[0], 32, views=2)]
        [(32, 32)]
    """
    if not study.images:
        key = (study.findings, study.id, size)
        return [_CACHE.get(key, partial(render, study.findings, seed=seed_of(study.id), size=size))]
    return [_CACHE.get((path, size), partial(read_image, path, size)) for path in study.images[:views]]


class ImageCache:
    """Images by key, the least recently used forgotten first; for one thread.

    Args:
        limit: most bytes kept, divided by the number of DataLoader workers inside one.

    Example:
        >>> cache = ImageCache(8)
        >>> for key in "abc":
        ...     _ = cache.get(key, lambda: np.zeros((2, 2), np.uint8))
        >>> list(cache.images), cache.bytes
        (['b', 'c'], 8)
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.images: OrderedDict[Hashable, Pixels] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Pixels]) -> Pixels:
        """The image of the key, made if it is not there; not to be written to."""
        if key in self.images:
            self.images.move_to_end(key)
            return self.images[key]
        image = self.images[key] = make()
        self.bytes += image.nbytes
        worker = get_worker_info()
        limit = self.limit // (worker.num_workers if worker else 1)
        while self.bytes > limit:
            self.bytes -= self.images.popitem(last=False)[1].nbytes
        return image


_CACHE = ImageCache(CACHE_BYTES)
