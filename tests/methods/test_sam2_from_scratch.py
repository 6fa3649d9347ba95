"""Where SAM 2 starts from when it learns from scratch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.fill import filled
from vosssl.clip import Batch
from vosssl.methods.sam2.network import SAM2
from vosssl.methods.sam2.training import Objective

SIZES: dict[str, Any] = {
    "width": 8,
    "depths": (1, 1, 1, 1),
    "global_blocks": (),
    "dim": 128,
    "memory_dim": 64,
    "feed_forward_dim": 32,
    "memory_layers": 1,
    "decoder_heads": 2,
}


def fresh(*, alike: bool) -> SAM2:
    torch.manual_seed(0)
    return SAM2(alike=alike, **SIZES).eval()


@torch.no_grad()
def looks_of_clicks(network: SAM2, side: int = 8) -> torch.Tensor:
    """How much of a click's first look at an image is at its own place: (side * side,) for all places."""
    attention = network.sam_mask_decoder.transformer.layers[0].cross_attn_token_to_image  # type: ignore[union-attr]
    places = network.sam_prompt_encoder.positions((side, side)).flatten(2)[0].T  # (h * w, C)
    query, key = (
        projection(places).unflatten(1, (attention.heads, -1)).transpose(0, 1)  # type: ignore[operator, arg-type]
        for projection in (attention.q_proj, attention.k_proj)  # type: ignore[union-attr]
    )
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5  # (heads, h * w, h * w)
    return scores.softmax(dim=-1).diagonal(dim1=1, dim2=2).mean(dim=0)


def test_a_click_looks_at_its_own_place_from_the_start() -> None:
    assert looks_of_clicks(fresh(alike=True)).mean() > 0.5
    assert looks_of_clicks(fresh(alike=False)).mean() < 0.1


def test_places_of_a_frame_find_themselves_in_a_memory_of_it() -> None:
    network = fresh(alike=True)
    attention = network.memory_attention.layers[0].cross_attn_image  # type: ignore[union-attr]
    features = torch.randn(16, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        memory = network.memory_encoder.out_proj(
            network.memory_encoder.pix_feat_proj(features.T[None, ..., None])
        )[0, ..., 0].T  # (16, memory_dim)
        scores = attention.q_proj(features) @ attention.k_proj(memory).T  # type: ignore[union-attr, operator]
    assert torch.equal(scores.argmax(dim=1), torch.arange(16))


def test_weights_that_are_loaded_replace_the_start() -> None:
    networks = [fresh(alike=alike) for alike in (False, True)]
    for network in networks:
        network.load_state_dict(filled(network.state_dict()))
    for one, two in zip(networks[0].state_dict().values(), networks[1].state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("options", [{"alpha": 1.5}, {"gamma": -1.0}, {"shared": 2.0}])
def test_shares_of_losses_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected shares in"):
        Objective(**options)  # type: ignore[arg-type]


def test_frames_are_clips_of_their_own_until_a_step() -> None:
    labels = torch.zeros(1, 2, 64, 64, dtype=torch.uint8)
    labels[:, :, 10:30, 20:44] = 1
    frames = torch.rand(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    batch = Batch(frames, labels, num_objects=torch.tensor([1]), seeds=torch.tensor([7]))
    network, objective = fresh(alike=True), Objective(corrections=1, apart_until=3)
    with torch.no_grad():
        apart, together = (objective(network, batch, step) for step in (2, 3))
        empty = replace(batch, labels=labels * torch.tensor([1, 0], dtype=torch.uint8)[:, None, None])
        half = objective(network, empty, 2)
    assert apart["dice"] != together["dice"]
    assert 0 < half["dice"] < apart["dice"]  # the second frame shows nothing, and says so by its score alone
    assert half["object_score"] != apart["object_score"]
