"""Pixel values: from files' bytes to the numbers that networks read."""

from __future__ import annotations

import torch
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


def require_rgb(image: Tensor, name: str) -> None:
    """Raises unless this is one RGB image.

    Args:
        image: should be (3, H, W), uint8, or float in [0, 1]; resized images may overshoot a little.
        name: what to call it.

    Raises:
        ValueError: another shape or type, or float values of another range.
    """
    if image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0:
        raise ValueError(f"{name} is {tuple(image.shape)}, expected (3, H, W) RGB")
    if image.dtype == torch.uint8:
        return
    if not image.is_floating_point():
        raise ValueError(f"{name} is {image.dtype}, expected uint8 or float in [0, 1]")
    low, high = (float(bound) for bound in image.aminmax())
    if not (low >= -0.5 and high <= 1.5):  # NaN is neither
        raise ValueError(
            f"{name} has values from {low:g} to {high:g}, expected [0, 1]; divide by 255, or pass uint8"
        )
