"""Pictures as PNG or JPEG: opened without harm, decoded, brought to a shape.

Legend: H height, W width, C channels.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from citeflow.errors import DataError

MAX_PIXELS = 64 << 20
"""Of one picture of a dataset; a small file may claim any number."""

ORIENTATION = 0x0112
"""Tag of Exif: how a camera was held."""
ON_ITS_SIDE = (5, 6, 7, 8)

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, MemoryError)
"""Errors that Pillow raises on a damaged picture, besides those for bombs."""


@contextlib.contextmanager
def decoding(name: object, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Name the picture in which Pillow finds damage in the block.

    Raises:
        DataError: the picture is damaged, or has too many pixels.
    """
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError("image is too large", name, hint=f"at most {max_pixels:,} pixels") from None
    except _BROKEN as error:
        raise DataError("image is damaged", f"{name}: {error}") from None


def opened(file: Path | BinaryIO, name: object, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture whose size is bearable; its pixels are not read yet.

    Args:
        file: the picture.
        name: what an error calls it.
        max_pixels: the most that its header may claim.

    Raises:
        DataError: it is no PNG or JPEG, is damaged, or has too many pixels.
    """
    with decoding(name, max_pixels):
        try:
            image = Image.open(file, formats=("PNG", "JPEG"))
        except UnidentifiedImageError:
            raise DataError("not a PNG or JPEG image", name) from None
    if image.width * image.height > max_pixels:
        image.close()
        value = f"{name}: {image.width} x {image.height}"
        raise DataError("image is too large", value, hint=f"at most {max_pixels:,} pixels")
    return image


def size(image: Image.Image) -> tuple[int, int]:
    """Return height and width of a picture as it is to be seen: cameras turn JPEG by a tag."""
    is_turned = image.format == "JPEG" and image.getexif().get(ORIENTATION) in ON_ITS_SIDE
    return image.size if is_turned else image.size[::-1]


def upright(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode a picture; return its pixels [H, W, C] as it is to be seen."""
    image.load()
    seen = ImageOps.exif_transpose(image) if image.format == "JPEG" else image
    return pixels(seen, shape)


def pixels(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the pixels [H, W, C] of a picture, uint8, resized if it has another size."""
    height, width, channels = shape
    if image.mode.startswith("I"):  # 16 bits, which `convert` would cut
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels)
