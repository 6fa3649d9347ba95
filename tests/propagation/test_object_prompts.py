"""Prompts of a streaming video: given in their frames, as corrections where the object is followed."""

from __future__ import annotations

import pytest
import torch

from tests.propagation.clickable import ColourNetwork, ColourSegmenter, square_labels, squares
from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.propagation.image_prompting import ImagePrompter
from vosssl.propagation.object_prompts import ObjectPrompt, ObjectPrompts
from vosssl.propagation.segmenter import Box

FIRST = ((5.0, 5.0, True),)


def followed(prompts: list[ObjectPrompt], segmenter=None) -> torch.Tensor:
    """(T, H, W) labels of the squares."""
    given = ObjectPrompts(prompts, ImagePrompter(ColourNetwork()))
    segmenter = segmenter or ColourSegmenter()
    return torch.stack([given.step(segmenter, frame) for frame in squares()])


def test_objects_come_in_the_frames_of_their_prompts() -> None:
    prompts = [
        ObjectPrompt(2, 4, box=Box(8, 15, 25, 30)),
        ObjectPrompt(1, 2, points=((8.0, 5.0, True), (40.0, 2.0, False))),
    ]
    labels = followed(prompts)
    assert not labels[:2].any()
    assert torch.equal(labels[3], square_labels(3, objects=1))
    assert torch.equal(labels[4], square_labels(4)) and torch.equal(labels[7], square_labels(7))


def test_points_on_a_followed_object_correct_its_mask() -> None:
    segmenter = CopyFirstMask()
    labels = followed(
        [ObjectPrompt(1, 0, mask=square_labels(0) == 1), ObjectPrompt(1, 5, ((12.0, 5.0, True),))], segmenter
    )
    assert torch.equal(labels[4], square_labels(0, objects=1))
    assert torch.equal(labels[7], square_labels(5, objects=1))


def test_the_later_of_two_masks_has_the_pixels() -> None:
    whole = torch.ones(32, 48, dtype=torch.bool)
    labels = followed(
        [ObjectPrompt(1, 0, mask=whole), ObjectPrompt(2, 0, mask=square_labels(0) == 2)], CopyFirstMask()
    )
    assert torch.equal(labels[0] == 2, square_labels(0) == 2) and bool((labels[0] > 0).all())


def test_frames_that_never_came_are_known() -> None:
    given = ObjectPrompts(
        [ObjectPrompt(1, 0, FIRST), ObjectPrompt(1, 9, FIRST)], ImagePrompter(ColourNetwork())
    )
    segmenter = ColourSegmenter()
    for frame in squares():
        given.step(segmenter, frame)
    assert (given.waiting, given.left) == (False, (9,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "object 1 in frame 0 says nothing; give points, a box or a mask"),
        ({"identity": 255, "points": FIRST}, "expected an object of 1..254"),
        ({"frame": -1, "points": FIRST}, "a frame of 0 or more"),
        ({"points": FIRST, "mask": torch.ones(2, 2)}, "give the mask alone"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectPrompt(**arguments)


def test_what_goes_wrong_in_a_frame_names_it_and_the_video_can_go_on() -> None:
    with pytest.raises(ValueError, match="there is no prompt"):
        ObjectPrompts([])
    with pytest.raises(ValueError, match="object 1 has two prompts in frame 0"):
        ObjectPrompts([ObjectPrompt(1, 0, FIRST)] * 2)
    segmenter, (frame, *_) = ColourSegmenter(), squares()
    for points, message in [
        (((60.0, 3.0, True),), "x 60, y 3 lies outside"),
        (((40.0, 2.0, True),), "object 1 in frame 0 is empty"),
    ]:
        given = ObjectPrompts([ObjectPrompt(1, 0, points)], ImagePrompter(ColourNetwork()))
        with pytest.raises(ValueError, match=message):
            given.step(segmenter, frame)
    with pytest.raises(ValueError, match="need a prompter"):
        ObjectPrompts([ObjectPrompt(1, 0, FIRST)]).step(segmenter, frame)
    labels = ObjectPrompts([ObjectPrompt(1, 0, FIRST)], ImagePrompter(ColourNetwork())).step(segmenter, frame)
    assert torch.equal(labels, square_labels(0, objects=1))
