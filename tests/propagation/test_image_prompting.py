"""Prompts on an image: pixels, batches and complaints, with a network that is done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vosssl.propagation.image_prompting import (
    EncodedImage,
    ImagePrompt,
    ImagePrompter,
    MaskCandidates,
    PromptRows,
)
from vosssl.propagation.segmenter import Box, Clicks

IMAGE = torch.zeros(3, 20, 40)


class Discs:
    """Says that a disc around the first point is the object; of boxes, their inside. Sees 8 x 16 places."""

    mask_prompt_size = (8, 16)

    def __init__(self) -> None:
        self.asked: list[PromptRows] = []
        self.encoded = 0

    def encode_image(self, image: Tensor) -> EncodedImage:
        self.encoded += 1
        return EncodedImage((image.float().mean()[None, None, None, None],), (20, 40), (8, 16))

    def decode_prompts(self, image: EncodedImage, prompts: PromptRows, *, multimask: bool) -> MaskCandidates:
        self.asked.append(prompts)
        placed = prompts.scaled_to(image)
        y, x = torch.meshgrid(torch.arange(8.0), torch.arange(16.0), indexing="ij")
        if placed.points is not None:
            centre = placed.points[:, 0, :, None, None]  # (P, 2, 1, 1)
            logits = 2 - ((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2).sqrt()
        elif placed.boxes is not None:
            left, top, right, bottom = placed.boxes[..., None, None].unbind(dim=1)
            logits = torch.minimum(torch.minimum(x - left, right - x), torch.minimum(y - top, bottom - y))
        else:
            assert placed.masks is not None
            logits = placed.masks[:, 0]
        count = 2 if multimask else 1
        return MaskCandidates(
            logits[:, None].expand(-1, count, -1, -1), torch.tensor([[0.5, 0.9][:count]] * len(logits))
        )

    def at_image_size(self, image: EncodedImage, logits: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(logits, image.size, mode="bilinear")


def click(x: float, y: float, positive: bool = True) -> Clicks:
    return Clicks(torch.tensor([[x, y]]), torch.tensor([positive]))


def prompter(**options: int) -> tuple[ImagePrompter, Discs]:
    network = Discs()
    asker = ImagePrompter(network, **options)
    asker.set_image(IMAGE)
    return asker, network


def test_the_centre_of_a_pixel_is_an_integer_for_the_network_and_a_half_for_clicks() -> None:
    asker, network = prompter()
    answer = asker.predict(click(10.5, 5.5))
    assert network.asked[0].points.tolist() == [[[10.0, 5.0]]]  # type: ignore[union-attr]
    assert network.asked[0].labels.tolist() == [[1]]  # type: ignore[union-attr]
    assert network.asked[0].scaled_to(asker.image).points.tolist() == [[[4.0, 2.0]]]  # type: ignore[union-attr]
    assert answer.masks.shape == (1, 2, 20, 40)
    assert answer.masks[0, 0, 5, 10] and not answer.masks[0, 0, 15, 30]


def test_one_image_answers_many_questions() -> None:
    asker, network = prompter()
    for _ in range(3):
        asker.predict(Box(4, 4, 20, 12))
    assert network.encoded == 1
    asker.set_image(torch.zeros(3, 20, 40, dtype=torch.uint8))
    assert network.encoded == 2


def test_answers_keep_the_order_of_prompts_and_kinds_are_batched() -> None:
    asker, network = prompter()
    prompts = [
        click(5, 5),
        Box(20, 2, 38, 18),
        click(30, 15),
        Clicks(torch.tensor([[30.0, 5.0], [1, 1]]), torch.tensor([True, False])),
    ]
    answer = asker.predict(prompts, multimask=False)
    assert len(network.asked) == 2  # clicks, of one or two points, and boxes
    points, labels = network.asked[0].points, network.asked[0].labels
    assert points is not None and points.shape == (3, 2, 2)
    assert labels is not None and labels.tolist() == [[1, -2], [1, -2], [1, 0]]
    for index, (x, y) in enumerate([(5, 5), (29, 10), (30, 15), (30, 5)]):
        inside = answer.masks[index, 0].nonzero().float().mean(dim=0)
        torch.testing.assert_close(inside, torch.tensor([float(y), float(x)]), atol=1.5, rtol=0)


def test_an_earlier_answer_is_a_prompt() -> None:
    asker, _ = prompter()
    first = asker.predict(click(10.5, 5.5)).best()
    again = asker.predict(ImagePrompt(mask=first.low_res[0, 0]), multimask=False)
    assert torch.equal(again.masks[0], first.masks[0])


def test_chunks_change_nothing() -> None:
    boxes = [Box(2 * k, k, 2 * k + 15, k + 9) for k in range(5)]
    whole, parts = prompter()[0].predict(boxes), prompter(chunk_size=2)[0].predict(boxes)
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize(
    ("prompts", "complaint"),
    [
        ([], "there is no prompt"),
        (click(41, 3), "prompt 0 has a point at x 41, y 3, outside the image of 40 x 20"),
        ([click(1, 1), click(3, -1)], "prompt 1 has a point"),
        (click(float("nan"), 1), "outside the image"),
        (Box(41, 3, 50, 9), "lies outside the image of 40 x 20"),
        (ImagePrompt(mask=torch.zeros(20, 40)), r"expected float logits \(8, 16\)"),
        (ImagePrompt(mask=torch.zeros(8, 16, dtype=torch.bool)), "torch.bool, expected float logits"),
        ([torch.zeros(2)], "expected ImagePrompt, Clicks or Box"),
    ],
)
def test_wrong_prompts_are_named_and_the_image_stays(prompts: object, complaint: str) -> None:
    asker, _ = prompter()
    with pytest.raises(ValueError, match=complaint):
        asker.predict(prompts)  # type: ignore[arg-type]
    assert asker.predict(click(3, 3)).logits.shape == (1, 2, 20, 40)


def test_empty_prompts_and_boxes_without_area_are_errors() -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        ImagePrompt()
    with pytest.raises(ValueError, match="is empty; expected left < right"):
        Box(3, 3, 3, 9)
    with pytest.raises(ValueError, match="expected at least 1"):
        ImagePrompter(Discs(), chunk_size=0)


def test_an_image_comes_before_questions() -> None:
    asker = ImagePrompter(Discs())
    with pytest.raises(RuntimeError, match="call set_image first"):
        asker.predict(click(1, 1))
    asker.set_image(IMAGE)
    with pytest.raises(ValueError, match=r"image is \(20, 40\)"):
        asker.set_image(IMAGE[0])
    with pytest.raises(ValueError, match="divide by 255"):
        asker.set_image(IMAGE + 200)
    asker.predict(click(1, 1))  # the one before
    asker.reset()
    with pytest.raises(RuntimeError, match="no image"):
        asker.predict(click(1, 1))
