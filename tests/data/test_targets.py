"""Targets of clips that exist only as they are drawn."""

from __future__ import annotations

import pytest
import torch

from vosssl.clip import Clip
from vosssl.data.sampling import Draw
from vosssl.data.synthetic import SyntheticClips
from vosssl.data.targets import TargetClips


class Numbered:
    """Clips whose frames show their own number; object 7 is in even frames, 9 everywhere."""

    def __init__(self, frames: int = 6, *, empty: bool = False, labels: bool = True) -> None:
        self.frames, self.empty, self.labels = frames, empty, labels

    def __len__(self) -> int:
        return 5

    def __getitem__(self, draw: Draw | int) -> Clip:
        times = torch.arange(self.frames, dtype=torch.uint8)
        labels = torch.zeros(self.frames, 4, 4, dtype=torch.uint8)
        if not self.empty:
            labels[::2, 0], labels[:, 1] = 7, 9
        return Clip(
            name="numbered",
            frames=times[:, None, None, None].expand(-1, 3, 4, 4).contiguous(),
            labels=labels if self.labels else None,
        )


def numbers(clip: Clip) -> list[int]:
    return clip.frames[:, 0, 0, 0].tolist()


def test_frames_lie_no_further_apart_than_allowed_and_run_both_ways() -> None:
    clips = [TargetClips(Numbered(), num_frames=3, max_jump=2)[Draw(0, seed)] for seed in range(60)]
    steps = {b - a for clip in clips for a, b in zip(numbers(clip), numbers(clip)[1:], strict=False)}
    assert steps == {-2, -1, 1, 2}
    assert {numbers(clip)[0] for clip in clips} == set(range(6))
    forward = TargetClips(Numbered(), num_frames=3, max_jump=2, reverse=False)
    assert all(
        numbers(forward[Draw(0, seed)]) == sorted(numbers(forward[Draw(0, seed)])) for seed in range(20)
    )


def test_the_largest_distance_follows_the_steps_of_training() -> None:
    clips = TargetClips(Numbered(), num_frames=2, max_jump=[[0, 1], [10, 5]])
    assert max(abs(a - b) for a, b in (numbers(clips[Draw(0, seed, 9)]) for seed in range(40))) == 1
    assert max(abs(a - b) for a, b in (numbers(clips[Draw(0, seed, 10)]) for seed in range(40))) > 1


def test_only_objects_of_the_first_frame_are_targets_from_1_on() -> None:
    clips = TargetClips(Numbered(), num_frames=3, max_objects=2)
    for seed in range(20):
        clip = clips[Draw(1, seed)]
        assert clip.labels is not None and clip.num_objects == (2 if numbers(clip)[0] % 2 == 0 else 1)
        assert set(clip.labels[0].unique().tolist()) == set(range(clip.num_objects + 1))
    chosen = [TargetClips(Numbered(), num_frames=1, max_objects=1)[Draw(0, seed)] for seed in range(30)]
    assert all(clip.num_objects == 1 for clip in chosen)
    rows = {
        row
        for clip in chosen
        if clip.labels is not None
        for row in clip.labels[0, :, 0].nonzero().flatten().tolist()
    }
    assert rows == {0, 1}  # either object, never both


def test_a_clip_depends_on_its_draw_and_not_on_those_beside_it() -> None:
    clips = TargetClips(SyntheticClips(size=16, frames=4, flow=False), num_frames=3)
    draws = [Draw(index, 5) for index in range(6)]
    together = clips.__getitems__(draws)
    for draw, clip in zip(draws, together, strict=True):
        alone = clips[draw]
        assert torch.equal(alone.frames, clip.frames) and alone.num_objects == clip.num_objects
        assert alone.labels is not None and clip.labels is not None and torch.equal(alone.labels, clip.labels)


def test_whole_clips_keep_their_frames() -> None:
    assert numbers(TargetClips(Numbered(), num_frames=None)[2]) == list(range(6))


def test_clips_without_targets_labels_or_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="show no target"):
        TargetClips(Numbered(empty=True))[0]
    with pytest.raises(ValueError, match="has no labels"):
        TargetClips(Numbered(labels=False))[0]
    with pytest.raises(ValueError, match="has 2 frames, expected at least 3"):
        TargetClips(Numbered(2))[0]
    with pytest.raises(ValueError, match="1 or more"):
        TargetClips(Numbered(), max_objects=0)


def test_another_setting_is_another_dataset() -> None:
    inner = SyntheticClips(size=16, frames=4, flow=False, count=20)
    assert TargetClips(inner).fingerprint() == TargetClips(inner).fingerprint()
    assert TargetClips(inner).fingerprint() != TargetClips(inner, max_objects=3).fingerprint()
