"""SAM 2's network beside what the official code computed, and what must hold for any weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vosssl
from tests.fill import filled
from tests.methods.sam2_models import (
    assert_agrees,
    blocky_image,
    keys,
    noise,
    official_sam2,
    recorded,
    tiny_sam2,
)
from vosssl.backbones.hiera import Hiera
from vosssl.backbones.weights import load_weights
from vosssl.layers.prompt_encoder import BOTTOM_RIGHT, NEGATIVE, POSITIVE, TOP_LEFT
from vosssl.methods.sam2.image_encoder import ImageEncoder
from vosssl.methods.sam2.mask_decoder import Candidates, choose, stability
from vosssl.methods.sam2.memory_selection import pointer_reach, recall
from vosssl.methods.sam2.network import NO_OBJECT, EncodedImage, Memories
from vosssl.ops.resize import resize_masks
from vosssl.ops.sine_positions import sine_positions

SIZES = {"t": "tiny", "s": "small", "b+": "base-plus", "l": "large"}
SIZE = (256, 256)
TRUNKS: dict[str, dict[str, Any]] = {
    "s": {"depths": (1, 2, 11, 2), "global_blocks": (7, 10, 13)},
    "bplus": {
        "width": 112,
        "heads": 2,
        "depths": (2, 3, 16, 3),
        "global_blocks": (12, 16, 20),
        "background_size": (14, 14),
    },
}
ADDED = {"no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"}  # in 2.1


def drawn_image() -> EncodedImage:
    """The features that decoder and memory were recorded with."""
    skips = noise((2, 32, 64, 64), 5, 0.5), noise((2, 64, 32, 32), 6, 0.5)
    positions = official_sam2().sam_prompt_encoder.positions((16, 16))
    return EncodedImage(noise((2, 256, 16, 16), 4), skips, sine_positions((16, 16), 256), positions)


def small_image(batch: int = 1) -> tuple[EncodedImage, Tensor]:
    network = tiny_sam2()
    images = torch.rand(batch, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return network.encode_image(images), images


def small_memories(count: int, maps: int = 3, pointers: int = 2) -> Memories:
    return Memories(
        noise((count, maps, 8, 4, 6), 1),
        torch.arange(maps),
        noise((count, pointers, 32), 2),
        torch.arange(pointers) / 15,
    )


def small_points(count: int, points: int = 2) -> tuple[Tensor, Tensor]:
    return torch.rand(count, points, 2, generator=torch.Generator().manual_seed(1)) * 64, torch.tensor(
        [[POSITIVE, NEGATIVE, POSITIVE][:points]] * count
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("version", ["sam2.1", "sam2"])
def test_names_and_shapes_are_the_official_ones_in_their_order(version: str, size: str) -> None:
    with torch.device("meta"):
        network = vosssl.create_model(f"{version}-hiera-{SIZES[size]}")
    expected = keys()[f"sam2.1_hiera_{size}"]
    if version == "sam2":
        expected = [entry for entry in expected if entry[0] not in ADDED]
    assert [[name, list(value.shape)] for name, value in network.state_dict().items()] == expected


def test_an_official_file_loads_strictly() -> None:
    network = tiny_sam2()
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    load_weights(network, {"model": state})
    assert not any(value.any() for value in network.state_dict().values())
    del state["mask_downsample.weight"]
    with pytest.raises(ValueError, match=r"mask_downsample\.weight"):
        load_weights(network, {"model": state})


def test_encoded_images_agree_with_the_official_code() -> None:
    with torch.inference_mode():
        image = official_sam2().encode_image(blocky_image(256, 1))
        levels = official_sam2().image_encoder.trunk(
            (blocky_image(256, 1) - official_sam2().pixel_mean) / official_sam2().pixel_std
        )
        maps = official_sam2().image_encoder.neck(levels)
    assert_agrees(image.features, "stage_256/neck2")
    assert_agrees(image.positions, "stage_256/neck_pos2")
    for index in range(2):
        assert_agrees(image.skips[index], f"stage_256/high_res{index}")
        assert_agrees(maps[index], f"stage_256/neck{index}")
        assert_agrees(sine_positions((64 >> index, 64 >> index), 256), f"stage_256/neck_pos{index}")


@pytest.mark.parametrize("variant", TRUNKS)
def test_larger_encoders_agree_with_the_official_code(variant: str) -> None:
    encoder = ImageEncoder(Hiera(**TRUNKS[variant]), 256)
    state = filled({f"image_encoder.{name}": value for name, value in encoder.state_dict().items()})
    encoder.load_state_dict({name.removeprefix("image_encoder."): value for name, value in state.items()})
    images = (blocky_image(256, 1) - official_sam2().pixel_mean) / official_sam2().pixel_std
    with torch.inference_mode():
        maps = encoder.eval()(images)
        positions = encoder.trunk.positions((64, 64))
    for index, level in enumerate(maps):
        assert_agrees(level, f"{variant}_stage_256/neck{index}")
    assert_agrees(positions, f"{variant}_stage_256/pos_embed")


@pytest.mark.parametrize("prompt", ["points", "points_boxes_mask"])
def test_all_masks_of_a_prompt_agree_with_the_official_code(prompt: str) -> None:
    network, image = official_sam2(), drawn_image()
    with_all = prompt != "points"
    with torch.inference_mode():
        tokens = network.sam_prompt_encoder.tokens(
            SIZE,
            points=recorded("stage_256/prompt.coords"),
            labels=recorded("stage_256/prompt.labels"),
            boxes=recorded("stage_256/prompt.boxes") if with_all else None,
        )
        masks = noise((2, 1, 64, 64), 3, 4.0) if with_all else None
        maps = network.sam_prompt_encoder.maps((16, 16), masks=masks)
        candidates = network.sam_mask_decoder(
            image.features + maps, image.prompt_positions, image.skips, tokens
        )
    chosen = choose(candidates, multimask=False)
    for name, values in {
        "all4.masks": candidates.masks,
        "all4.iou": candidates.quality,
        "stability": stability(candidates.masks),
        "multi.masks": candidates.masks[:, 1:],
        "multi.iou": candidates.quality[:, 1:],
        "multi.tokens": candidates.tokens[:, 1:],
        "multi.object_score": candidates.object_score,
        "single.masks": chosen.masks,
        "single.iou": chosen.quality,
        "single.tokens": chosen.token[:, None],
        "single.object_score": candidates.object_score,
    }.items():
        assert_agrees(values, f"stage_256/decoder.{prompt}.{name}")


def test_chosen_masks_and_pointers_agree_with_the_official_code() -> None:
    image = drawn_image()
    with torch.inference_mode():
        decoded = official_sam2().decode_prompts(
            image,
            image.features,
            points=recorded("stage_256/prompt.coords"),
            labels=recorded("stage_256/prompt.labels"),
            masks=noise((2, 1, 64, 64), 3, 4.0),
            multimask=True,
        )
    assert decoded.candidates is not None
    there = decoded.object_score[..., None, None] > 0
    three = torch.where(there, decoded.candidates.masks[:, 1:], NO_OBJECT)
    assert_agrees(three, "stage_256/heads.low_multi")
    assert_agrees(resize_masks(three, SIZE), "stage_256/heads.high_multi")
    assert_agrees(decoded.candidates.quality[:, 1:], "stage_256/heads.ious")
    assert_agrees(decoded.masks, "stage_256/heads.low")
    assert_agrees(resize_masks(decoded.masks, SIZE), "stage_256/heads.high")
    assert_agrees(decoded.pointer, "stage_256/heads.obj_ptr")
    assert_agrees(decoded.object_score, "stage_256/heads.score")


@pytest.mark.parametrize("version", ["2", "2.1"])
def test_given_masks_agree_with_the_official_code(version: str) -> None:
    masks = torch.zeros(2, 1, 256, 256)
    masks[0, :, 51:128, 64:192] = 1
    with torch.inference_mode():
        decoded = official_sam2(version).accept_masks(drawn_image(), masks)
    if version == "2":
        assert_agrees(decoded.pointer, "v20_stage_256/mask_as_output.obj_ptr")
        return
    assert_agrees(decoded.masks, "stage_256/mask_as_output.low")
    assert_agrees(decoded.pointer, "stage_256/mask_as_output.obj_ptr")
    assert_agrees(decoded.object_score, "stage_256/mask_as_output.score")


@pytest.mark.parametrize("version", ["2", "2.1"])
def test_encoded_memories_agree_with_the_official_code(version: str) -> None:
    network, image = official_sam2(version), drawn_image()
    logits = resize_masks(noise((2, 1, 64, 64), 7, 6.0), SIZE)
    scores = torch.tensor([[1.5], [-0.5]])
    with torch.inference_mode():
        tracked = network.encode_memory(image, logits, scores)
        prompted = network.encode_memory(image, logits, scores, prompted=True)
    if version == "2":
        assert_agrees(tracked, "v20_stage_256/memory_encoder.tracked.features")
        return
    assert_agrees(tracked, "stage_256/memory_encoder.tracked.features")
    assert_agrees(prompted, "stage_256/memory_encoder.clicked.features")
    assert_agrees(sine_positions((16, 16), 64).expand(2, -1, -1, -1), "stage_256/memory_encoder.pos")


def test_memory_attention_agrees_with_the_official_code() -> None:
    image = noise((256, 2, 256), 8).permute(1, 2, 0).unflatten(2, (16, 16))
    memory = noise((776, 2, 64), 9).transpose(0, 1)
    positions = noise((776, 2, 64), 10, 0.5).transpose(0, 1)
    with torch.inference_mode():
        seen = official_sam2().memory_attention(
            image, sine_positions((16, 16), 256), memory, positions, maps=3
        )
    assert_agrees(seen, "stage_256/memory_attention.out")


@pytest.mark.parametrize("prefix", ["", "v20_"])
@pytest.mark.parametrize(
    ("name", "frame", "reverse", "length"),
    [("forward12", 12, False, 30), ("reverse5", 5, True, 30), ("short10", 10, False, 6)],
)
def test_features_conditioned_on_a_bank_agree_with_the_official_code(
    prefix: str, name: str, frame: int, reverse: bool, length: int
) -> None:
    chosen = recall(
        frame,
        conditioning=(0, 14),
        tracked=(1, 2, 3, 4, *range(6, 14)),
        reverse=reverse,
        length=length,
    )
    maps = [noise((1, 64, 16, 16), 1000 + index).bfloat16() for index, _ in chosen.maps]
    pointers = [noise((1, 256), 1100 + index) for index, _ in chosen.pointers]
    memories = Memories(
        torch.stack(maps, dim=1),
        torch.tensor([age for _, age in chosen.maps]),
        torch.stack(pointers, dim=1),
        torch.tensor([distance for _, distance in chosen.pointers]) / pointer_reach(length),
    )
    features = noise((256, 1, 256), 11).permute(1, 2, 0).unflatten(2, (16, 16))
    image = drawn_image()._replace(features=features)
    network = official_sam2("2" if prefix else "2.1")
    with torch.inference_mode():
        assert_agrees(network.condition_on_memory(image, memories), f"{prefix}stage_256/conditioned.{name}")
        assert_agrees(network.condition_on_memory(image, None), f"{prefix}stage_256/conditioned.initial")


def test_objects_in_one_pass_get_what_they_get_alone() -> None:
    network, (image, _) = tiny_sam2(), small_image()
    memories, (points, labels) = small_memories(3), small_points(3)
    previous, scores = noise((3, 1, 16, 24), 3), noise((3, 1), 4)
    many = torch.tensor([True, False, True])
    with torch.inference_mode():
        features = network.condition_on_memory(image, memories)
        together = network.decode_prompts(
            image, features, points=points, labels=labels, masks=previous, multimask=many
        )
        kept = network.encode_memory(image, together.masks, scores, prompted=many)
        for index in range(3):
            one = slice(index, index + 1)
            own = Memories(memories.maps[one], memories.ages, memories.pointers[one], memories.distances)
            alone = network.decode_prompts(
                image,
                network.condition_on_memory(image, own),
                points=points[one],
                labels=labels[one],
                masks=previous[one],
                multimask=bool(many[index]),
            )
            assert torch.allclose(together.masks[one], alone.masks, atol=1e-4)
            assert torch.allclose(together.pointer[one], alone.pointer, atol=1e-5)
            memory = network.encode_memory(image, alone.masks, scores[one], prompted=bool(many[index]))
            assert torch.allclose(kept[one], memory, atol=1e-4)


def test_objects_with_fewer_points_or_memories_share_a_pass_with_others() -> None:
    network, (image, _) = tiny_sam2(), small_image()
    memories, (points, labels) = small_memories(2), small_points(2, points=3)
    fewer = memories._replace(
        maps_present=torch.tensor([[True] * 3, [True, True, False]]),
        pointers_present=torch.tensor([[True, True], [True, False]]),
    )
    own = Memories(
        memories.maps[1:, :2], memories.ages[:2], memories.pointers[1:, :1], memories.distances[:1]
    )
    with torch.inference_mode():
        together = network.decode_prompts(
            image,
            network.condition_on_memory(image, fewer),
            points=points,
            labels=labels,
            points_present=torch.tensor([[True] * 3, [True, False, False]]),
            masks=noise((2, 1, 16, 24), 3),
            masks_given=torch.tensor([True, False]),
        )
        alone = network.decode_prompts(
            image, network.condition_on_memory(image, own), points=points[1:, :1], labels=labels[1:, :1]
        )
    assert torch.allclose(together.masks[1:], alone.masks, atol=1e-4)
    assert torch.allclose(together.pointer[1:], alone.pointer, atol=1e-5)


def test_the_order_of_memories_does_not_matter_but_their_age_does() -> None:
    network, (image, _) = tiny_sam2(), small_image()
    memories = small_memories(1)
    turned = memories._replace(maps=memories.maps.flip(1), ages=memories.ages.flip(0))
    aged = memories._replace(ages=memories.ages.flip(0))
    with torch.inference_mode():
        features = network.condition_on_memory(image, memories)
        assert torch.allclose(features, network.condition_on_memory(image, turned), atol=1e-5)
        assert not torch.allclose(features, network.condition_on_memory(image, aged), atol=1e-5)


def test_absent_objects_have_no_mask_and_the_pointer_of_no_object() -> None:
    network, (image, _) = tiny_sam2(), small_image()
    with torch.inference_mode():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-100.0)  # type: ignore[union-attr, operator]
        decoded = network.decode_prompts(image, network.condition_on_memory(image, None))
        empty = network.accept_masks(image, torch.zeros(1, 1, 64, 96))
    assert (decoded.masks == NO_OBJECT).all()
    assert torch.equal(decoded.pointer, network.no_obj_ptr)
    assert torch.equal(empty.pointer, network.no_obj_ptr) and empty.object_score.item() == -10


def test_a_mask_that_changes_with_the_threshold_is_replaced_by_the_best_of_the_others() -> None:
    masks = torch.full((2, 4, 2, 2), 5.0)
    masks[1, 0] = torch.tensor([[5.0, 5.0], [5.0, 0.0]])  # 3 of 4 pixels stay above 0.05
    quality = torch.tensor([[0.1, 0.2, 0.9, 0.3]]).expand(2, -1)
    tokens = torch.arange(4.0)[None, :, None].expand(2, -1, 1)
    candidates = Candidates(masks, quality, tokens, torch.zeros(2, 1))
    assert torch.equal(stability(masks[:, 0]), torch.tensor([1.0, 0.75]))
    single = choose(candidates, multimask=False)
    assert torch.allclose(single.quality, torch.tensor([[0.1], [0.9]]))
    assert single.token.tolist() == [[0.0], [0.0]]
    assert choose(candidates, multimask=True).token.tolist() == [[2.0], [2.0]]
    assert torch.allclose(choose(candidates, multimask=False, require_stable=False).quality, quality[:, :1])


def test_gradients_reach_every_weight_that_is_used() -> None:
    network = tiny_sam2().train()
    images = torch.rand(1, 3, 64, 64)
    image = network.encode_image(images)
    box, corners = torch.tensor([[[5.0, 5.0], [40.0, 40.0]]]), torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]])
    first = network.decode_prompts(
        image, network.condition_on_memory(image, None), points=box, labels=corners, multimask=False
    )
    memory = network.encode_memory(image, first.masks, torch.full((1, 1), -1.0))
    memories = Memories(memory[:, None], torch.tensor([0]), first.pointer[:, None], torch.tensor([1 / 15]))
    features = network.condition_on_memory(image, memories)
    second = network.decode_prompts(image, features, masks=first.masks)
    given = network.accept_masks(image, torch.ones(1, 1, 64, 64))
    assert first.candidates is not None and second.candidates is not None
    every = [first.candidates, second.candidates]
    total = sum(part.masks.sum() + part.quality.sum() + part.object_score.sum() for part in every)
    (total + given.pointer.sum() + second.pointer.sum()).backward()
    without = {name for name, weight in network.named_parameters() if weight.grad is None}
    assert (
        {"no_mem_pos_enc"}
        <= without
        <= {"no_mem_pos_enc", "no_obj_ptr"}
        | {f"sam_prompt_encoder.point_embeddings.{label}.weight" for label in (NEGATIVE, POSITIVE)}
    )


def test_what_does_not_fit_is_refused() -> None:
    network, (image, _) = tiny_sam2(), small_image()
    memories = small_memories(1)
    with pytest.raises(ValueError, match="encode all frames at one size"):
        network.condition_on_memory(image, memories._replace(maps=memories.maps[..., :2]))
    with pytest.raises(ValueError, match=r"expected \(N, 1, 64, 96\)"):
        network.accept_masks(image, torch.zeros(1, 64, 96))
    with pytest.raises(ValueError, match=r"expected '2' or '2\.1'"):
        tiny_sam2(version="3")
    with pytest.raises(ValueError, match="multiples of 32"):
        network.encode_image(torch.zeros(1, 3, 70, 64))
