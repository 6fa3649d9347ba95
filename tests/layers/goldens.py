"""The recorded outputs of the official slot models, read once for all tests that compare with them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.fill import slots_filled

FOLDER = Path(__file__).resolve().parents[1] / "goldens" / "slots"


@cache
def arrays(name: str = "goldens") -> dict[str, Tensor]:
    """All arrays of goldens.npz (VideoSAUR, SlotContrast) or dinosaur.npz by their names."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        return {key: torch.from_numpy(np.asarray(stored[key])) for key in stored.files}


@cache
def keys(name: str = "keys") -> dict[str, list[Any]]:
    """Parameter names and shapes of the official models, in order."""
    contents: dict[str, list[Any]] = json.loads((FOLDER / f"{name}.json").read_text())
    return contents


def names_and_shapes(module: nn.Module) -> list[list[Any]]:
    """Names and shapes of a module's state in order, as `keys` has them without the dtype."""
    return [[name, list(value.shape)] for name, value in module.state_dict().items()]


def official(name: str) -> list[list[Any]]:
    """Names and shapes of an official model."""
    return [[key, shape] for key, shape, _ in keys()[name]]


def filled(module: nn.Module) -> nn.Module:
    """The module with the weights of the goldens, in evaluation mode."""
    module.load_state_dict(slots_filled(module.state_dict()))
    return module.eval()


def filled_as_dinosaur(module: nn.Module, name: str) -> nn.Module:
    """The module with weights drawn by the names that the original DINOSAUR code gives its parameters."""
    renamed = {
        "norm_input": "norm_features",
        "ff_mlp.module": "mlp.layers",
        "decoder.": "mlp.layers.",
        "pos_embed": "pos_emb",
    }
    values = slots_filled({key: torch.zeros(shape) for key, shape, _ in keys("dinosaur_keys")[name]})
    state = module.state_dict()
    for key, value in values.items():
        for theirs, ours in renamed.items():
            key = key.replace(theirs, ours)
        state[key] = value.view(state[key].shape)
    module.load_state_dict(state)
    return module.eval()
