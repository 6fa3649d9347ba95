"""Sessions that have little memory, and people who say wrong things: results stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.sam2_models import moving_rectangles, tiny_sam2
from tests.methods.test_sam2_session import click, followed, tiny_session
from vosssl.clip import Clip, Frame
from vosssl.data.sources import ClipVideo, Video
from vosssl.methods.sam2.session import SAM2Session
from vosssl.ops.regions import fill_holes
from vosssl.ops.resize import Size
from vosssl.propagation.segmenter import Box

LITTLE: dict[str, Any] = {"kept_images": 1, "memory_budget_mb": 0.15}


class BrokenVideo(Video):
    """The frames of another video until one that cannot be decoded."""

    def __init__(self, frames: Tensor, broken: int) -> None:
        super().__init__("broken")
        self.whole, self.broken = ClipVideo(Clip("broken", frames)), broken

    @property
    def native_size(self) -> Size:
        return self.whole.native_size

    def __len__(self) -> int:
        return len(self.whole)

    def _decode(self, indices: Any, size: Size) -> Iterator[Frame]:
        for index in range(len(self)) if indices is None else indices:
            if index == self.broken:
                raise ValueError(f"frame {index} of video {self.name} cannot be decoded")
            yield from self.whole._decode([index], size)


def test_memory_does_not_grow_with_the_video() -> None:
    video = moving_rectangles(220, 32, 32, 11)
    session = SAM2Session(tiny_sam2(), video, image_size=64, kept_images=1, memory_budget_mb=0.05)
    session.add_prompt(0, 1, box=Box(5, 5, 20, 20))
    sizes = [session.memory_mb() for _ in session.propagate()]
    assert max(sizes) <= 0.05
    assert max(sizes[200:]) <= max(sizes[:100])
    assert len(session._tracks[1].tracked) == 219  # nothing is lost


def test_with_little_memory_everything_is_as_with_much() -> None:
    results = []
    for options in ({"memory_budget_mb": None, "kept_images": 12}, LITTLE):
        session = tiny_session(12, **options)
        session.add_prompt(4, 1, clicks=click(10, 10))
        session.add_prompt(6, 2, box=Box(20, 5, 50, 40))
        shown = [*session.propagate(), *session.propagate(6, reverse=True)]
        shown += [session.add_prompt(9, 1, clicks=click(30, 30, positive=False))]
        shown += [*session.propagate(8), session.clear_prompts(4, 1), *session.remove_object(2)]
        results.append(shown)
    assert len(results[0]) == len(results[1])
    for much, little in zip(*results, strict=True):
        assert much.frame == little.frame and torch.equal(much.logits, little.logits)


def test_objects_can_go_through_the_network_in_parts() -> None:
    sessions = tiny_session(4), tiny_session(4, object_chunk=2)
    for session in sessions:
        for identity in range(5):
            session.add_prompt(0, identity, box=Box(identity, 5, 20 + 5 * identity, 40))
    together, apart = (followed(session) for session in sessions)
    for frame, logits in together.items():
        assert torch.allclose(apart[frame], logits, atol=1e-2)


def test_a_budget_that_holds_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match=r"memory_budget_mb is 0\.01, but 2 encoded frames"):
        tiny_session(memory_budget_mb=0.01)


def test_objects_may_come_after_tracking_started() -> None:
    session = tiny_session()
    session.add_prompt(0, 1, clicks=click(10, 10))
    before = followed(session)
    added = session.add_prompt(3, 2, box=Box(20, 5, 50, 40))
    assert added.ids == (1, 2) and torch.equal(added.logits[0], before[3][0])
    after = followed(session)
    for frame, logits in after.items():
        assert logits.shape[0] == 2 and torch.allclose(logits[0], before[frame][0], atol=1e-2)


def test_corrections_of_earlier_frames_count_where_they_are_asked_to() -> None:
    session = tiny_session(corrections_condition=True)
    session.add_prompt(0, 1, clicks=click(10, 10))
    followed(session)
    corrected = session.add_prompt(2, 1, box=Box(20, 5, 50, 40))
    assert torch.equal(followed(session)[2], corrected.logits)


def test_small_holes_of_masks_are_filled() -> None:
    logits = torch.full((1, 6, 6), 5.0)
    logits[0, 1, 1] = logits[0, 2, 2] = -3.0  # touch at a corner: one hole of two
    logits[0, 4:, 3:] = -2.0  # six
    filled = fill_holes(logits, 2)
    assert filled[0, 1, 1] == filled[0, 2, 2] == pytest.approx(0.1)
    assert torch.equal(filled[0, 4:, 3:], logits[0, 4:, 3:])
    assert fill_holes(logits, 0) is logits and torch.equal(fill_holes(logits, 1), logits)
    session = tiny_session(2, fill_hole_area=4000)
    mask = torch.ones(48, 64)
    mask[20:30, 20:30] = 0
    assert (session.add_prompt(0, 1, mask=mask).logits > 0).all()


@pytest.mark.parametrize(
    ("fault", "prompt"),
    {
        "there is no prompt": {},
        "not all inside": {"clicks": click(64, 10)},
        "lies outside": {"box": Box(70, 5, 90, 20)},
        "mask of object 7 is empty": {"mask": torch.zeros(48, 64)},
        "expected \\(48, 64\\)": {"mask": torch.zeros(10, 10)},
        "video has frames 0..5": {"frame": 6, "clicks": click(5, 5)},
    }.items(),
)
def test_after_a_wrong_prompt_everything_is_as_if_it_had_not_come(fault: str, prompt: dict[str, Any]) -> None:
    disturbed, calm = tiny_session(), tiny_session()
    for session in (disturbed, calm):
        session.add_prompt(0, 1, clicks=click(10, 10))
    with pytest.raises(ValueError, match=fault):
        disturbed.add_prompt(**{"frame": 3, "identity": 7, **prompt})
    assert disturbed.ids == (1,)
    for first, second in zip(disturbed.propagate(), calm.propagate(), strict=True):
        assert torch.equal(first.logits, second.logits)


def test_boxes_without_an_area_and_unknown_objects_are_named() -> None:
    session = tiny_session()
    session.add_prompt(0, 1, clicks=click(10, 10))
    with pytest.raises(ValueError, match="is empty; expected left < right"):
        session.add_prompt(0, 1, box=Box(5, 5, 5, 9))
    for call in (session.remove_object, lambda identity: session.clear_prompts(0, identity)):
        with pytest.raises(ValueError, match="there is no object 9; there are: 1"):
            call(9)


def test_a_video_that_breaks_in_the_middle_can_be_followed_up_to_there() -> None:
    frames = moving_rectangles(6, 48, 64, 11)
    broken = SAM2Session(tiny_sam2(), BrokenVideo(frames, 3), image_size=64)
    whole = SAM2Session(tiny_sam2(), frames, image_size=64)
    for session in (broken, whole):
        session.add_prompt(0, 1, clicks=click(10, 10))
    with pytest.raises(ValueError, match="frame 3 of video broken cannot be decoded"):
        list(broken.propagate())
    with pytest.raises(ValueError, match="frame 3"):
        broken.add_prompt(3, 1, clicks=click(10, 10))
    again = [*broken.propagate(max_frames=2), broken.add_prompt(4, 2, box=Box(5, 5, 30, 30))]
    expected = [*whole.propagate(max_frames=2), whole.add_prompt(4, 2, box=Box(5, 5, 30, 30))]
    for first, second in zip(again, expected, strict=True):
        assert torch.equal(first.logits, second.logits)


def test_half_precision_follows_nearly_the_same_masks() -> None:
    exact, rounded = tiny_session(3), tiny_session(3, precision="bf16")
    for session in (exact, rounded):
        session.add_prompt(0, 1, box=Box(5, 5, 40, 30))
    first, second = followed(exact), followed(rounded)
    for frame, logits in first.items():
        assert ((logits > 0) == (second[frame] > 0)).float().mean() > 0.9
    assert rounded.memory_mb() < exact.memory_mb()
    with pytest.raises(ValueError, match="precision is 'fp8'"):
        tiny_session(precision="fp8")
