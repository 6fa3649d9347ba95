"""Cutie with the weights of the recorded outputs, those outputs, and a Cutie small enough for any test."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.fill import filled
from vosssl.methods.cutie.network import Cutie

FOLDER = Path(__file__).resolve().parents[1] / "goldens" / "cutie"
BACKBONES = {"base": "resnet50", "small": "resnet18"}


@cache
def arrays() -> dict[str, np.ndarray]:
    """All recorded arrays by `variant/case/array`."""
    with np.load(FOLDER / "goldens.npz") as stored:
        return {name: stored[name] for name in stored.files}


@cache
def index() -> dict[str, Any]:
    """What was recorded of each array: full shape, stride of the stored values, statistics; and inputs."""
    contents: dict[str, Any] = json.loads((FOLDER / "goldens.json").read_text())
    return contents


@cache
def keys() -> dict[str, list[list[Any]]]:
    """Names, shapes and types of the official state dicts, in order."""
    contents: dict[str, list[list[Any]]] = json.loads((FOLDER / "keys.json").read_text())
    return contents


def cutie_filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`filled`, but the wave lengths of positions stay as they are."""
    return filled(state) | {name: value for name, value in state.items() if name.endswith("inv_freq")}


@cache
def official_cutie(variant: str) -> Cutie:
    """The network that computed the goldens; tests must not change it."""
    network = Cutie(backbone=BACKBONES[variant])  # type: ignore[arg-type]
    network.load_state_dict(cutie_filled(network.state_dict()))
    return network.eval().requires_grad_(False)


def tiny_cutie(**options: Any) -> Cutie:
    """A Cutie of a few thousand weights, filled."""
    sizes: dict[str, Any] = {
        "backbone": "resnet18",
        "backbone_blocks": (1, 1, 1),
        "backbone_width": 8,
        "mask_backbone_blocks": (1, 1, 1),
        "mask_backbone_width": 8,
        "width": 32,
        "key_width": 16,
        "sensory_width": 16,
        "decoder_widths": (16, 16),
        "heads": 4,
        "queries": 4,
        "transformer_blocks": 2,
        "feed_forward_width": 32,
    }
    network = Cutie(**sizes | options)
    network.load_state_dict(cutie_filled(network.state_dict()))
    return network.eval()


def assert_agrees(values: Tensor, name: str, *, relative: float = 3e-4) -> None:
    """Compares with what was recorded: differences of at most `relative` of the array's largest value."""
    entry = index()[name]
    assert list(values.shape) == entry["shape"], f"{name} is {tuple(values.shape)}, recorded {entry['shape']}"
    flat = values.detach().reshape(-1)[:: entry["stride"]].double()
    recorded = torch.from_numpy(np.asarray(arrays()[name])).reshape(-1).double()
    difference = (flat - recorded).abs().max().item()
    limit = relative * max(entry["absmax"], 1e-3)
    assert difference <= limit, f"{name} differs by {difference:.2e}, allowed {limit:.2e}"
