from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.fill import noise_video, slots_filled, vit_filled
from tests.layers.goldens import arrays, names_and_shapes, official
from tests.methods.slot_models import (
    backbone_features,
    check_gradients,
    check_masks,
    check_trace,
    filled_network,
    given_noise,
)
from vosssl.backbones.vit import dino
from vosssl.clip import Batch
from vosssl.losses.temporal_similarity import temporal_similarity, temporal_similarity_loss
from vosssl.methods.videosaur import Objective, VideoSAUR
from vosssl.modes.build import build, method_config

SMALL: dict[str, Any] = {
    "backbone": None,
    "features_dim": 48,
    "grid": (6, 6),
    "num_slots": 5,
    "slot_dim": 32,
    "hidden_dims": (64, 64),
}
MODELS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "videosaur_movi": ({}, {"temporal_similarity": 0.1}),
    "videosaur_ytvis": (
        {"reconstruct": True, "allocator_blocks": 3},
        {"temporal_similarity": 0.1, "feature_reconstruction": 1.0},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model_agrees_with_the_official_code(name: str) -> None:
    options, _ = MODELS[name]
    network = filled_network(VideoSAUR(**SMALL, **options), f"model/{name}")
    with torch.no_grad():
        trace = network(torch.zeros(2, 4, 3, 96, 96), **backbone_features(name), **given_noise(name))
    check_trace(network, trace, name)
    check_masks(trace, name)


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_agree_with_the_official_code(name: str) -> None:
    options, weights = MODELS[name]
    network = filled_network(VideoSAUR(**SMALL, **options), f"model/{name}")
    objective = Objective(temperature=0.25, reconstruction_weight=weights.get("feature_reconstruction", 0.0))
    check_gradients(network, objective, name, weights)


def test_slots_of_the_last_frame_are_left_out_only_where_no_loss_reads_them() -> None:
    batch = Batch(
        frames=torch.zeros(1, 4, 3, 96, 96), features=backbone_features("videosaur_movi", 1)["features"]
    )
    both = Objective(reconstruction_weight=1.0).trace(VideoSAUR(**SMALL, reconstruct=True), batch)
    assert both.slots.shape[1] == 4
    alone = Objective().trace(VideoSAUR(**SMALL), batch)
    assert alone.slots.shape[1] == alone.masks.shape[1] == 3
    assert alone.keys is not None and alone.keys.shape[1] == alone.features.shape[1] == 4


def test_the_objective_asks_for_keys_and_for_longer_clips() -> None:
    features = {"features": torch.randn(1, 2, 36, 48)}
    with pytest.raises(ValueError, match="cache keys too"):
        Objective()(VideoSAUR(**SMALL), Batch(frames=torch.zeros(1, 2, 3, 96, 96), features=features), 0)
    with pytest.raises(ValueError, match="longer clips"):
        Objective()(VideoSAUR(**SMALL), Batch(frames=torch.zeros(1, 1, 3, 96, 96)), 0)


@torch.no_grad()
def test_cached_features_replace_the_backbone() -> None:
    backbone = dino(patch_size=16, width=48, heads=2, depth=2, layout="timm")
    network = VideoSAUR(**SMALL | {"backbone": backbone})
    batch = Batch(frames=torch.rand(2, 3, 3, 96, 96), seeds=torch.tensor([1, 2]))
    features = network.backbone_features(batch.frames)
    assert {name: tuple(value.shape) for name, value in features.items()} == {
        "features": (2, 3, 36, 48),
        "keys": (2, 3, 36, 48),
    }
    cached = Batch(frames=torch.zeros(2, 3, 3, 96, 96), seeds=batch.seeds, features=features)
    live, stored = Objective()(network, batch, 0), Objective()(network, cached, 0)
    assert torch.allclose(live["temporal_similarity"], stored["temporal_similarity"], rtol=1e-6)


@torch.no_grad()
def test_pixels_to_masks_agree_with_the_official_code() -> None:
    golden = arrays()
    network = VideoSAUR(
        backbone=dino(patch_size=16, layout="timm"), features_dim=384, grid=(14, 14), num_slots=7, slot_dim=32
    )
    assert names_and_shapes(network) == official("end_to_end")
    state, prefix = slots_filled(network.state_dict()), "encoder.module.backbone.model."
    vit = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    network.load_state_dict(state | {prefix + key: value for key, value in vit_filled(vit).items()})
    frames, height, width, seed = golden["end_to_end/input"].tolist()
    trace = network(noise_video(frames, height, width, seed)[None], noise=golden["end_to_end/noise"])
    assert trace.keys is not None
    assert torch.allclose(trace.slots, golden["end_to_end/slots"], atol=5e-5, rtol=0)
    for mine, theirs in ((trace.attention, "grouping_masks"), (trace.masks, "decoder_masks")):
        assert torch.allclose(mine.flatten(-2), golden[f"end_to_end/{theirs}"], atol=1e-5, rtol=0)
    assert torch.allclose(trace.features.mean(2), golden["end_to_end/block12_mean"], atol=1e-5)
    assert torch.allclose(trace.keys.mean(2), golden["end_to_end/keys12_mean"], atol=1e-5)
    target = temporal_similarity(trace.keys, temperature=0.075)
    rows = target.flatten(1, 2)[0, ::49]  # every 49th patch
    assert torch.allclose(rows, golden["end_to_end/target_row0"], atol=1e-5)
    loss = temporal_similarity_loss(trace.reconstruction, target)
    assert torch.allclose(loss, golden["end_to_end/loss_timesim"], rtol=1e-5)


@pytest.mark.parametrize("name", ["movi_c", "ytvis", "ytvis_dinov2"])
def test_released_checkpoints_fit(name: str) -> None:
    with torch.device("meta"):
        network = build(method_config(f"videosaur-{name.replace('_', '-')}").network)
    assert names_and_shapes(network) == official(f"published/videosaur_{name}")
