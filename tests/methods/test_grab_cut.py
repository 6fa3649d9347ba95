"""GrabCut answers clicks, boxes and masks; what no colour tells apart it says so."""

from __future__ import annotations

import pytest
import torch

import vosssl
from vosssl.methods.grab_cut import GrabCut, contrast, grab_cut_prompter
from vosssl.propagation.image_prompting import ImagePrompt
from vosssl.propagation.segmenter import Box, Clicks

TRUTH = torch.zeros(2, 96, 128, dtype=torch.bool)
TRUTH[0, 20:60, 16:56] = True
TRUTH[1, 30:80, 80:116] = True


def image() -> torch.Tensor:
    """(3, 96, 128) uint8: two noisy rectangles of other colours on noisy green."""
    colours = torch.tensor([[60.0, 140, 60], [200, 60, 60], [60, 80, 210]])
    labels = (TRUTH * torch.tensor([1, 2])[:, None, None]).sum(0)
    noise = torch.randn(96, 128, 3, generator=torch.Generator().manual_seed(0)) * 12
    return (colours[labels] + noise).clamp(0, 255).byte().permute(2, 0, 1)


def clicks(*points: tuple[float, float, bool]) -> Clicks:
    return Clicks(torch.tensor([point[:2] for point in points]), torch.tensor([point[2] for point in points]))


def iou(mask: torch.Tensor, truth: torch.Tensor) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize(
    ("prompt", "truth"),
    [
        (clicks((36.0, 40.0, True)), TRUTH[0]),
        (Box(76, 26, 120, 84), TRUTH[1]),
        (clicks((36.0, 40.0, True), (98.0, 50.0, True)), TRUTH.any(0)),
        (
            ImagePrompt(clicks=clicks((98.0, 50.0, True), (36.0, 40.0, False)), box=Box(10, 10, 122, 90)),
            TRUTH[1],
        ),
    ],
)
def test_what_differs_in_colour_is_found(prompt, truth: torch.Tensor) -> None:
    prompter = grab_cut_prompter()
    prompter.set_image(image())
    found = prompter.predict(prompt, multimask=isinstance(prompt, Clicks)).best()
    assert iou(found.masks[0, 0], truth) > 0.95
    assert 0.8 < float(found.iou[0, 0]) <= 1


def test_a_mask_is_a_prompt_and_several_prompts_are_answered_at_once() -> None:
    prompter = grab_cut_prompter()
    prompter.set_image(image())
    first = prompter.predict(Box(10, 14, 62, 66), multimask=False)
    later = prompter.predict(
        [
            ImagePrompt(clicks=clicks((98.0, 50.0, True)), mask=first.low_res[0, 0]),
            ImagePrompt(clicks=clicks((36.0, 40.0, True)), mask=first.low_res[0, 0]),
        ],
        multimask=False,
    )
    assert iou(later.masks[0, 0], TRUTH.any(0)) > 0.9
    assert iou(later.masks[1, 0], TRUTH[0]) > 0.95


def test_a_click_far_away_does_not_take_a_mask_away() -> None:
    plain = image()
    plain[:, TRUTH[0]] = torch.tensor([66, 146, 66], dtype=torch.uint8)[:, None]  # hardly to be told apart
    prompter = grab_cut_prompter()
    prompter.set_image(plain)
    mask = torch.where(
        torch.nn.functional.interpolate(TRUTH[:1, None].float(), (256 * 96 // 128, 256)) > 0.5, 8.0, -8.0
    )
    logits = torch.full((256, 256), -8.0)
    logits[:192] = mask[0, 0]
    found = prompter.predict(ImagePrompt(clicks=clicks((120.0, 90.0, False)), mask=logits), multimask=False)
    assert bool(found.masks.any())


def test_the_same_question_has_the_same_answer() -> None:
    prompter = grab_cut_prompter(side=64)
    prompter.set_image(image())
    answers = [prompter.predict(clicks((36.0, 40.0, True))) for _ in range(2)]
    assert torch.equal(answers[0].logits, answers[1].logits)
    assert answers[0].masks.shape == (1, 3, 96, 128)


def test_where_there_is_one_colour_no_answer_is_trusted() -> None:
    plain = torch.full((3, 40, 40), 90, dtype=torch.uint8)
    prompter = grab_cut_prompter()
    prompter.set_image(plain)
    assert float(prompter.predict(clicks((20.0, 20.0, True))).iou.max()) < 0.1
    assert contrast(plain.permute(1, 2, 0).numpy(), torch.zeros(40, 40, dtype=torch.bool).numpy()) == 0


def test_it_is_known_by_name_and_needs_nothing() -> None:
    assert isinstance(vosssl.create_prompter("grab-cut", side=64).network, GrabCut)
    with pytest.raises(ValueError, match="expected at least 16, 1 and one tolerance"):
        vosssl.create_prompter("grab-cut", side=4)
