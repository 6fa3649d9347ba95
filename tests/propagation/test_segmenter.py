"""The border of every segmenter: ids, sizes, padding, arg-max."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vosssl.methods.copy_first_mask import CopyFirstMask
from vosssl.propagation.segmenter import Box, Clicks, Prompted, VideoSegmenter


class Echo(VideoSegmenter):
    """Answers with the prompt, at the size of its own frames, and records what it was given."""

    prompt_kinds = ("masks", "clicks", "boxes")

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        self.seen = frame
        self.prompted = prompted
        if prompted is not None and prompted.masks is not None:
            self.given = prompted.masks.float()
        elif prompted is not None:
            self.given = torch.zeros(len(prompted.ids), *frame.shape[1:])
        return torch.cat([torch.full((1, *frame.shape[1:]), 0.5), self.given])


def square(size: tuple[int, int] = (40, 60), *, identity: int = 7) -> Tensor:
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[10:20, 12:30] = identity
    return labels


FRAME = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)


def test_ids_come_back_as_they_were_given() -> None:
    labels = square(identity=200)
    labels[25:35, 40:50] = 3
    segmenter = Echo()
    assert torch.equal(segmenter.step(FRAME, labels), labels)
    assert segmenter.object_ids == (3, 200)
    assert segmenter.probabilities.shape == (3, 40, 60)


def test_bytes_and_fractions_are_the_same_frame() -> None:
    segmenter = Echo()
    segmenter.step(FRAME, square())
    as_bytes = segmenter.seen
    segmenter.reset()
    segmenter.step(FRAME.float() / 255, square())
    assert torch.equal(segmenter.seen, as_bytes)
    assert float(as_bytes.max()) <= 1


def test_padding_changes_no_label() -> None:
    padded = Echo(stride=16)
    assert torch.equal(padded.step(FRAME, square()), square())
    assert padded.seen.shape == (3, 48, 64)


def test_padding_has_the_colour_asked_for() -> None:
    segmenter = Echo(stride=16, pad_colour=(0.25, 0.5, 0.75))
    segmenter.step(FRAME, square())
    torch.testing.assert_close(segmenter.seen[:, 0, 0], torch.tensor([0.25, 0.5, 0.75]))


def test_a_shorter_side_limits_the_working_size_and_never_enlarges() -> None:
    small, large = Echo(size=20), Echo(size=400)
    small.step(FRAME, square())
    large.step(FRAME, square())
    assert small.seen.shape == (3, 20, 30)
    assert large.seen.shape == (3, 40, 60)


def test_labels_come_back_at_the_frame_size_when_the_method_works_at_another() -> None:
    labels = Echo(size=(20, 30)).step(FRAME, square())
    assert labels.shape == (40, 60)
    assert (labels != square()).sum() < 30  # only along the edge


def test_objects_without_a_prompt_are_background() -> None:
    segmenter = Echo()
    assert not segmenter.step(FRAME).any()
    assert segmenter.probabilities.shape == (1, 40, 60)


def test_a_later_prompt_adds_objects_in_the_order_of_arrival() -> None:
    segmenter = CopyFirstMask()
    segmenter.step(FRAME, square(identity=5))
    later = torch.zeros_like(square())
    later[15:25, 20:40] = 2
    expected = square(identity=5).masked_fill(later > 0, 2)
    assert torch.equal(segmenter.step(FRAME, later), expected)
    assert segmenter.object_ids == (5, 2)


def test_void_in_a_prompt_is_nobody() -> None:
    labels = square()
    labels[0:5] = 255
    segmenter = Echo()
    assert int(segmenter.step(FRAME, labels).max()) == 7
    assert segmenter.object_ids == (7,)


def test_reset_forgets_the_video() -> None:
    segmenter = CopyFirstMask()
    segmenter.step(FRAME, square())
    segmenter.reset()
    assert not segmenter.step(FRAME).any()
    assert segmenter.object_ids == ()


def test_clicks_and_boxes_arrive_in_pixels_of_the_network() -> None:
    segmenter = Echo(size=(20, 30), stride=16)  # 20 x 30 -> 32 x 32: 6 rows above, 1 column left
    prompt = {4: Clicks(torch.tensor([[30.0, 20.0]]), torch.tensor([True])), 9: Box(10, 20, 30, 40)}
    segmenter.step(FRAME, prompt)
    assert segmenter.prompted is not None
    assert segmenter.prompted.clicks[4].points.tolist() == [[16.0, 16.0]]
    assert segmenter.prompted.boxes[9] == Box(6.0, 16.0, 16.0, 26.0)
    assert segmenter.object_ids == (4, 9)


@pytest.mark.parametrize(
    ("frame", "prompt", "complaint"),
    [
        (torch.zeros(40, 60, 3), None, r"expected \(3, H, W\)"),
        (torch.zeros(3, 40, 60, dtype=torch.int64), None, "expected uint8 or float"),
        (FRAME, torch.zeros(2, 40, 60, dtype=torch.uint8), "pass ids, not one-hot"),
        (FRAME, torch.zeros(40, 60), "expected uint8 ids"),
        (FRAME, {0: Box(0, 0, 1, 1)}, "ids 1..254"),
    ],
)
def test_wrong_input_is_named(frame: Tensor, prompt: Tensor | None, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Echo().step(frame, prompt)


def test_a_method_says_which_prompts_it_takes() -> None:
    with pytest.raises(ValueError, match="takes masks, got boxes"):
        CopyFirstMask().step(FRAME, {1: Box(0, 0, 5, 5)})


def test_a_size_that_changes_in_mid_video_is_an_error() -> None:
    segmenter = Echo()
    segmenter.step(FRAME, square())
    with pytest.raises(ValueError, match="call reset"):
        segmenter.step(torch.zeros(3, 30, 60))


def test_empty_clicks_and_boxes_are_errors() -> None:
    with pytest.raises(ValueError, match="expected"):
        Clicks(torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(ValueError, match="is empty"):
        Box(5, 0, 5, 9)
