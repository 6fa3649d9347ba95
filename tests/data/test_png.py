"""Label PNGs inflated without an image library agree with Pillow, or are left to it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vosssl.data.png import unfiltered_indices


def png(pixels: np.ndarray, mode: str, **options: object) -> bytes:
    stream = BytesIO()
    image = Image.fromarray(pixels, mode=mode)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(stream, format="PNG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (300, 400)])
def test_indices_of_a_palette_image_are_its_pixels(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    found = unfiltered_indices(png(pixels, "P"))
    assert found is not None
    assert (found == pixels).all()
    assert found.flags.writeable


def test_other_images_are_left_to_pillow() -> None:
    pixels = np.eye(8, dtype=np.uint8)
    assert unfiltered_indices(png(pixels, "L")) is None
    assert unfiltered_indices(png(pixels, "P", bits=1)) is None
    assert unfiltered_indices(b"no image" * 20) is None


def test_any_truncation_and_any_damaged_pixel_is_noticed() -> None:
    whole = png(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8), "P")
    for keep in range(0, len(whole) - 12, 7):
        assert unfiltered_indices(whole[:keep]) is None
    start = whole.index(b"IDAT") + 10
    for place in range(start, len(whole) - 20, 13):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        assert unfiltered_indices(bytes(damaged)) is None


def test_a_stream_of_more_pixels_than_declared_is_not_inflated() -> None:
    bomb = bytearray(png(np.zeros((2000, 2000), np.uint8), "P"))
    bomb[16:24] = (10).to_bytes(4, "big") * 2
    assert unfiltered_indices(bytes(bomb)) is None
