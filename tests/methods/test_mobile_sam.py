"""MobileSAM against what the official code computed with the same weights; prompts of all kinds."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

import vosssl
from tests.methods.mobile_sam_models import (
    arrays,
    error,
    keys,
    official_mobile_sam,
    recorded_image,
    recorded_tensor,
    tiny_mobile_sam,
)
from vosssl.backbones.known_weights import KNOWN_WEIGHTS
from vosssl.backbones.weights import load_weights
from vosssl.layers.prompt_encoder import ABSENT
from vosssl.methods.mobile_sam import MobileSAM
from vosssl.ops.resize import resize_to_longest
from vosssl.propagation.image_prompting import ImagePrompt, ImagePrompter, PromptRows
from vosssl.propagation.segmenter import Box, Clicks

LIMIT = 3e-5  # of an array's largest value: recorded with 15 bits, 1.6e-5
IOU_LIMIT = 1e-4


def recorded_prompts(case: str) -> PromptRows:
    """The prompts of a case, in pixels of the padded square."""
    points, labels, boxes = (
        torch.from_numpy(arrays()[f"prompt.{part}"]) for part in ("coords", "labels", "boxes")
    )
    return PromptRows(
        points if "points" in case else None,
        labels if "points" in case else None,
        boxes if "boxes" in case else None,
        recorded_tensor((2, 1, 256, 256), 3, 4.0) if "mask" in case else None,
    )


def test_names_shapes_and_order_are_those_of_the_official_file() -> None:
    state = official_mobile_sam().state_dict()
    assert len(state) == 439
    assert [(name, list(value.shape)) for name, value in state.items()] == keys()


@pytest.mark.parametrize("case", ["points", "points_boxes_mask", "boxes", "mask"])
@torch.inference_mode()
def test_prompts_are_encoded_and_decoded_as_recorded(case: str) -> None:
    network, prompts = official_mobile_sam(), recorded_prompts(case)
    tokens = network.prompt_encoder.tokens(
        (1024, 1024), points=prompts.points, labels=prompts.labels, boxes=prompts.boxes
    )
    assert error(tokens.expand(2, -1, -1), f"prompt.{case}.sparse") < LIMIT
    dense = network.prompt_encoder.maps((64, 64), masks=prompts.masks)
    assert error(dense.expand(2, -1, -1, -1), f"prompt.{case}.dense") < LIMIT
    assert error(network.prompt_encoder.positions((64, 64)), "prompt.dense_pe") < LIMIT
    embedding = recorded_tensor((1, 256, 64, 64), 4)
    for name, multimask in (("multi", True), ("single", False)):
        answer = network.decode(embedding, prompts, multimask=multimask)
        assert error(answer.logits, f"decoder.{case}.{name}.masks") < LIMIT
        assert error(answer.iou, f"decoder.{case}.{name}.iou") < IOU_LIMIT


@pytest.mark.parametrize("case", ["image_up", "image_down"])
def test_an_image_is_prompted_as_recorded(case: str) -> None:
    given = {
        name.removeprefix(f"{case}."): value for name, value in arrays().items() if name.startswith(case)
    }
    image = recorded_image(*given["size"].tolist())
    assert zlib.crc32(image.permute(1, 2, 0).contiguous().numpy().tobytes()) == int(given["image_crc32"])
    resized = resize_to_longest(image, 1024)
    assert list(resized.shape[1:]) == given["input_size"].tolist()
    assert torch.equal(resized[:, ::16, ::16].permute(1, 2, 0), torch.from_numpy(given["resized_sub"]))
    prompter = ImagePrompter(official_mobile_sam())
    prompter.set_image(image)
    assert error(prompter.image.features[0], f"{case}.features") < LIMIT
    # the official code calls a pixel's centre an integer
    clicks = Clicks(torch.from_numpy(given["points"]) + 0.5, torch.from_numpy(given["labels"]) == 1)
    box = Box(*given["box"].tolist())
    first = prompter.predict(clicks)
    earlier = first.low_res[0, int(given["mask_prompt_index"])]
    answers = {
        "point_multi": first,
        "point_single": prompter.predict(clicks, multimask=False),
        "box_single": prompter.predict(box, multimask=False),
        "box_points_multi": prompter.predict(ImagePrompt(clicks=clicks, box=box)),
        "mask_point_multi": prompter.predict(ImagePrompt(clicks=clicks, mask=earlier)),
    }
    for call, answer in answers.items():
        step = int(given["sub"])
        assert answer.logits.shape[-2:] == image.shape[1:]
        assert error(answer.logits[0], f"{case}.{call}.masks", step=step) < LIMIT
        assert error(answer.low_res[0], f"{case}.{call}.low_res") < LIMIT
        assert error(answer.iou[0], f"{case}.{call}.iou") < IOU_LIMIT


def prompted(**options: Any) -> ImagePrompter:
    prompter = ImagePrompter(tiny_mobile_sam(**options))
    prompter.set_image(recorded_image(40, 50, 1))
    return prompter


def clicks(*points: tuple[float, float, bool]) -> Clicks:
    return Clicks(torch.tensor([point[:2] for point in points]), torch.tensor([point[2] for point in points]))


def test_prompts_of_a_batch_do_not_change_each_other() -> None:
    prompter = prompted()
    mask = prompter.predict(Box(3, 4, 30, 20)).low_res[0, 1]
    prompts: list[Any] = [
        clicks((10.5, 7.5, True)),
        Box(5, 5, 40, 30),
        clicks((10.5, 7.5, True), (30.0, 20.0, False), (12.0, 9.0, True)),
        ImagePrompt(clicks=clicks((20.0, 30.0, True)), box=Box(1, 2, 45, 39)),
        ImagePrompt(mask=mask),
        ImagePrompt(clicks=clicks((3.0, 3.0, True), (4.0, 30.0, False)), box=Box(1, 2, 25, 35)),
        ImagePrompt(clicks=clicks((20.0, 30.0, True)), mask=mask),
    ]
    for multimask, count in ((True, 3), (False, 1)):
        together = prompter.predict(prompts, multimask=multimask)
        assert together.logits.shape == (7, count, 40, 50) and together.low_res.shape == (7, count, 16, 16)
        for index, prompt in enumerate(prompts):
            alone = prompter.predict(prompt, multimask=multimask)
            for whole, part in zip(together, alone, strict=True):
                torch.testing.assert_close(whole[index], part[0], atol=1e-5, rtol=1e-4)
    little = ImagePrompter(prompter.network, chunk_size=2)
    little.set_image(recorded_image(40, 50, 1))
    torch.testing.assert_close(little.predict(prompts).iou, prompter.predict(prompts).iou, atol=1e-5, rtol=0)


def test_the_best_mask_is_the_one_the_network_trusts() -> None:
    answer = prompted().predict([clicks((10.5, 7.5, True)), Box(5, 5, 40, 30)])
    best = answer.best()
    assert torch.equal(best.iou[:, 0], answer.iou.max(dim=1).values)
    chosen = answer.iou[1].argmax()
    assert torch.equal(best.logits[1, 0], answer.logits[1, chosen])
    assert torch.equal(best.masks, best.logits > 0)


def test_a_float_image_says_what_its_bytes_say() -> None:
    prompter, image = prompted(), recorded_image(64, 48, 1)  # of the network's size: not resized
    answers = []
    for frame in (image, image / 255):
        prompter.set_image(frame)
        answers.append(prompter.predict(Box(5, 5, 40, 30)).logits)
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=1e-4)


def test_half_precision_gives_about_the_same_masks_as_floats() -> None:
    prompter = prompted()
    prompts = [
        ImagePrompt(box=Box(5, 5, 40, 30), mask=recorded_tensor((16, 16), 3)),
        clicks((9.0, 9.0, True)),
    ]
    exact = prompter.predict(prompts)
    half = ImagePrompter(tiny_mobile_sam().bfloat16())
    half.set_image(recorded_image(40, 50, 1))
    rough = half.predict(prompts)
    assert rough.logits.dtype == rough.iou.dtype == torch.float32
    assert float((rough.logits - exact.logits).abs().max()) < 0.1 * float(exact.logits.abs().max())


def test_training_sees_the_masks_of_use_and_gradients_reach_everything() -> None:
    network = tiny_mobile_sam()
    images = torch.stack([recorded_image(64, 64, seed) for seed in (1, 2)]) / 255
    rows = PromptRows(
        torch.tensor([[[9.0, 9.0], [30.0, 20.0]], [[40.0, 9.0], [0.0, 0.0]]]),
        torch.tensor([[1, 0], [1, ABSENT]], dtype=torch.int32),
        masks=recorded_tensor((2, 1, 16, 16), 3),
    )
    candidates = network(images, rows)
    prompter = ImagePrompter(network)
    for index in range(2):
        prompter.set_image(images[index])
        answer = prompter.decode(rows.part(slice(index, index + 1)), multimask=True)
        torch.testing.assert_close(candidates.logits[index].detach(), answer.logits[0], atol=1e-5, rtol=1e-4)
    boxed = network(images, PromptRows(boxes=torch.tensor([[3.0, 4, 40, 50]] * 2)), multimask=False)
    parts = (candidates.logits, candidates.iou, boxed.logits, boxed.iou)
    torch.stack([part.square().mean() for part in parts]).sum().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert idle == [
        f"image_encoder.{name}" for name in ("norm_head.weight", "norm_head.bias", "head.weight", "head.bias")
    ]


def test_a_released_file_loads_by_the_models_name_and_names_what_does_not_fit(tmp_path: Path) -> None:
    assert "mobile-sam" in vosssl.list_models() and "mobile-sam" in KNOWN_WEIGHTS
    network = vosssl.create_model("mobile-sam")
    assert isinstance(network, MobileSAM)
    state = official_mobile_sam().state_dict()
    torch.save(state, tmp_path / "mobile_sam.pt")
    load_weights(network, tmp_path / "mobile_sam.pt")
    assert torch.equal(network.mask_decoder.iou_token.weight, state["mask_decoder.iou_token.weight"])
    short = {name: value for name, value in state.items() if name != "mask_decoder.iou_token.weight"}
    with pytest.raises(ValueError, match=r"1 missing \(mask_decoder.iou_token.weight\)"):
        load_weights(network, short)


def test_what_the_network_cannot_take_is_said() -> None:
    with pytest.raises(ValueError, match="at most 64; resize them"):
        tiny_mobile_sam().embed(torch.zeros(1, 3, 64, 80))
    with pytest.raises(ValueError, match="expected a multiple of 16"):
        tiny_mobile_sam(image_size=70)
