"""Offline discovery: one id per object over stretches, both ways alike, memory that does not grow."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.clip import Clip, Frame
from vosssl.data.video import Video, clip_video
from vosssl.ops.resize import Size
from vosssl.propagation.discover_and_track import (
    Anchor,
    DiscoverAndTrack,
    discover_and_track,
)
from vosssl.propagation.label_propagation import Attend, LabelPropagation, channel_map

SIDES = (32, 48)
COLOURS = torch.tensor([[0.1, 0.1, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


class Pixels(nn.Module):
    """Features are colours of 2 x 2 patches and a constant."""

    def forward(self, images: Tensor) -> Tensor:
        means = F.avg_pool2d(images, 2)
        return torch.cat([means, torch.full_like(means[:, :1], 0.2)], dim=1)


class ColourTracker:
    """Finds the surfaces of the colours above; in some frames it is surer, and slots may change places.

    Args:
        sure: numbers of frames (written in the top left pixel) in which it is surer.
        order: from which frame on slots have which order.
        blind: (frame, colour) pairs that it takes for the ground.
    """

    needs_prompt = False
    num_slots = 4
    size: int | Size | None = None

    def __init__(self, *, sure: Iterable[int] = (), order: Any = None, blind: Any = ()) -> None:
        self.sure, self.order, self.blind = set(sure), order or {}, set(blind)

    def reset(self) -> None:
        """Nothing is remembered."""

    def step(self, frame: Tensor) -> None:
        number = int(frame[0, 0, 0])
        distance = (frame.float()[None] / 255 - COLOURS[:, :, None, None]).square().sum(1)  # (4, H, W)
        seen = distance.argmin(0)
        seen[0, 0] = 0
        for when, colour in self.blind:
            if when == number:
                seen[seen == colour] = 0
        share = 0.97 if number in self.sure else 0.8
        masks = F.one_hot(seen, 4).permute(2, 0, 1).float() * (share - 0.05) + (1 - share) / 4
        past = [start for start in self.order if start <= number]
        self.masks = masks if not past else masks[self.order[max(past)]]


def moving(frames: int, *, present: Any = None) -> Clip:
    """Three squares that move right, down and left; frame numbers are in the top left pixel.

    Args:
        frames: T.
        present: colour -> range of frames where it is seen; others always.
    """
    images = torch.full((frames, 3, *SIDES), 26, dtype=torch.uint8)
    labels = torch.zeros(frames, *SIDES, dtype=torch.uint8)
    for time in range(frames):
        shift = time % 12
        for colour, (top, left) in {1: (4, 4 + shift), 2: (6 + shift, 36), 3: (22, 16 - shift)}.items():
            if time in (present or {}).get(colour, range(frames)):
                images[time, :, top : top + 6, left : left + 6] = (COLOURS[colour] * 255).byte()[
                    :, None, None
                ]
                labels[time, top : top + 6, left : left + 6] = colour
        images[time, 0, 0, 0] = time
    return Clip("moving", images, labels, frame_names=tuple(f"{time:05d}" for time in range(frames)))


def method(tracker: ColourTracker, **options: Any) -> DiscoverAndTrack:
    propagation = LabelPropagation(
        Pixels(), feature_map=channel_map, attend=Attend(radius=4), size=None, multiple=2, mean=None
    )
    return DiscoverAndTrack(tracker, propagation, **{"spacing": 4, **options})  # type: ignore[arg-type]


def labelled(segmenter: DiscoverAndTrack, clip: Clip) -> Tensor:
    """(T, H, W) labels."""
    return torch.stack([labels for _, labels in segmenter(clip_video(clip))])


def ids_by_colour(labels: Tensor, truth: Tensor) -> dict[int, set[int]]:
    """Which id most of each true object's pixels have, over the frames that show it."""
    return {
        colour: {
            int(labels[time][truth[time] == colour].mode().values)
            for time in range(len(truth))
            if bool((truth[time] == colour).any())
        }
        for colour in (1, 2, 3)
    }


def test_an_object_found_in_many_stretches_is_one_though_slots_change_places() -> None:
    clip = moving(12)
    tracker = ColourTracker(order={0: [0, 1, 2, 3], 4: [3, 0, 1, 2], 8: [2, 1, 3, 0]})
    assert clip.labels is not None
    labels = labelled(method(tracker), clip)
    found = ids_by_colour(labels, clip.labels)
    assert all(len(ids) == 1 for ids in found.values()) and len(set.union(*found.values())) == 3
    assert set(labels.unique().tolist()) == {0, 1, 2, 3}
    assert ((labels > 0) == (clip.labels > 0)).float().mean() > 0.97


def test_an_object_missed_for_a_while_keeps_its_id_before_and_after() -> None:
    clip = moving(12)
    assert clip.labels is not None
    blind = {(time, colour) for time in range(4, 8) for colour in (1,)}
    blind |= {(time, 2) for time in range(8)}
    found = ids_by_colour(labelled(method(ColourTracker(blind=blind)), clip), clip.labels)
    assert all(len(ids) == 1 for ids in found.values()) and 0 not in set.union(*found.values())


def test_an_object_that_comes_late_gets_an_id_of_its_own_from_where_it_shows() -> None:
    clip = moving(12, present={3: range(6, 12)})
    labels = labelled(method(ColourTracker()), clip)
    assert clip.labels is not None
    found = ids_by_colour(labels, clip.labels)
    assert len(found[3]) == 1 and not found[3] & (found[1] | found[2]) and found[3] != {0}
    (identity,) = found[3]
    assert not bool((labels[:6] == identity).any())


def test_backward_is_forward_on_the_reversed_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = moving(9)
    assert clip.labels is not None
    segmenter = method(ColourTracker(), spacing=9)
    anchor = Anchor(4, clip.labels[4, ::2, ::2])  # the middle: the same frame from both ends
    monkeypatch.setattr(segmenter, "anchors", lambda video, length: [anchor])
    labels = labelled(segmenter, clip)
    assert torch.equal(labelled(segmenter, Clip("backwards", clip.frames.flip(0))).flip(0), labels)
    assert set(labels[0].unique().tolist()) == set(labels[8].unique().tolist()) == {0, 1, 2, 3}


def test_the_anchor_is_the_frame_that_slots_are_surest_of() -> None:
    segmenter = method(ColourTracker(sure=[2, 3, 6, 7]))
    assert [anchor.frame for anchor in segmenter.anchors(clip_video(moving(8)), 8)] == [3, 7]


class LongVideo(Video):
    """Frames made when they are asked for; counts how many at once."""

    def __init__(self, frames: int) -> None:
        super().__init__("long")
        self.frames, self.most = frames, 0

    @property
    def native_size(self) -> Size:
        return SIDES

    def __len__(self) -> int:
        return self.frames

    def clip(self, indices: Any, **options: Any) -> Clip:
        self.most = max(self.most, len(indices))
        return super().clip(indices, **options)

    def _decode(self, indices: Iterable[int] | None, size: Size) -> Iterator[Frame]:
        clip = moving(12)
        for index in range(self.frames) if indices is None else indices:
            yield Frame(f"{index:05d}", clip.frames[index % 12])


@pytest.mark.parametrize("spacing", [3, 5])
def test_memory_does_not_grow_with_the_video(spacing: int) -> None:
    most = []
    for frames in (24, 48):
        segmenter = method(ColourTracker(), spacing=spacing)
        alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
        counts = []
        features = segmenter.propagation.features

        def counted(
            frame: Tensor, features: Any = features, alive: Any = alive, counts: Any = counts
        ) -> Tensor:
            made: Tensor = features(frame)
            alive.add(made)
            counts.append(len(alive))
            return made

        segmenter.propagation.features = counted  # type: ignore[method-assign]
        video = LongVideo(frames)
        assert sum(1 for _ in segmenter(video)) == frames
        assert video.most <= 2 * spacing
        most.append(max(counts))
    assert max(most) <= 3 * spacing, "features of two stretches, and of the one that is being read"


def test_short_and_empty_videos_are_labelled() -> None:
    assert labelled(method(ColourTracker()), moving(1)).shape == (1, *SIDES)
    ground = Clip("ground", torch.full((5, 3, *SIDES), 26, dtype=torch.uint8))
    assert not bool(labelled(method(ColourTracker()), ground).any())
    video = clip_video(moving(5))
    tracker = ColourTracker()
    propagation = method(tracker).propagation
    assert len(list(discover_and_track(video, tracker, propagation))) == 5  # type: ignore[arg-type]


def test_cameras_and_impossible_settings_are_told() -> None:
    class Endless(LongVideo):
        def __len__(self) -> int:
            raise TypeError("a camera has no length")

    with pytest.raises(ValueError, match="has no end"):
        next(method(ColourTracker())(Endless(3)))
    with pytest.raises(ValueError, match="spacing 0"):
        method(ColourTracker(), spacing=0)
    tracker = ColourTracker()
    tracker.needs_prompt = True
    with pytest.raises(ValueError, match="without hints"):
        method(tracker)
