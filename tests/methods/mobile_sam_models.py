"""What the official MobileSAM computed with weights from `tests.fill`, its inputs, and networks for tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.fill import filled
from vosssl.backbones.tiny_vit import TinyViT
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


@cache
def official_encoder() -> TinyViT:
    """The image encoder that computed the goldens; tests must not change it."""
    network, prefix = TinyViT(), "image_encoder."
    state = filled({prefix + name: value for name, value in network.state_dict().items()})
    network.load_state_dict({name.removeprefix(prefix): value for name, value in state.items()})
    return network.eval().requires_grad_(False)


def error(found: Tensor, name: str) -> float:
    """Largest difference to a recorded array, as a share of its largest magnitude.

    Of maps every n-th row and column was recorded; mean, spread and extremes of the whole are compared, too.
    """
    recorded = torch.from_numpy(arrays()[name])
    if recorded.ndim > 2:
        step = -(-found.shape[-1] // recorded.shape[-1])
        sample = found[..., ::step, ::step] if recorded.shape != found.shape else found
    else:
        sample = found
    assert sample.shape == recorded.shape, f"{name} is {tuple(found.shape)}, from {tuple(recorded.shape)}"
    largest = float(recorded.abs().max()) if recorded.numel() else 1.0
    difference = float((sample - recorded).abs().max()) if recorded.numel() else 0.0
    statistics = arrays().get(f"{name}.stats")
    if statistics is not None:
        whole = found.double()
        own = torch.stack([whole.mean(), whole.std(), whole.min(), whole.max(), whole.abs().mean()])
        difference = max(difference, float((own - torch.from_numpy(statistics)).abs().max()))
    return difference / largest
