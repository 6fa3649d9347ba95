"""What the official MobileSAM computed with weights from `tests.fill`, its inputs, and networks for tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.fill import filled
from vosssl.methods.mobile_sam import MobileSAM
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD

FOLDER = Path(__file__).resolve().parents[1] / "goldens" / "mobile_sam"


@cache
def arrays() -> dict[str, np.ndarray]:
    """The recorded arrays."""
    with np.load(FOLDER / "goldens.npz") as stored:
        return {name: stored[name] for name in stored.files}


@cache
def keys() -> list[tuple[str, list[int]]]:
    """Names and shapes of the official state dict, in order."""
    entries = json.loads((FOLDER / "keys.json").read_text())["mobile_sam_vit_t"]
    return [(name, shape) for name, shape, _ in entries]


def recorded_image(height: int, width: int, seed: int) -> Tensor:
    """Noise on 8x8 blocks of colour: (3, height, width) uint8."""
    drawn = np.random.RandomState(seed)
    colours = drawn.randint(30, 226, size=(8, 8, 3))
    blocks = colours[np.arange(height) * 8 // height][:, np.arange(width) * 8 // width]
    noisy = blocks + drawn.randint(-30, 31, size=(height, width, 3))
    return torch.from_numpy(noisy.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)


def recorded_tensor(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    """Normal numbers times `scale`, float32."""
    normal = np.random.RandomState(seed).standard_normal(shape) * scale
    return torch.from_numpy(normal.astype(np.float32))


def normalised(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 to what the image encoder reads."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images / 255 - mean) / std


def error(found: Tensor, name: str, *, step: int | None = None) -> float:
    """Largest difference to a recorded array, as a share of its largest magnitude.

    Of maps every `step`-th row and column was recorded; mean, spread and extremes of the whole are compared,
    too.
    """
    recorded = torch.from_numpy(arrays()[name])
    sample = found
    if found.shape != recorded.shape:
        step = step or found.shape[-1] // recorded.shape[-1]
        sample = found[..., ::step, ::step]
    assert sample.shape == recorded.shape, f"{name} is {tuple(found.shape)}, from {tuple(recorded.shape)}"
    largest = float(recorded.abs().max()) if recorded.numel() else 1.0
    difference = float((sample - recorded).abs().max()) if recorded.numel() else 0.0
    statistics = arrays().get(f"{name}.stats")
    if statistics is not None:
        whole = found.double()
        own = torch.stack([whole.mean(), whole.std(), whole.min(), whole.max(), whole.abs().mean()])
        difference = max(difference, float((own - torch.from_numpy(statistics)).abs().max()))
    return difference / largest


@cache
def official_mobile_sam() -> MobileSAM:
    """The network that computed the goldens; tests must not change it."""
    network = MobileSAM()
    network.load_state_dict(filled(network.state_dict()))
    return network.eval().requires_grad_(False)


def tiny_mobile_sam(**options: Any) -> MobileSAM:
    """A few thousand weights, for images of 64 pixels."""
    sizes: dict[str, Any] = {
        "image_size": 64,
        "widths": (8, 8, 8, 16),
        "depths": (1, 1, 1, 1),
        "heads": (1, 2, 2, 2),
        "windows": (3, 3, 5, 3),
        "expansion": 2,
        "classes": 2,
        "dim": 32,
        "mask_dim": 4,
        "decoder_heads": 2,
        "feed_forward_dim": 32,
        "iou_dim": 16,
    }
    network = MobileSAM(**sizes | options)
    network.load_state_dict(filled(network.state_dict()))
    return network.eval()
