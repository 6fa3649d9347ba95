"""Bytes and floats become the same numbers."""

from __future__ import annotations

import torch

from vosssl.ops.images import as_float


def test_bytes_become_shares_of_255() -> None:
    assert torch.equal(as_float(torch.tensor([0, 51, 255], dtype=torch.uint8)), torch.tensor([0.0, 0.2, 1.0]))


def test_floats_stay_as_they_are_in_single_precision() -> None:
    images = torch.rand(3, 4, 5)
    assert as_float(images) is images
    assert as_float(images.double()).dtype == as_float(images.half()).dtype == torch.float32
