"""The ViTs against the official code, key by key and number by number, and what must hold for any of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fill import noise_video, vit_filled
from vosssl.backbones.vit import VisionTransformer, dino, dinov2, dinov3
from vosssl.backbones.vit_layers import RotaryPositions, resize_positions
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD

GOLDENS = Path(__file__).parents[1] / "goldens" / "vit"
MODELS: dict[str, Callable[..., VisionTransformer]] = {
    "dino_vits16": lambda **k: dino(patch_size=16, **k),
    "dino_vits8": lambda **k: dino(patch_size=8, **k),
    "dino_vitb16": lambda **k: dino(patch_size=16, width=768, heads=12, **k),
    "dino_vitb8": lambda **k: dino(patch_size=8, width=768, heads=12, **k),
    "dinov2_vits14": lambda **k: dinov2(**k),
    "dinov2_vits14_reg": lambda **k: dinov2(registers=4, **k),
    "dinov2_vitb14": lambda **k: dinov2(width=768, heads=12, **k),
    "dinov3_vits16": lambda **k: dinov3(**k),
    "timm_dino_vitb8": lambda **k: dino(patch_size=8, width=768, heads=12, layout="timm", **k),
    "timm_dinov2_vits14": lambda **k: dinov2(layout="timm", **k),
}
GOLDEN_MODELS = (
    "dino_vits16",
    "dino_vits8",
    "dino_vitb16",
    "dinov2_vits14",
    "dinov2_vits14_reg",
    "dinov3_vits16",
)
SMALL: dict[str, Callable[..., VisionTransformer]] = {
    "dino": lambda **k: dino(patch_size=8, width=32, heads=2, depth=3, **k),
    "dinov2": lambda **k: dinov2(width=32, heads=2, depth=3, **k),
    "dinov2_reg": lambda **k: dinov2(width=32, heads=2, depth=3, registers=4, **k),
    "dinov3": lambda **k: dinov3(width=32, heads=2, depth=3, **k),
}


@cache
def goldens() -> dict[str, dict[str, dict[str, Tensor]]]:
    cases: dict[str, dict[str, dict[str, Tensor]]] = {}
    with np.load(GOLDENS / "goldens.npz") as file:
        for name in file.files:
            model, case, array = name.split("/")
            cases.setdefault(model, {}).setdefault(case, {})[array] = torch.from_numpy(file[name])
    return cases


def normalised(frames: int, height: int, width: int, seed: int) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (noise_video(frames, height, width, seed) - mean) / std


def fill(network: VisionTransformer) -> VisionTransformer:
    network.load_state_dict(vit_filled(network.state_dict()))
    return network.eval()


def computed(network: VisionTransformer, images: Tensor, tok: Tensor, layers: list[int]) -> dict[str, Tensor]:
    """Everything that the goldens name."""
    features = network(images)
    last = network.last_block(images, attention="cls")
    assert last.attention is not None
    prefix = 1 + network.registers
    arrays = {
        "patch": features.patches[:, tok],
        "patch_mean": features.patches.mean(1),
        "patch_std": features.patches.std(1),
        "cls": features.cls,
        "reg": features.registers,
        "q": last.queries.patches[:, tok],
        "k": last.keys.patches[:, tok],
        "v": last.values.patches[:, tok],
        "k_mean": last.keys.patches.mean(1),
        "attn_cls": torch.cat([last.attention[..., :prefix], last.attention[..., prefix:][..., tok]], dim=-1),
    }
    if last.rotated_keys is not None:
        arrays["k_rope"] = last.rotated_keys.patches[:, tok]
    for layer, tokens in zip(layers, network.intermediate(images, layers=layers), strict=True):
        arrays |= {f"block{layer}": tokens.patches[:, tok], f"block{layer}_cls": tokens.cls}
    return arrays


@pytest.mark.parametrize("name", MODELS)
def test_keys_and_their_order_are_those_of_the_checkpoint(name: str) -> None:
    with torch.device("meta"):
        state = MODELS[name]().state_dict()
    expected = json.loads((GOLDENS / "keys.json").read_text())[name]
    assert [[key, list(value.shape)] for key, value in state.items()] == expected


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_both_attention_paths_agree_with_the_official_code(name: str, fused: bool) -> None:
    with torch.device("meta"):
        network = MODELS[name](fused=fused)
    network.load_state_dict(vit_filled(network.state_dict()), assign=True)
    cases = goldens()[name] if fused else {"rect": goldens()[name]["rect"]}
    for case, expected in cases.items():
        images = normalised(*expected["input"].tolist())
        with torch.inference_mode():
            layers = [layer for layer in (2, 5, 8) if f"block{layer}" in expected]
            arrays = computed(network.eval(), images, expected["tok"], layers)
        for array in expected.keys() - {"input", "tok"}:
            torch.testing.assert_close(
                arrays[array],
                expected[array],
                atol=1e-5,
                rtol=1e-5,
                msg=lambda text, which=f"{case}/{array}": f"{which}: {text}",
            )


@pytest.mark.parametrize("name", SMALL)
def test_dense_gives_what_the_last_block_gives_for_patches(name: str) -> None:
    network = fill(SMALL[name]())
    images = normalised(2, 56, 112, 3)
    with torch.inference_mode():
        dense, last = network.dense(images, cls_attention=True), network.last_block(images, attention="full")
    assert last.attention is not None and dense.cls_attention is not None
    torch.testing.assert_close(dense.patches, last.output.patches)
    torch.testing.assert_close(dense.keys, last.keys.patches)
    torch.testing.assert_close(dense.cls_attention, last.attention[:, :, 0, 1 + network.registers :])
    assert dense.patches.shape[1] == dense.grid[0] * dense.grid[1]
    assert network.dense(images).cls_attention is None


@pytest.mark.parametrize("name", SMALL)
def test_the_last_layer_normed_is_what_forward_returns(name: str) -> None:
    network = fill(SMALL[name]())
    images = normalised(1, 70, 42, 4)[..., : 70 // 14 * 14, :]
    with torch.inference_mode():
        whole = network(images)
        (last,) = network.intermediate(images, layers=[-1], normed=True)
        raw, first = network.intermediate(images, layers=[2, 0])
        block = network.last_block(images)
    for got, expected in zip(last, whole, strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(raw.patches, block.output.patches)
    assert not torch.allclose(first.patches, raw.patches)


@pytest.mark.parametrize("name", SMALL)
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(name: str) -> None:
    network = fill(SMALL[name]())
    images = normalised(3, 56, 84, 5)
    with torch.inference_mode():
        together, alone = network(images), network(images[1:2])
    torch.testing.assert_close(together.patches[1:2], alone.patches, atol=1e-5, rtol=1e-5)


def test_a_bfloat16_network_stays_close_and_keeps_exact_periods() -> None:
    network = fill(dinov3(width=64, heads=1, depth=3))
    images = normalised(1, 64, 96, 6)
    with torch.inference_mode():
        exact = network(images).patches
        periods = network.rope_embed.periods.clone()  # type: ignore[union-attr]
        rough = network.to(torch.bfloat16)(images).patches
    assert rough.dtype == torch.bfloat16
    assert torch.equal(network.rope_embed.periods, periods)  # type: ignore[union-attr]
    assert torch.cosine_similarity(exact, rough.float(), dim=-1).min() > 0.999


def test_gradients_reach_the_images() -> None:
    network = fill(SMALL["dinov3"]())
    images = normalised(1, 32, 32, 7).requires_grad_()
    network(images).patches.square().mean().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


def test_rotary_angles_of_a_one_patch_grid_are_zero() -> None:
    rotation = RotaryPositions(8)((1, 1))  # its centre is the coordinate 0
    heads = torch.randn(1, 2, 3, 8)
    torch.testing.assert_close(rotation(heads), heads)


def test_rotary_positions_turn_pairs_by_hand_computed_angles() -> None:
    rotation = RotaryPositions(4)((2, 1))  # one period of 1 a side; rows at -1/2 and 1/2, the column at 0
    heads = torch.tensor([[[[9.0, 9, 9, 9], [1, 2, 3, 4], [1, 2, 3, 4]]]])  # the first is a class token
    # half a turn of (x1, x3) flips their signs, (x2, x4) stays
    expected = torch.tensor([[[[9.0, 9, 9, 9], [-1, 2, -3, 4], [-1, 2, -3, 4]]]])
    torch.testing.assert_close(rotation(heads), expected)


def test_an_embedding_that_is_constant_stays_so_at_any_size() -> None:
    embedding = torch.full((1, 17, 3), 0.25)
    for positions in ("scale", "size"):
        resized = resize_positions(embedding, (3, 7), square=False, positions=positions)
        torch.testing.assert_close(resized, torch.full((1, 22, 3), 0.25))


def test_the_native_grid_is_not_resampled() -> None:
    embedding = torch.randn(1, 17, 3)
    assert resize_positions(embedding, (4, 4), square=True) is embedding
    assert resize_positions(embedding, (4, 4), square=False, positions="size") is embedding
    assert not torch.equal(resize_positions(embedding, (4, 4), square=False), embedding)  # as DINO does


def test_dino_drops_the_remainder_and_dinov2_refuses_it() -> None:
    network = fill(SMALL["dino"]())
    images = normalised(1, 35, 50, 8)
    with torch.inference_mode():
        assert network(images).patches.shape[1] == 4 * 6
    with pytest.raises(
        ValueError, match=r"35x50, expected multiples of the patch size 14; resize it to 28x56"
    ):
        SMALL["dinov2"]()(images)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32)],
)
def test_images_of_a_wrong_kind_are_refused_with_what_to_pass(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\) floats"):
        SMALL["dino"]()(images)


def test_impossible_requests_are_named() -> None:
    network = SMALL["dino"]()
    with pytest.raises(ValueError, match=r"layers are \[3\], expected some of -3\.\.2"):
        network.intermediate(torch.zeros(1, 3, 32, 32), layers=[3])
    with pytest.raises(ValueError, match="at least one patch of 8x8"):
        network(torch.zeros(1, 3, 4, 32))
    with pytest.raises(ValueError, match="no final norm"):
        dino(patch_size=8, width=32, heads=2, depth=1, layout="timm")(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="not a multiple of heads"):
        dino(patch_size=8, width=32, heads=5)
