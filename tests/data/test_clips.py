"""Clips carry features through collation; videos are drawn from without favouring a place."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vosssl.clip import Clip, collate
from vosssl.data.clips import VideoClips
from vosssl.data.sampling import Draw
from vosssl.data.video import clip_video


def numbered(length: int, *, name: str = "made") -> Clip:
    frames = torch.arange(length, dtype=torch.uint8)[:, None, None, None].expand(length, 3, 4, 4)
    return Clip(name, frames)


def test_features_are_stacked_when_every_clip_has_them() -> None:
    with_features = replace(numbered(2), features={"vit": torch.ones(2, 5), "keys": torch.ones(2, 1)})
    without_keys = replace(numbered(2), features={"vit": torch.zeros(2, 5)})
    batch = collate([with_features, without_keys])
    assert list(batch.features) == ["vit"]
    assert batch.features["vit"].shape == (2, 2, 5)
    with pytest.raises(ValueError, match=r"features vit of clip made are \(3, 5\), expected \(2, \.\.\.\)"):
        replace(numbered(2), features={"vit": torch.ones(3, 5)})


def test_a_single_frame_may_be_any() -> None:
    dataset = VideoClips([clip_video(numbered(3))], num_frames=1, stride=(2, 5))
    assert {int(dataset[Draw(0, seed)].frames[0, 0, 0, 0]) for seed in range(40)} == {0, 1, 2}


def test_without_a_length_clips_are_whole_videos() -> None:
    dataset = VideoClips([clip_video(numbered(3)), clip_video(numbered(5))])
    assert [len(clip) for clip in dataset] == [3, 5]


def test_every_start_is_as_likely_as_any_other() -> None:
    dataset = VideoClips([clip_video(numbered(8))], num_frames=3)
    starts = torch.tensor([int(dataset[Draw(0, seed)].frames[0, 0, 0, 0]) for seed in range(600)])
    counts = starts.bincount(minlength=6)
    assert counts.shape == (6,)
    assert (counts - 100).abs().max() < 40  # four standard deviations


def test_an_index_outside_is_refused() -> None:
    dataset = VideoClips([clip_video(numbered(3))], clips_per_video=2)
    assert len(dataset) == 2
    with pytest.raises(IndexError):
        dataset[2]


def test_numbers_of_objects_are_collated_when_every_clip_has_one() -> None:
    batch = collate([replace(numbered(2), num_objects=1), replace(numbered(2), num_objects=3)])
    assert batch.num_objects is not None
    assert batch.num_objects.tolist() == [1, 3]
    assert batch.to("cpu").num_objects is not None
    assert collate([numbered(2), replace(numbered(2), num_objects=3)]).num_objects is None
