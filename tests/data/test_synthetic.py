"""The generator: exact flow, exact repetition, disjoint splits."""

from __future__ import annotations

import pytest
import torch

from vosssl.data.sampling import Draw
from vosssl.data.synthetic import SyntheticClips


def test_clips_have_the_promised_shapes_and_objects() -> None:
    clips = SyntheticClips(size=(24, 40), frames=4, objects=(3, 8), count=64).__getitems__(list(range(64)))
    assert clips[0].frames.shape == (4, 3, 24, 40)
    assert clips[0].flow is not None
    assert clips[0].flow.shape == (4, 2, 24, 40)
    highest = [int(clip.labels.max()) for clip in clips if clip.labels is not None]
    assert max(highest) == 8
    assert all(highest)


def test_the_number_of_objects_covers_its_range() -> None:
    for wanted in (1, 5):
        clips = SyntheticClips(size=32, frames=1, objects=(wanted, wanted), count=32)
        ids = {int(value) for clip in clips.clips() for value in clip.labels.unique()}  # type: ignore[union-attr]
        assert ids == set(range(wanted + 1))


def test_a_clip_is_the_same_alone_and_in_a_batch() -> None:
    clips = SyntheticClips(size=40, frames=3, count=100)
    draws = [Draw(index, 7) for index in (3, 99, 0, 41, 5, 6, 7, 8, 9, 10, 11)]
    together = clips.__getitems__(draws)
    for draw, clip in zip(draws, together, strict=True):
        alone = SyntheticClips(size=40, frames=3, count=100)[draw]
        assert torch.equal(alone.frames, clip.frames)
        assert torch.equal(alone.labels, clip.labels)  # type: ignore[arg-type]
        assert torch.equal(alone.flow, clip.flow)  # type: ignore[arg-type]
        assert alone.name == clip.name


def test_seed_index_and_draw_seed_all_change_the_clip() -> None:
    clips = SyntheticClips(size=16, frames=1, count=10)
    first = clips[Draw(0, 0)].frames
    others = [clips[Draw(1, 0)], clips[Draw(0, 1)], SyntheticClips(size=16, frames=1, count=10, seed=1)[0]]
    assert not any(torch.equal(first, other.frames) for other in others)


def test_training_and_held_out_keys_never_meet() -> None:
    draws = [Draw(index, seed) for index in range(50) for seed in range(20)]
    train = torch.cat([SyntheticClips(count=50, split="train", seed=seed).keys(draws) for seed in range(5)])
    held_out = torch.cat([SyntheticClips(count=50, split="val", seed=seed).keys(draws) for seed in range(5)])
    assert not set(train.tolist()) & set(held_out.tolist())
    assert (train % 2 == 0).all()  # by construction, whatever the seeds
    assert (held_out % 2 == 1).all()
    assert len(set(train.tolist())) == len(train)


def test_flow_carries_every_pixel_to_the_same_object() -> None:
    clips = SyntheticClips(size=64, frames=5, count=24)
    hits, total = 0, 0
    for clip in clips.clips():
        assert clip.labels is not None
        assert clip.flow is not None
        hits += _landed(clip.labels, clip.flow)
        total += _landed(clip.labels, clip.flow, count=True)
    # the rest is occluded in the next frame, or lies within a pixel of an edge
    assert hits / total > 0.93


def _landed(labels: torch.Tensor, flow: torch.Tensor, *, count: bool = False) -> int:
    """How many object pixels arrive on their own object (with `count`: arrive inside the picture)."""
    length, height, width = labels.shape
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    total = 0
    for time in range(length - 1):
        x = (column + flow[time, 0]).round().long()
        y = (row + flow[time, 1]).round().long()
        seen = (labels[time] > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        arrived = labels[time + 1][y.clamp(0, height - 1), x.clamp(0, width - 1)] == labels[time]
        total += int(seen.sum() if count else (seen & arrived).sum())
    return total


def test_flow_carries_the_picture_along() -> None:
    clips = SyntheticClips(size=64, frames=2, objects=(1, 1), count=16)
    errors = []
    for clip in clips.clips():
        assert clip.flow is not None
        grid = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy"), -1) + clip.flow[
            0
        ].permute(1, 2, 0)
        moved = torch.nn.functional.grid_sample(
            clip.frames[1:].float(), grid[None] * (2 / 63) - 1, align_corners=True, padding_mode="border"
        )
        inside = ((grid > 0) & (grid < 63)).all(-1)
        errors.append((moved[0] - clip.frames[0]).abs().mean(0)[inside].median())
    assert torch.stack(errors).max() < 6  # of 255: what resampling costs


def test_flow_can_be_left_out() -> None:
    assert SyntheticClips(size=16, frames=2, count=1, flow=False)[0].flow is None


def test_videos_are_the_clips() -> None:
    clips = SyntheticClips(size=16, frames=3, count=2, split="val")
    videos = list(clips.videos())
    assert len(videos) == 2
    frames = list(videos[1])
    assert torch.equal(torch.stack([frame.image for frame in frames]), clips[1].frames)


def test_impossible_requests_are_refused() -> None:
    for options in ({"size": 4}, {"frames": 0}, {"objects": (5, 3)}, {"split": "test"}):
        with pytest.raises(ValueError, match="expected"):
            SyntheticClips(**options)  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="clip 3 of 3"):
        SyntheticClips(count=3)[3]


def test_objects_may_look_alike_and_nothing_else_changes() -> None:
    usual = SyntheticClips(count=2, frames=2, objects=(3, 3))[1]
    alike = SyntheticClips(count=2, frames=2, objects=(3, 3), alike=True)[1]
    assert usual.labels is not None and alike.labels is not None
    ground = (usual.labels == 0) & (alike.labels == 0)
    # a pixel of the ground may blend with an object's edge
    same = (usual.frames == alike.frames).all(dim=1)[ground].float().mean()
    assert same > 0.9
    means = [
        alike.frames[0].float().permute(1, 2, 0)[alike.labels[0] == number].mean(0) for number in (1, 2, 3)
    ]
    spread = torch.stack(means).std(dim=0).max()
    assert spread < 40, "colours of one palette"
