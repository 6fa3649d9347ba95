"""Two views of a clip, and pairs of frames at a random gap."""

from __future__ import annotations

import pytest
import torch

from vosssl.clip import Clip
from vosssl.data.clips import VideoClips
from vosssl.data.pairs import TwoViews, crw_crops
from vosssl.data.sampling import Draw
from vosssl.data.transforms import CenterCrop, RandomCrop
from vosssl.data.video import clip_video


def numbered(length: int = 12, *, size: tuple[int, int] = (8, 10)) -> Clip:
    frames = torch.arange(length, dtype=torch.uint8)[:, None, None, None] * 10
    ramp = torch.arange(size[0] * size[1], dtype=torch.uint8).view(size) // 10
    return Clip("made", frames + ramp.expand(length, 3, *size), ramp.expand(length, *size))


def test_two_views_show_the_same_frames_changed_in_two_ways() -> None:
    dataset = VideoClips(
        [clip_video(numbered())],
        num_frames=2,
        stride=(1, 4),
        transform=TwoViews(CenterCrop(4), RandomCrop(4)),
    )
    gaps = set()
    for seed in range(40):
        clip = dataset[Draw(0, seed)]
        assert clip.frames.shape == (4, 3, 4, 4)
        assert clip.labels is not None
        assert clip.labels.shape == (4, 4, 4)
        numbers = [int(name) for name in clip.frame_names]
        assert numbers[:2] == numbers[2:]
        gaps.add(numbers[1] - numbers[0])
        shown = (clip.frames[:, 0] - 10 * torch.tensor(numbers).byte().view(4, 1, 1)) == clip.labels
        assert bool(shown.all())  # labels went where the frames went
    assert gaps == {1, 2, 3, 4}


def test_views_of_different_size_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        TwoViews(CenterCrop(4), CenterCrop(6))(numbered(), torch.Generator())


def test_crops_of_crw_differ_between_frames() -> None:
    still = Clip("still", numbered(1, size=(40, 60)).frames.expand(3, -1, -1, -1))
    clip = crw_crops(16)(still, torch.Generator().manual_seed(0))
    assert clip.frames.shape == (3, 3, 16, 16)
    assert not torch.equal(clip.frames[0], clip.frames[1])
