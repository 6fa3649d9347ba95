"""SAM 2 frame by frame: beside a session over the whole video, and with memory that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vosssl
from tests.methods.sam2_models import moving_rectangles, tiny_sam2
from vosssl.methods.sam2.segmenter import SAM2Segmenter
from vosssl.methods.sam2.session import SAM2Session
from vosssl.propagation.segmenter import Box, Clicks


def tiny_segmenter(**options: Any) -> SAM2Segmenter:
    return SAM2Segmenter(tiny_sam2(), **{"image_size": 64, **options})


def two_rectangles() -> Tensor:
    labels = torch.zeros(48, 64, dtype=torch.uint8)
    labels[5:20, 5:25], labels[25:45, 30:60] = 1, 2
    return labels


def click(x: float, y: float) -> Clicks:
    return Clicks(torch.tensor([[x, y]]), torch.tensor([True]))


def test_a_stream_is_followed_like_a_stored_video() -> None:
    video, labels = moving_rectangles(18, 48, 64, 11), two_rectangles()
    session, segmenter = SAM2Session(tiny_sam2(), video, image_size=64), tiny_segmenter()
    for identity in (1, 2):
        session.add_prompt(0, identity, mask=labels == identity)
    for masks in session.propagate():
        segmenter.step(video[masks.frame], labels if masks.frame == 0 else None)
        expected = masks.logits.sigmoid()
        expected = torch.cat([1 - expected.amax(dim=0, keepdim=True), expected])
        expected = expected / expected.sum(dim=0)
        assert (segmenter.probabilities - expected).abs().max() < 2e-2  # memories are rounded to bfloat16


def test_what_is_remembered_stops_growing() -> None:
    segmenter, video = tiny_segmenter(memory_stride=2), moving_rectangles(40, 48, 64, 11)
    sizes = []
    for time, frame in enumerate(video):
        segmenter.step(frame, two_rectangles() if time == 0 else None)
        sizes.append(segmenter.memory_mb)
    assert sizes[2] < sizes[19] and sizes[19] == sizes[-1]


def test_prompts_beyond_the_limit_leave_the_first_and_the_last_ones() -> None:
    segmenter, video = tiny_segmenter(max_prompted=2), moving_rectangles(6, 48, 64, 11)
    for frame in video:
        segmenter.step(frame, two_rectangles())
    assert sorted(segmenter._tracks[1].conditioning) == [0, 5]


def test_clicks_boxes_and_masks_of_any_frame_go_together() -> None:
    segmenter, video = tiny_segmenter(), moving_rectangles(4, 48, 64, 11)
    several = Clicks(torch.tensor([[10.0, 10.0], [30.0, 30.0]]), torch.tensor([True, False]))
    segmenter.step(video[0], {3: click(10, 10), 1: Box(20, 20, 50, 40), 2: several})
    assert segmenter.object_ids == (1, 2, 3)
    segmenter.step(video[1], {7: two_rectangles().eq(1).float()})
    segmenter.step(video[2], {3: click(12, 11), 9: Box(5, 5, 20, 20)})
    labels = segmenter.step(video[3])
    assert segmenter.object_ids == (1, 2, 3, 7, 9)
    assert labels.shape == (48, 64) and set(labels.unique().tolist()) <= {0, 1, 2, 3, 7, 9}
    assert torch.allclose(segmenter.probabilities.sum(dim=0), torch.ones(48, 64), atol=1e-5)


def test_objects_do_not_depend_on_those_that_were_prompted_with_them() -> None:
    together, alone, video = tiny_segmenter(), tiny_segmenter(), moving_rectangles(3, 48, 64, 11)
    both = {1: click(10, 10), 2: Box(20, 20, 50, 40)}
    for time, frame in enumerate(video):
        together.step(frame, both if time == 0 else None)
        alone.step(frame, {2: both[2]} if time == 0 else None)
    assert together._tracks[2].tracked.keys() == alone._tracks[2].tracked.keys()
    for time in (1, 2):
        first, second = together._tracks[2].tracked[time], alone._tracks[2].tracked[time]
        assert torch.allclose(first.pointer, second.pointer, atol=1e-2)


def test_a_removed_object_leaves_the_others_as_they_were() -> None:
    segmenter, video = tiny_segmenter(), moving_rectangles(4, 48, 64, 11)
    segmenter.step(video[0], two_rectangles())
    segmenter.remove_objects([1])
    assert segmenter.probabilities.shape == (2, 48, 64)
    segmenter.step(video[1])
    assert segmenter.object_ids == (2,)
    with pytest.raises(ValueError, match="not followed"):
        segmenter.remove_objects([1])


def test_a_wrong_prompt_leaves_the_video_as_it_was() -> None:
    segmenter, video = tiny_segmenter(), moving_rectangles(3, 48, 64, 11)
    segmenter.step(video[0], two_rectangles())
    with pytest.raises(ValueError, match="names no object"):
        segmenter.step(video[1], torch.zeros(48, 64, dtype=torch.uint8))
    segmenter.step(video[1])
    assert segmenter.object_ids == (1, 2) and segmenter.frame_index == 2


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        tiny_segmenter(image_size=100)
    with pytest.raises(ValueError, match="at least 1"):
        tiny_segmenter(max_prompted=1)


def test_it_is_made_by_name() -> None:
    segmenter = vosssl.create_segmenter("sam2.1-hiera-tiny", network=tiny_sam2(), device="cpu", image_size=64)
    assert isinstance(segmenter, SAM2Segmenter)


def test_a_correction_of_the_last_frame_is_as_if_it_had_come_with_the_frame() -> None:
    late, timely, video = tiny_segmenter(), tiny_segmenter(), moving_rectangles(12, 48, 64, 11)
    for segmenter in (late, timely):
        for time, frame in enumerate(video[:10]):
            segmenter.step(frame, two_rectangles() if time == 0 else None)
    prompt = {2: Clicks(torch.tensor([[30.0, 30.0]]), torch.tensor([False])), 5: Box(3, 3, 20, 40)}
    late.step(video[10])
    late.correct({2: prompt[2]})
    labels = late.correct({5: prompt[5]})
    assert torch.equal(labels, timely.step(video[10], prompt))
    assert torch.equal(late.probabilities, timely.probabilities)
    assert torch.equal(late.step(video[11]), timely.step(video[11]))
    assert late.object_ids == (1, 2, 5) and late.frame_index == 12


def test_clicks_on_a_first_frame_add_up() -> None:
    segmenter, video = tiny_segmenter(), moving_rectangles(2, 48, 64, 11)
    session = SAM2Session(tiny_sam2(), video, image_size=64)
    segmenter.step(video[0], {1: click(10, 10)})
    session.add_prompt(0, 1, clicks=click(10, 10))
    both = Clicks(torch.tensor([[10.0, 10.0], [30.0, 30.0]]), torch.tensor([True, False]))
    segmenter.correct({1: both})
    expected = session.add_prompt(0, 1, clicks=both).logits
    assert (segmenter.probabilities[1] - expected[0].sigmoid()).abs().max() < 1e-2
    segmenter.remove_objects([1])
    segmenter.correct({4: click(20, 20)})
    assert segmenter.object_ids == (4,)


@pytest.mark.parametrize(
    ("fault", "prompt"),
    [
        ("not all inside", {3: click(64.5, 10)}),
        ("lies outside", {3: Box(70, 5, 90, 20)}),
        ("mask of object 3 is empty", {3: torch.zeros(48, 64)}),
        ("prompt is", {}),
        ("names no object", torch.zeros(48, 64, dtype=torch.uint8)),
    ],
)
def test_after_a_wrong_prompt_a_stream_is_as_if_it_had_not_come(fault: str, prompt: Any) -> None:
    disturbed, calm, video = tiny_segmenter(), tiny_segmenter(), moving_rectangles(3, 48, 64, 11)
    with pytest.raises(ValueError, match="cannot be corrected: there is no such frame"):
        disturbed.correct({1: click(5, 5)})
    for segmenter in (disturbed, calm):
        segmenter.step(video[0], two_rectangles())
    for call in (disturbed.correct, lambda wrong: disturbed.step(video[1], wrong)):
        with pytest.raises(ValueError, match=fault):
            call(prompt)
    for frame in video[1:]:
        disturbed.step(frame), calm.step(frame)
        assert torch.equal(disturbed.probabilities, calm.probabilities)


def test_half_precision_follows_nearly_the_same_objects() -> None:
    exact, rounded = segmenters = tiny_segmenter(), tiny_segmenter(precision="bf16")
    for time, frame in enumerate(moving_rectangles(3, 48, 64, 11)):
        for segmenter in segmenters:
            segmenter.step(frame, two_rectangles() if time == 0 else None)
    first, second = (segmenter.probabilities.argmax(dim=0) for segmenter in (exact, rounded))
    assert (first == second).float().mean() > 0.9
