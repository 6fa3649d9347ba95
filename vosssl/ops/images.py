"""Pixel values: from files' bytes to the numbers that networks read."""

from __future__ import annotations

from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]; pretrained backbones want it subtracted
IMAGENET_STD = (0.229, 0.224, 0.225)  # then divided by


def as_float(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1].

    Args:
        images: any shape, uint8, or float in [0, 1] already.

    Returns:
        The same shape, float32; the same tensor where nothing has to change.
    """
    return images.float() if images.is_floating_point() else images.float() / 255
