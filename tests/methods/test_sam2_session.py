"""Sessions over stored videos: beside the official predictor, and what must hold for any weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.methods.sam2_models import FOLDER, moving_rectangles, official_sam2, tiny_sam2
from vosssl.clip import Clip
from vosssl.data.video import clip_video
from vosssl.methods.sam2.network import NO_OBJECT
from vosssl.methods.sam2.session import FrameMasks, SAM2Session
from vosssl.propagation.segmenter import Box, Clicks

LIMITS = 5e-3, 3e-4  # largest and mean difference of logits: memories are bfloat16, whose rounding flips


@cache
def goldens() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "videos.npz") as stored:
        return {name: stored[name] for name in stored.files}


def click(x: float, y: float, *, positive: bool = True) -> Clicks:
    """One click, in pixels counted from their centres, as officially."""
    return Clicks(torch.tensor([[x + 0.5, y + 0.5]]), torch.tensor([positive]))


def rectangle(size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def assert_recorded(results: list[FrameMasks], name: str) -> None:
    assert [result.frame for result in results] == goldens()[f"{name}/frames"].tolist()
    assert list(results[-1].ids) == goldens()[f"{name}/obj_ids"].tolist()
    wanted = torch.from_numpy(goldens()[f"{name}/masks"])
    logits = torch.stack([result.logits[:, ::4, ::4] for result in results])
    unknown = wanted == NO_OBJECT
    assert torch.equal(logits == NO_OBJECT, unknown), f"other objects of {name} are not known"
    gap = (logits - wanted).abs()[~unknown]
    assert gap.max() <= LIMITS[0], f"{name} differs by up to {gap.max():.1e}"
    assert gap.mean() <= LIMITS[1], f"{name} differs by {gap.mean():.1e} on average"


def tiny_session(frames: int = 6, **options: Any) -> SAM2Session:
    video = moving_rectangles(frames, 48, 64, 11)
    return SAM2Session(tiny_sam2(), video, **{"image_size": 64, **options})


def followed(session: SAM2Session, **options: Any) -> dict[int, Tensor]:
    return {masks.frame: masks.logits for masks in session.propagate(**options)}


def test_clicks_boxes_and_corrections_are_followed_as_officially() -> None:
    session = SAM2Session(official_sam2(), moving_rectangles(6, 96, 128, 11), image_size=256, kept_images=6)
    assert_recorded([session.add_prompt(0, 1, clicks=click(40, 30))], "clicks_256/a0")
    assert_recorded([session.add_prompt(0, 7, box=Box(70, 20, 110, 70))], "clicks_256/a1")
    assert_recorded(list(session.propagate()), "clicks_256/a2")
    assert_recorded([session.add_prompt(3, 1, clicks=click(90, 60, positive=False))], "clicks_256/a3")
    assert_recorded([session.add_prompt(3, 1, clicks=click(35, 40), keep=True)], "clicks_256/a4")
    assert_recorded(list(session.propagate(4, reverse=True)), "clicks_256/a6")


def test_masks_are_followed_in_both_directions_as_officially() -> None:
    session = SAM2Session(official_sam2(), moving_rectangles(6, 90, 160, 12), image_size=256, kept_images=6)
    size = (90, 160)
    assert_recorded([session.add_prompt(2, 3, mask=rectangle(size, 10, 20, 50, 70))], "masks_256/a0")
    assert_recorded([session.add_prompt(2, 4, mask=rectangle(size, 40, 60, 85, 140))], "masks_256/a1")
    assert_recorded(list(session.propagate()), "masks_256/a2")
    assert_recorded(list(session.propagate(reverse=True)), "masks_256/a3")
    assert_recorded([session.add_prompt(4, 3, mask=rectangle(size, 0, 0, 0, 0))], "masks_256/a4")
    assert_recorded(list(session.propagate(3, max_frames=2)), "masks_256/a5")


def test_objects_do_not_influence_each_other() -> None:
    both, alone = tiny_session(), tiny_session()
    both.add_prompt(0, 1, clicks=click(10, 10))
    both.add_prompt(2, 5, box=Box(20, 5, 50, 40))
    alone.add_prompt(2, 5, box=Box(20, 5, 50, 40))
    together, apart = followed(both, start=0), followed(alone, start=0)
    for frame, logits in apart.items():
        assert torch.allclose(together[frame][1:], logits, atol=1e-2)


def test_backwards_is_forwards_in_a_video_that_is_turned_round() -> None:
    video = moving_rectangles(5, 48, 64, 11)
    forward = SAM2Session(tiny_sam2(), video, image_size=64)
    backward = SAM2Session(tiny_sam2(), video.flip(0), image_size=64)
    forward.add_prompt(0, 1, clicks=click(10, 10))
    backward.add_prompt(4, 1, clicks=click(10, 10))
    there, back = followed(forward), followed(backward, reverse=True)
    assert len(there) == len(back) == 5
    for frame, logits in there.items():
        assert torch.allclose(logits, back[4 - frame], atol=1e-2)


def test_a_stored_video_is_read_frame_by_frame() -> None:
    frames = moving_rectangles(4, 48, 64, 11)
    video = clip_video(Clip("moving", frames))
    from_video = SAM2Session(tiny_sam2(), video, image_size=64)
    from_tensor = SAM2Session(tiny_sam2(), frames, image_size=64)
    for session in (from_video, from_tensor):
        session.add_prompt(1, 1, box=Box(5, 5, 30, 30))
    for first, second in zip(from_video.propagate(), from_tensor.propagate(), strict=True):
        assert torch.equal(first.logits, second.logits)


def test_without_overlap_a_pixel_belongs_to_one_object() -> None:
    session = tiny_session(2, non_overlapping=True)
    session.add_prompt(0, 1, mask=torch.ones(48, 64))
    session.add_prompt(0, 2, mask=torch.ones(48, 64))
    for masks in session.propagate():
        assert ((masks.logits > 0).sum(dim=0) <= 1).all()


def test_a_removed_object_is_gone_and_the_others_stay() -> None:
    session = tiny_session()
    session.add_prompt(0, 1, clicks=click(10, 10))
    session.add_prompt(0, 2, clicks=click(30, 10))
    before = followed(session)
    left = session.remove_object(1)
    assert session.ids == (2,) and [masks.frame for masks in left] == [0]
    after = followed(session)
    for frame, logits in after.items():
        assert torch.allclose(logits, before[frame][1:], atol=1e-2)
    assert session.remove_object(2) == []


def test_wrong_prompts_are_refused_and_the_session_goes_on() -> None:
    session = tiny_session()
    with pytest.raises(ValueError, match="no object to follow"):
        next(session.propagate())
    for fault, prompt in {
        "there is no prompt": {},
        "not all inside": {"clicks": click(64, 10)},
        "lies outside": {"box": Box(70, 5, 90, 20)},
        "mask is": {"mask": torch.zeros(10, 10)},
        "give the mask alone": {"mask": torch.zeros(48, 64), "box": Box(1, 1, 5, 5)},
    }.items():
        with pytest.raises(ValueError, match=fault):
            session.add_prompt(0, 1, **prompt)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"frames 0\.\.5"):
        session.add_prompt(6, 1, clicks=click(5, 5))
    with pytest.raises(ValueError, match="no object 9"):
        session.remove_object(9)
    assert session.ids == ()
    session.add_prompt(0, 1, clicks=click(10, 10))
    assert len(followed(session)) == 6
    session.clear_prompts(0, 1)
    with pytest.raises(ValueError, match="no prompt left"):
        next(session.propagate())


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        tiny_session(image_size=100)
    with pytest.raises(ValueError, match="at least 1"):
        tiny_session(stride=0)
    with pytest.raises(ValueError, match="no frames"):
        SAM2Session(tiny_sam2(), torch.zeros(0, 3, 8, 8))
