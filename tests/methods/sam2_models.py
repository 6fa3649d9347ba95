"""SAM 2's recorded outputs and the inputs they were computed from."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.fill import filled
from vosssl.methods.sam2.network import SAM2

FOLDER = Path(__file__).resolve().parents[1] / "goldens" / "sam2"


@cache
def arrays() -> dict[str, np.ndarray]:
    """Recorded outputs of stages on 256 x 256 pixels, by `stage/array`; subsampled on the last two axes."""
    with np.load(FOLDER / "stages.npz") as stored:
        return {name: stored[name] for name in stored.files}


@cache
def keys() -> dict[str, list[list[Any]]]:
    """Names and shapes of the official state dicts of SAM 2.1, in order."""
    contents: dict[str, list[list[Any]]] = json.loads((FOLDER / "keys.json").read_text())
    return contents


def recorded(name: str) -> Tensor:
    """One array of `arrays`."""
    return torch.from_numpy(np.asarray(arrays()[name]))


def noise(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    """Normal numbers, the same on every machine."""
    values = np.random.RandomState(seed).standard_normal(shape) * scale
    return torch.from_numpy(values.astype(np.float32))


def blocky_image(size: int, seed: int) -> Tensor:
    """The image that stages were recorded on: (1, 3, size, size) RGB in [0, 1]."""
    rng = np.random.RandomState(seed)
    coarse = rng.randint(30, 226, size=(8, 8, 3))
    places = np.arange(size) * 8 // size
    pixels = np.clip(coarse[places][:, places] + rng.randint(-30, 31, size=(size, size, 3)), 0, 255)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def difference(values: Tensor, name: str) -> float:
    """The largest difference from what was recorded, divided by the largest recorded value."""
    wanted = recorded(name)
    height, width = wanted.shape[-2:]
    if wanted.ndim == 4:
        steps = values.shape[-2] // height, values.shape[-1] // width
        values = values[..., :: steps[0], :: steps[1]]
    elif wanted.shape != values.shape:  # tokens, subsampled
        values = values[..., :: -(-values.shape[-2] // height), :: values.shape[-1] // width]
    assert values.shape == wanted.shape, f"{name} is {tuple(values.shape)}, recorded {tuple(wanted.shape)}"
    gap = (values.detach().double() - wanted.double()).abs().max()
    return float(gap / wanted.double().abs().max().clamp(min=1e-3))


def assert_agrees(values: Tensor, name: str, *, relative: float = 1e-4) -> None:
    """Compares with what was recorded; the record itself is rounded by up to 1.6e-5."""
    gap = difference(values, name)
    assert gap <= relative, f"{name} differs by {gap:.2e} of its largest value, allowed {relative:.0e}"


@cache
def official_sam2(version: str = "2.1") -> SAM2:
    """SAM 2 tiny with the weights of the records; tests must not change it."""
    network = SAM2(version=version)  # type: ignore[arg-type]
    network.load_state_dict(filled(network.state_dict()))
    return network.eval().requires_grad_(False)


def tiny_sam2(**options: Any) -> SAM2:
    """A SAM 2 of a few thousand weights, filled."""
    sizes: dict[str, Any] = {
        "width": 8,
        "depths": (1, 1, 2, 1),
        "windows": (8, 4, 6, 3),
        "global_blocks": (3,),
        "dim": 32,
        "memory_dim": 8,
        "feed_forward_dim": 32,
        "memory_layers": 2,
        "decoder_heads": 4,
    }
    network = SAM2(**sizes | options)
    network.load_state_dict(filled(network.state_dict()))
    return network.eval()


def moving_rectangles(frames: int, height: int, width: int, seed: int) -> Tensor:
    """The videos that were followed: two rectangles over noise, (T, 3, H, W) uint8."""
    rng = np.random.RandomState(seed)
    coarse = rng.randint(30, 226, size=(8, 8, 3))
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    background = coarse[rows][:, columns] + rng.randint(-30, 31, size=(height, width, 3))
    video = np.repeat(np.clip(background, 0, 255).astype(np.uint8)[None], frames, axis=0)
    rng = np.random.RandomState(seed + 1)
    tall, wide = height // 3, width // 4
    for colour in ((230, 40, 30), (20, 60, 220)):
        top, left = rng.randint(0, height // 2), rng.randint(0, width // 2)
        down, right = rng.randint(-2, 4), rng.randint(-2, 5)
        for time in range(frames):
            y = min(max(top + down * time, 0), height - tall)
            x = min(max(left + right * time, 0), width - wide)
            video[time, y : y + tall, x : x + wide] = colour
    return torch.from_numpy(video).permute(0, 3, 1, 2)
