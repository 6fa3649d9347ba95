from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.layers.goldens import names_and_shapes, official
from tests.methods.slot_models import (
    backbone_features,
    check_gradients,
    check_masks,
    check_trace,
    filled_network,
)
from vosssl.methods.slotcontrast import Objective, SlotContrast
from vosssl.modes.build import build, method_config

SMALL: dict[str, Any] = {
    "backbone": None,
    "features_dim": 48,
    "grid": (6, 6),
    "num_slots": 5,
    "slot_dim": 32,
    "hidden_dims": (64, 64, 64),
}
NAME = "slotcontrast_movi"


def test_a_whole_model_agrees_with_the_official_code() -> None:
    network = filled_network(SlotContrast(**SMALL), f"model/{NAME}")
    with torch.no_grad():
        trace = network(torch.zeros(2, 4, 3, 96, 96), **backbone_features(NAME))
    check_trace(network, trace, NAME)
    check_masks(trace, NAME)


def test_losses_and_gradients_agree_with_the_official_code() -> None:
    network = filled_network(SlotContrast(**SMALL), f"model/{NAME}")
    check_gradients(network, Objective(), NAME, {"feature_reconstruction": 1.0, "slot_contrast": 0.5})


@pytest.mark.parametrize("name", ["movi_c", "ytvis"])
def test_released_checkpoints_fit(name: str) -> None:
    with torch.device("meta"):
        network = build(method_config(f"slotcontrast-{name.replace('_', '-')}").network)
    assert names_and_shapes(network) == official(f"published/slotcontrast_{name}")
