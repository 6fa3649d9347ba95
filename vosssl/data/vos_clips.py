"""Training clips of video object segmentation: frames at random gaps, objects chosen at random."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.clips import described, videos_fingerprint
from vosssl.data.objects import EVERY_PIXEL, AreaRule, Others, shuffled, target_ids, with_targets
from vosssl.data.sampling import Draw, as_draw, generator_of, mixed_seed
from vosssl.data.sources import Video, fitted_size
from vosssl.data.transforms import Transform, planned
from vosssl.data.views import View, whole
from vosssl.ops.resize import Size, resize_labels

log = logging.getLogger(__name__)

SAME_VIDEO = 5  # proposals from the video that was drawn, before others take its place
PROPOSALS = 100  # in all; more than that means that there is hardly a labelled object
CROPS = 5  # changes by the transform that are tried on the frames of one proposal


class ClipPlan(NamedTuple):
    """What a clip is made of.

    Attributes:
        video: number of the video.
        frames: T frame indices in the order they are played; falling where time is reversed.
        objects: ids in the first frame, in the order in which they are preferred as targets.
    """

    video: int
    frames: tuple[int, ...]
    objects: tuple[int, ...]


class VideoSource(Protocol):
    """A dataset that can hand out its videos."""

    def videos(self) -> list[Video]: ...


class _Proposal(NamedTuple):
    """Frames that a draw may take, and the seed of everything that follows."""

    video: int
    frames: tuple[int, ...]
    seed: int


class VosClips:
    """Clips of a few labelled frames with up to `max_objects` objects, as STCN, XMem and Cutie train on.

    Every labelled frame is equally likely as the first one (the prompt) where num_frames fit on one side of
    it, and time runs forward or backward with the same chance where they fit on both. The distances between
    frames are uniform among those of at most `max_jump` that stay inside the video. A first frame without a
    target is drawn anew, five times in the same video, then in others; where the transform leaves no target
    in it, the transform is drawn anew as well. Everything is decided by the draw.

    Deviation from the official loaders: these draw places that favour some frames (STCN's first frames are
    the least of a range that ends `max_jump` before the last; a sorted walk about a frame in Cutie starts and
    ends near the ends of short videos too often), and know frames without objects from lists in the code.

    Args:
        videos: what to draw from, or a dataset that has `videos()`, whose `frame_cache` holds here too.
            Frames without labels are left out, and videos with fewer labelled frames than num_frames.
        num_frames: T; STCN trains on 3, XMem and Cutie on 8 (on 3 made from one picture before).
        max_jump: largest distance between neighbouring frames, or pairs (step, distance) from step 0 on: a
            curriculum.
        frame_interval: what max_jump is divided by, where the labelled frames of a dataset lie that far apart
            (YouTube-VOS: 5); the least distance is 1.
        max_objects: N, objects of a clip, chosen at random from those in the first frame; None: all.
        others: what happens to the rest, see `with_targets`.
        min_areas: (more_than, certain, grown) of an AreaRule.
        reverse: draw clips that run backwards too. False: forward only; then the last frames start no clip.
        clips_per_video: draws of one video in an epoch (STCN: 1), with the first frame at random. None: one
            for every frame, which is its first (Cutie counts frames too).
        size: what frames are resized to as they are decoded, see VideoClips.
        transform: applied to every clip; it has to bring all clips to one size.

    Raises:
        ValueError: arguments out of range, videos without labels or none that is long enough.
    """

    def __init__(
        self,
        videos: Sequence[Video] | VideoSource,
        *,
        num_frames: int = 3,
        max_jump: int | Sequence[Sequence[int]] = 5,
        frame_interval: int = 1,
        max_objects: int | None = 2,
        others: Others = "background",
        min_areas: Sequence[int] = EVERY_PIXEL,
        reverse: bool = True,
        clips_per_video: int | None = 1,
        size: Size | int | None = None,
        transform: Transform | None = None,
    ) -> None:
        if num_frames < 1 or frame_interval < 1 or (max_objects is not None and max_objects < 1):
            raise ValueError(
                f"clips of {num_frames} frames with {max_objects} objects at frame interval {frame_interval} "
                "were asked for, expected 1 or more of each"
            )
        if clips_per_video is not None and clips_per_video < 1:
            raise ValueError(
                f"clips_per_video is {clips_per_video}, expected 1 or more, or null: one per frame"
            )
        self.num_frames = num_frames
        self.curriculum = curriculum(max_jump)
        self.frame_interval = frame_interval
        self.max_objects = max_objects
        self.others: Others = others
        self.rule = AreaRule(*min_areas)
        self.reverse = reverse
        self.clips_per_video = clips_per_video
        self.transform = transform
        self._clip_size = size
        everything = list(videos) if isinstance(videos, Sequence) else videos.videos()
        self._videos, self._labelled = _long_enough(everything, num_frames)
        self._starts = [self._starts_of(len(frames)) for frames in self._labelled]
        counts = [len(starts) if clips_per_video is None else clips_per_video for starts in self._starts]
        self._ends = torch.tensor(counts).cumsum(0)
        self._empty: set[tuple[int, int]] = set()  # frames known to hold no object; spares reading them again

    def _starts_of(self, length: int) -> list[int]:
        """Places from which num_frames frames fit in an allowed direction."""
        spans = self.num_frames - 1
        return [
            place for place in range(length) if place < length - spans or (self.reverse and place >= spans)
        ]

    def videos(self) -> list[Video]:
        """The videos that are drawn from."""
        return list(self._videos)

    def max_jump(self, step: int) -> int:
        """Largest distance between neighbouring labelled frames at a training step."""
        jump = next(jump for start, jump in reversed(self.curriculum) if start <= step)
        return max(1, jump // self.frame_interval)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _proposals(self, draw: Draw | int) -> Iterator[_Proposal]:
        index, seed, step = as_draw(draw)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        for attempt in range(PROPOSALS):
            own = mixed_seed(seed, index, attempt)
            generator = generator_of(own)
            place = index if attempt < SAME_VIDEO else _below(len(self), generator)
            video = int(torch.searchsorted(self._ends, place, right=True))
            starts, labelled = self._starts[video], self._labelled[video]
            if self.clips_per_video is None and (attempt == 0 or attempt >= SAME_VIDEO):
                start = starts[place - int(self._ends[video])]  # counted from behind: a negative index
            else:
                start = starts[_below(len(starts), generator)]
            frames = draw_frames(
                start, len(labelled), self.num_frames, self.max_jump(step), generator, reverse=self.reverse
            )
            yield _Proposal(video, tuple(labelled[place] for place in frames), own)

    def plan(self, draw: Draw | int) -> ClipPlan:
        """What a draw takes, from label files alone: no image is decoded.

        The clip itself may come from a later proposal where the transform leaves no target in its first
        frame, and has those of these objects that the transform leaves.

        Raises:
            ValueError: no frame with a target was found.
        """
        for proposal in self._proposals(draw):
            objects = self._preferred(proposal, self._labels_of(proposal))
            if objects:
                return ClipPlan(proposal.video, proposal.frames, tuple(objects))
        raise self._no_target(draw)

    def __getitem__(self, draw: Draw | int) -> Clip:
        for proposal in self._proposals(draw):
            if (proposal.video, proposal.frames[0]) in self._empty:
                continue
            labels = self._labels_of(proposal)
            objects = self._preferred(proposal, labels)
            if not objects:
                if not target_ids(labels[:1]):
                    self._empty.add((proposal.video, proposal.frames[0]))
                continue
            for changed in self._changed(proposal):
                found = with_targets(
                    changed, objects, max_objects=self.max_objects, others=self.others, rule=self.rule
                )
                if found is not None:
                    return found
        raise self._no_target(draw)

    def _changed(self, proposal: _Proposal) -> Iterator[Clip]:
        """The frames of a proposal as the transform changes them, drawn anew every time."""
        video = self._videos[proposal.video]
        seen: View | None = None
        for attempt in range(CROPS if self.transform is not None else 1):
            generator = generator_of(mixed_seed(proposal.seed, 1, attempt))
            start = whole(video.native_size, self._size_of(video))
            view, rest = planned(self.transform, start, generator)  # a crop is decided before decoding
            if view != seen:  # the whole frame is decoded once
                clip, seen = video.clip(proposal.frames, view=view), view
            yield clip if rest is None else rest(clip, generator)

    def _preferred(self, proposal: _Proposal, labels: Tensor) -> list[int]:
        """The targets among the labels (T, H, W) of a proposal, in a random order."""
        return shuffled(target_ids(labels, rule=self.rule), generator_of(mixed_seed(proposal.seed, 0)))

    def _labels_of(self, proposal: _Proposal) -> Tensor:
        """(T, H, W) labels that decide about targets: of the first frame, or of all where the rule asks."""
        video = self._videos[proposal.video]
        found = []
        for frame in proposal.frames if self.rule != EVERY_PIXEL else proposal.frames[:1]:
            labels = video.read_labels(frame)
            assert labels is not None
            found.append(resize_labels(labels, self._size_of(video)))
        return torch.stack(found)

    def _size_of(self, video: Video) -> Size:
        return video.size if self._clip_size is None else fitted_size(video.native_size, self._clip_size)

    def _no_target(self, draw: Draw | int) -> ValueError:
        index = as_draw(draw).index
        name = self._videos[int(torch.searchsorted(self._ends, index, right=True))].name
        return ValueError(
            f"no object was found in {PROPOSALS} first frames drawn for clip {index} (of video {name} and "
            "others); check that the labels hold ids other than 0 and 255 (binary=true reads 255 as the "
            "object), that min_areas is not too large and that the transform does not crop everything away"
        )

    def fingerprint(self) -> str:
        """A hash that changes when the clips may, see VideoClips. Features are cached as of step 0."""
        settings = (self.num_frames, self.max_jump(0), self.max_objects, self.others, self.rule, self.reverse)
        more = (self.clips_per_video, self._clip_size, described(self.transform))
        return videos_fingerprint(self._videos, (*settings, *more))


def curriculum(max_jump: int | Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """Pairs (first step, largest jump) in order of steps; one number holds from step 0 on.

    Raises:
        ValueError: steps that do not rise from 0, or a jump below 1.
    """
    pairs = ((0, max_jump),) if isinstance(max_jump, int) else tuple((int(a), int(b)) for a, b in max_jump)
    steps = [step for step, _ in pairs]
    if not pairs or steps[0] != 0 or steps != sorted(set(steps)) or min(jump for _, jump in pairs) < 1:
        raise ValueError(
            f"max_jump is {max_jump}, expected 1 or more, or pairs (step, jump) whose steps rise from 0"
        )
    return pairs


def draw_frames(
    start: int, length: int, count: int, max_jump: int, generator: torch.Generator, *, reverse: bool = True
) -> list[int]:
    """Frames from a start on, forward or backward.

    Args:
        start: index of the first frame.
        length: frames of the video.
        count: T, frames to draw; `count - 1` have to lie on one side of the start.
        max_jump: largest distance between neighbours.
        generator: random state.
        reverse: backward is allowed.

    Returns:
        T indices, rising or falling. Both directions are equally likely where both are possible.
    """
    spans = count - 1
    forward, backward = length - 1 - start >= spans, reverse and start >= spans
    assert forward or backward
    falls = backward and (not forward or _below(2, generator) == 1)
    gaps = draw_gaps(spans, max_jump, start if falls else length - 1 - start, generator)
    places = [start]
    for gap in gaps:
        places.append(places[-1] + (-gap if falls else gap))
    return places


def draw_gaps(count: int, largest: int, room: int, generator: torch.Generator) -> list[int]:
    """Distances between neighbouring frames, uniform among all that fit.

    Args:
        count: how many.
        largest: of one distance; the least is 1.
        room: most that they may sum to, at least count.
        generator: random state.

    Returns:
        The distances.
    """
    if room >= count * largest:
        return (1 + torch.randint(largest, (count,), generator=generator)).tolist()
    gaps: list[int] = []
    for left in range(count - 1, -1, -1):
        ways = torch.tensor(
            [_ways(left, largest, room - gap) for gap in range(1, largest + 1)], dtype=torch.float64
        )
        gaps.append(1 + int(torch.multinomial(ways, 1, generator=generator)))
        room -= gaps[-1]
    return gaps


@lru_cache(maxsize=1 << 16)
def _ways(count: int, largest: int, room: int) -> float:
    """How many tuples of `count` distances in 1..largest sum to at most `room`."""
    if room < count:
        return 0.0
    if count == 0:
        return 1.0
    return sum(_ways(count - 1, largest, room - gap) for gap in range(1, largest + 1))


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))


def _long_enough(videos: Sequence[Video], num_frames: int) -> tuple[list[Video], list[list[int]]]:
    """The videos with enough labelled frames, and the indices of these."""
    kept, labelled = [], []
    for video in videos:
        flags = video.labelled
        frames = [] if flags is None else flags.nonzero().flatten().tolist()
        if len(frames) >= num_frames:
            kept.append(video)
            labelled.append(frames)
    if not kept:
        raise ValueError(
            f"none of {len(videos)} videos has {num_frames} labelled frames; pass annotations=… (training "
            "clips of video object segmentation need labels), or take fewer frames"
        )
    if len(kept) < len(videos):
        log.warning(
            "%d of %d videos have fewer than %d labelled frames and are left out of training",
            len(videos) - len(kept),
            len(videos),
            num_frames,
        )
    return kept, labelled
