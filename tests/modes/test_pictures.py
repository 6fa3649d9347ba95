"""What is looked at while slots train: collapse, and slots over time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vosssl.clip import Clip
from vosssl.data.video import clip_video
from vosssl.layers.slot_network import SlotTrace
from vosssl.modes.build import create_model, create_segmenter
from vosssl.modes.pictures import CollapseMonitor, finds_slots, slots_over_time, watched


def trace(*, collapsed: bool) -> SlotTrace:
    """Four slots of one clip of two frames: one each for a quarter of 16 patches, or one for them all."""
    masks = torch.zeros(1, 2, 4, 4, 4)  # (B, T, K, h, w)
    for slot in range(4):
        masks[:, :, 0 if collapsed else slot, slot] = 1
    slots = torch.eye(4).expand(1, 2, 4, 4)  # (B, T, K, D)
    empty = torch.zeros(1, 2, 16, 1)
    return SlotTrace(slots.clone(), masks, empty, empty, masks)


@pytest.mark.parametrize("collapsed", [False, True])
def test_an_alarm_is_raised_when_one_slot_takes_all(collapsed: bool) -> None:
    objective = SimpleNamespace(trace=lambda network, batch: trace(collapsed=collapsed))
    values = CollapseMonitor(objective)(torch.nn.Identity(), None, 0)
    assert any(name.startswith("collapse/") for name in values)
    assert any(name.startswith("alarm/") for name in values) == collapsed


def test_only_slot_networks_are_watched() -> None:
    assert finds_slots(create_model("slots-synthetic"))
    assert not finds_slots(create_model("motion-features"))


def test_a_watched_clip_keeps_frames_masks_and_where_truth_is_known() -> None:
    frames = torch.randint(256, (4, 3, 32, 48), dtype=torch.uint8)
    labels = torch.ones(4, 32, 48, dtype=torch.uint8)
    labelled = torch.tensor([True, False, True, True])
    video = clip_video(Clip("a", frames, labels=labels, labelled=labelled))
    segmenter = create_segmenter("slots-synthetic", device="cpu", num_slots=3, size=32)
    clip = watched(segmenter, video, frames=3)
    assert torch.equal(clip.frames, frames[:3])
    assert clip.labelled is not None and clip.labelled.tolist() == [True, False, True]
    assert clip.truth is not None and clip.truth[1].max() == 0
    assert clip.masks is not None and clip.masks.shape[:2] == (3, 3)
    torch.testing.assert_close(clip.masks.sum(dim=1), torch.ones(3, *clip.masks.shape[2:]))
    assert watched(segmenter, clip_video(Clip("b", frames))).truth is None


def test_slots_over_time_are_one_picture() -> None:
    video = clip_video(Clip("a", torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)))
    picture = slots_over_time(create_segmenter("slots-synthetic", device="cpu", num_slots=3), video, frames=2)
    assert picture.dtype == torch.uint8 and picture.shape[0] == 3
