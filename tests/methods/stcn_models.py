"""What the official STCN code computed with weights from `tests.fill`, and the networks that tests share."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.fill import box_mask, filled, noise_video
from vosssl.methods.stcn import STCN

FOLDER = Path(__file__).resolve().parents[1] / "goldens" / "stcn"
SMALL: dict[str, Any] = {  # of stride 8, fast enough for tests that need no goldens
    "key_blocks": (1, 1, 1),
    "value_blocks": (1, 1, 1),
    "bottleneck": False,
    "width": 8,
    "key_channels": 8,
    "value_channels": 16,
    "decoder_channels": 8,
    "pool": False,
}


@cache
def index() -> dict[str, Any]:
    """Shapes, strides and inputs of the recorded arrays."""
    contents: dict[str, Any] = json.loads((FOLDER / "goldens.json").read_text())
    return contents


@cache
def arrays() -> dict[str, np.ndarray]:
    """The recorded arrays."""
    with np.load(FOLDER / "goldens.npz") as stored:
        return {key: stored[key] for key in stored.files}


@cache
def keys() -> list[tuple[str, list[int]]]:
    """Names and shapes of the official state dict, in order."""
    return [(name, shape) for name, shape, _ in json.loads((FOLDER / "keys.json").read_text())["stcn"]]


@cache
def published() -> STCN:
    """The published network with the weights of the goldens."""
    network = STCN().eval()
    network.load_state_dict(filled(network.state_dict()))
    return network


def small(**options: Any) -> STCN:
    """A little network with weights of its own."""
    network = STCN(**SMALL | options).eval()
    network.load_state_dict(filled(network.state_dict()))
    return network


def error(found: Tensor, name: str) -> float:
    """Largest difference to a recorded array, as a share of that array's maximum.

    The whole array has to have the recorded shape; of large ones every so manieth value was stored.
    """
    entry = index()[name]
    assert list(found.shape) == entry["shape"], f"{name} is {tuple(found.shape)}, expected {entry['shape']}"
    part = found.detach().double().flatten()[:: entry["stride"]]
    expected = torch.from_numpy(arrays()[name].astype(np.float64)).flatten()
    return float((part - expected).abs().max()) / float(entry["absmax"])


def recorded_input(case: str) -> tuple[Tensor, Tensor]:
    """Frames (T, 3, H, W) and the masks (1, N, H, W) of the first of them."""
    given = index()[f"{case}/INPUT"]
    _, height, width, _ = given["video"]
    labels = box_mask(height, width, given["boxes"])
    masks = torch.stack([labels == number + 1 for number in range(len(given["boxes"]))])
    return noise_video(*given["video"]), masks[None].float()
