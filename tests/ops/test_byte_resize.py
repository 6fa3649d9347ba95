"""Bytes resized as by Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vosssl.ops.byte_resize import Filter, resize_bytes


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(40, 61), (90, 128), (180, 200), (90, 50), (200, 60), (1, 1)])
def test_every_byte_is_pillows(kind: Filter, size: tuple[int, int]) -> None:
    image = np.random.RandomState(0).randint(0, 256, (90, 128, 3)).astype(np.uint8)
    resample = Image.Resampling.BILINEAR if kind == "bilinear" else Image.Resampling.BICUBIC
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], resample))
    found = resize_bytes(torch.from_numpy(image).permute(2, 0, 1), size, kind=kind)
    assert torch.equal(found, torch.from_numpy(expected.copy()).permute(2, 0, 1))


def test_halving_takes_means_of_neighbours_weighted_by_hand() -> None:
    row = torch.tensor([[0, 0, 8, 8]], dtype=torch.uint8)
    # the first new pixel lies between the first two: weights 3, 3, 1 of 7
    assert resize_bytes(row, (1, 2)).tolist() == [[1, 7]]


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        resize_bytes(torch.zeros(3, 4, 4), (2, 2))
