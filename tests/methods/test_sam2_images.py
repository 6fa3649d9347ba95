"""SAM 2 asked about one image: against the official predictor, and through the same class as MobileSAM."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vosssl
from tests.methods.mobile_sam_models import recorded_image
from tests.methods.sam2_models import FOLDER, noise, official_sam2, tiny_sam2
from vosssl.methods.sam2.image_prompts import SAM2Images
from vosssl.modes.build import prompters
from vosssl.propagation.image_prompting import ImagePrompt, ImagePrompter
from vosssl.propagation.mask_generation import MaskGenerator
from vosssl.propagation.segmenter import Box, Clicks

LIMIT = 1e-4  # of an array's largest value
POINTS, LABELS = (
    [[200.5, 120.5], [60.5, 250.5]],
    [True, False],
)  # the record says 200, 120: centres are integers
BOX, BOX2 = Box(90, 40, 330, 260), Box(10, 20, 150, 280)


def error(found: Tensor, recorded: np.ndarray) -> float:
    """Largest difference as a share of the largest value; of maps every n-th row and column was recorded."""
    wanted = torch.from_numpy(recorded)
    if found.shape != wanted.shape:
        step = -(-found.shape[-1] // wanted.shape[-1])
        found = found[..., ::step, ::step]
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def clicks(*points: tuple[float, float, bool]) -> Clicks:
    return Clicks(torch.tensor([point[:2] for point in points]), torch.tensor([point[2] for point in points]))


def test_an_image_is_prompted_as_by_the_official_predictor() -> None:
    with np.load(FOLDER / "images.npz") as stored:
        given = {name: stored[name] for name in stored.files}
    image = recorded_image(300, 420, 31)
    assert zlib.crc32(image.permute(1, 2, 0).contiguous().numpy().tobytes()) == int(given["image_crc32"])
    prompter = ImagePrompter(SAM2Images(official_sam2()))
    prompter.set_image(image)
    for found, name in zip(prompter.image.features, ("image_embed", "high_res0", "high_res1"), strict=True):
        assert error(found, given[name]) < LIMIT
    points = Clicks(torch.tensor(POINTS), torch.tensor(LABELS))
    first = prompter.predict(points)
    mask = first.low_res[0, int(given["mask_prompt_index"])]
    answers = {
        "point_multi": first,
        "point_single": prompter.predict(points, multimask=False),
        "box_single": prompter.predict(BOX, multimask=False),
        "box_points_single": prompter.predict(ImagePrompt(clicks=points, box=BOX), multimask=False),
        "boxes_batch": prompter.predict([BOX, BOX2], multimask=False),
        "mask_point_multi": prompter.predict(ImagePrompt(clicks=points, mask=mask)),
        "mask_only_multi": prompter.predict(ImagePrompt(mask=mask)),
    }
    for call, answer in answers.items():
        rows = slice(None) if call == "boxes_batch" else 0
        assert error(answer.logits[rows], given[f"{call}.masks"]) < LIMIT, call
        assert error(answer.low_res[rows], given[f"{call}.low_res"]) < LIMIT, call
        assert error(answer.iou[rows], given[f"{call}.iou"]) < LIMIT, call


def tiny() -> ImagePrompter:
    prompter = ImagePrompter(SAM2Images(tiny_sam2(), image_size=64))
    prompter.set_image(recorded_image(40, 50, 1))
    return prompter


def test_prompts_of_a_batch_do_not_change_each_other() -> None:
    prompter, mask = tiny(), noise((16, 16), 3)
    prompts: list[Any] = [
        clicks((10.5, 7.5, True)),
        Box(5, 5, 40, 30),
        clicks((10.5, 7.5, True), (30.0, 20.0, False), (12.0, 9.0, True)),
        ImagePrompt(clicks=clicks((20.0, 30.0, True)), box=Box(1, 2, 45, 39)),
        ImagePrompt(clicks=clicks((3.0, 3.0, True), (4.0, 30.0, False)), box=Box(1, 2, 25, 35)),
        ImagePrompt(mask=mask),
        ImagePrompt(box=Box(1, 2, 25, 35), mask=mask),
    ]
    for multimask, count in ((True, 3), (False, 1)):
        together = prompter.predict(prompts, multimask=multimask)
        assert together.logits.shape == (7, count, 40, 50) and together.low_res.shape == (7, count, 16, 16)
        for index, prompt in enumerate(prompts):
            alone = prompter.predict(prompt, multimask=multimask)
            for whole, part in zip(together, alone, strict=True):
                torch.testing.assert_close(whole[index], part[0], atol=1e-5, rtol=1e-4)


def test_a_first_click_gets_the_masks_that_tracking_would_choose_from() -> None:
    prompter, network = tiny(), tiny_sam2()
    answer = prompter.predict(clicks((10.5, 7.5, True)))
    with torch.inference_mode():
        frame = torch.nn.functional.interpolate(
            recorded_image(40, 50, 1)[None] / 255, (64, 64), mode="bilinear", antialias=True
        )
        image = network.encode_image(frame)
        decoded = network.decode_prompts(
            image,
            network.condition_on_memory(image, None),
            points=torch.tensor([[[10 * 64 / 50, 7 * 64 / 40]]]),
            labels=torch.ones(1, 1, dtype=torch.int32),
        )
    assert decoded.candidates is not None
    torch.testing.assert_close(answer.low_res, decoded.candidates.masks[:, 1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(answer.best().iou, decoded.quality)


def test_mask_prompts_are_clamped_as_in_training() -> None:
    prompter, mask = tiny(), 100 * noise((16, 16), 3)
    wild, tame = (prompter.predict(ImagePrompt(mask=given)) for given in (mask, mask.clamp(-32, 32)))
    assert torch.equal(wild.low_res, tame.low_res)


def test_everything_is_found_with_sam_2_too() -> None:
    network = SAM2Images(tiny_sam2(), image_size=64)
    generator = MaskGenerator(network, points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    found = generator(recorded_image(40, 50, 1))
    assert len(found) > 0 and found.masks.shape[1:] == (40, 50)


def test_sizes_that_the_trunk_cannot_take_are_named() -> None:
    with pytest.raises(ValueError, match="image_size is 100, expected a multiple of 32"):
        SAM2Images(tiny_sam2(), image_size=100)


def test_every_published_sam2_is_a_prompter_by_its_name() -> None:
    published = {name for name in vosssl.list_models() if name.startswith("sam2") and "hiera" in name}
    assert published <= set(prompters())
    prompter = vosssl.create_prompter("sam2.1-hiera-tiny", network=tiny_sam2(), device="cpu", image_size=64)
    prompter.set_image(torch.zeros(3, 40, 60, dtype=torch.uint8))
    assert prompter.predict(Box(4, 4, 30, 30), multimask=False).masks.shape == (1, 1, 40, 60)
