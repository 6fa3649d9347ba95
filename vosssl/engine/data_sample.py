"""One sample of a dataset, measured and small enough to be shown; what many of them add up to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor

from vosssl.clip import VOID, Clip
from vosssl.data.sampling import ClipDataset, Draw, read_draws
from vosssl.data.video import Video
from vosssl.engine.drawing import as_bytes, evenly_spaced
from vosssl.engine.sprite_sheets import fit
from vosssl.ops.masks import object_ids
from vosssl.ops.resize import Size, resize_image, resize_labels

Part = Literal["train", "val"]
CHUNK_BYTES = 64 << 20  # frames of a video that are held at their own size


@dataclass(frozen=True)
class DataSample:
    """A training clip or an evaluation video, with what was measured before it was made small.

    Attributes:
        part: which part of the data it is from.
        clip: the frames shown, uint8; labels are background where a frame is not labelled.
        size: (H, W) of the frames that the model gets.
        length: frames of the clip, or of the whole video.
        ids: the objects of each frame shown; None where it is not labelled.
        void: the share of each frame shown that is void; NaN where it is not labelled.
        seconds: what reading took.
        draw: what a training clip was drawn with; None for evaluation videos.
    """

    part: Part
    clip: Clip
    size: Size
    length: int
    ids: tuple[tuple[int, ...] | None, ...]
    void: tuple[float, ...]
    seconds: float
    draw: Draw | None = None

    @property
    def objects(self) -> tuple[int, ...]:
        """The ids that occur in any frame shown."""
        return tuple(sorted({identity for ids in self.ids for identity in ids or ()}))

    @property
    def num_objects(self) -> int | None:
        """How many objects the clip says it has, or that were seen; None without labels."""
        if self.clip.num_objects is not None:
            return self.clip.num_objects
        return len(self.objects) if self.num_labelled else None

    @property
    def num_labelled(self) -> int:
        """How many of the frames shown are labelled."""
        return sum(ids is not None for ids in self.ids)

    @property
    def mean_void(self) -> float:
        """The share of void pixels in the labelled frames shown; NaN without labels."""
        known = [share for share in self.void if not math.isnan(share)]
        return sum(known) / len(known) if known else math.nan

    @property
    def gaps(self) -> tuple[int, ...]:
        """Differences of the numbers in the names of neighbouring frames; none where a name has no number."""
        numbers = [re.search(r"(\d+)\D*$", name) for name in self.clip.frame_names]
        found = [int(number[1]) for number in numbers if number is not None]
        return tuple(b - a for a, b in pairwise(found)) if len(found) == len(numbers) else ()

    @property
    def is_reversed(self) -> bool:
        """Whether time runs backwards."""
        return bool(self.gaps) and all(gap < 0 for gap in self.gaps)


def read_sample(
    dataset: ClipDataset, draw: Draw, *, display_side: int = 320, max_frames: int = 90
) -> DataSample:
    """Draws one training clip.

    Args:
        dataset: what a network trains on.
        draw: which clip.
        display_side: longer side of the frames shown, pixels.
        max_frames: frames shown, evenly spaced.

    Returns:
        The sample; everything about it was measured at the size that the model gets.
    """
    start = perf_counter()
    (clip,) = read_draws(dataset, [draw])
    seconds = perf_counter() - start
    indices = evenly_spaced(len(clip), max_frames)
    part, ids, void = _measured(clip, indices, display_side=display_side)
    size: Size = (clip.frames.shape[-2], clip.frames.shape[-1])
    return DataSample("train", part, size, len(clip), ids, void, seconds, draw)


def read_video(video: Video, *, display_side: int = 320, max_frames: int = 90) -> DataSample:
    """Reads the frames of an evaluation video that are shown, a few at a time.

    Of a longer video they are spread evenly; where only some are labelled, half of those shown are.

    Args:
        video: what a model is evaluated on.
        display_side: longer side of the frames shown, pixels.
        max_frames: frames shown at most.

    Returns:
        The sample; everything about it was measured at the video's own size.
    """
    start = perf_counter()
    indices = _worth_showing(video, max_frames)
    size = video.size
    step = max(1, CHUNK_BYTES // (3 * size[0] * size[1]))
    ids: tuple[tuple[int, ...] | None, ...] = ()
    void: tuple[float, ...] = ()
    shown = []
    for first in range(0, len(indices), step):
        clip = video.clip(indices[first : first + step])
        small, more_ids, more_void = _measured(clip, range(len(clip)), display_side=display_side)
        shown.append(small)
        ids, void = ids + more_ids, void + more_void
    return DataSample("val", _joined(shown, video.name), size, len(video), ids, void, perf_counter() - start)


def videos_in(dataset: Any) -> list[Video] | None:
    """The videos that a dataset draws from, of a mix those of all its parts, of one around another the inner
    one's; None where they are not listed (generated clips, single images)."""
    parts = getattr(dataset, "datasets", [dataset.dataset] if hasattr(dataset, "dataset") else None)
    if parts is not None:
        lists = [videos_in(part) for part in parts]
        known = [videos for videos in lists if videos is not None]
        return [video for videos in known for video in videos] if len(known) == len(lists) else None
    listed = dataset.videos() if hasattr(dataset, "videos") else None
    return list(listed) if isinstance(listed, list | tuple) else None


@dataclass
class Tally:
    """What the samples of one part add up to.

    Attributes:
        videos: of the whole part; None where they are not listed.
        frames: of all videos.
        clips: in an epoch; None for evaluation.
        failures: why samples could not be read.
    """

    videos: int | None = None
    frames: int | None = None
    clips: int | None = None
    samples: int = 0
    frames_shown: int = 0
    frames_labelled: int = 0
    reversed: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    gaps: Counter[int] = field(default_factory=Counter)
    objects: Counter[int] = field(default_factory=Counter)
    unlabelled: int = 0
    void: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    flow: int = 0
    failures: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, videos: Sequence[Video] | None, *, clips: int | None = None) -> Tally:
        """A tally before the first sample: what is known without reading one."""
        if videos is None:
            return cls(clips=clips)
        return cls(len(videos), sum(video.promised_length for video in videos), clips)

    def add(self, sample: DataSample) -> None:
        """Counts one more sample."""
        self.samples += 1
        self.frames_shown += len(sample.clip)
        self.frames_labelled += sample.num_labelled
        self.reversed += sample.is_reversed
        self.sizes[f"{sample.size[1]} x {sample.size[0]}"] += 1
        self.lengths[sample.length] += 1
        if sample.length == len(sample.clip):  # else the gaps are those of what is shown
            self.gaps.update(sample.gaps)
        if sample.num_objects is None:
            self.unlabelled += 1
        else:
            self.objects[sample.num_objects] += 1
            self.void.append(sample.mean_void)
        self.seconds.append(sample.seconds)
        self.flow += sample.clip.flow is not None

    def line(self) -> str:
        """What was looked at, in a line of a log."""
        sizes = ", ".join(list(self.sizes)[:4]) + (", …" if len(self.sizes) > 4 else "")
        labelled = 100 * self.frames_labelled / max(self.frames_shown, 1)
        objects = [number for number, times in self.objects.items() if times]
        held = f", {min(objects)} to {max(objects)} objects" if objects else ""
        return (
            f"{self.samples} samples of {sizes or 'nothing'}, {labelled:.0f} % of frames labelled{held}, "
            f"{1000 * self.median_seconds:.0f} ms each"
        )

    @property
    def median_seconds(self) -> float:
        """Of reading one sample; NaN before the first."""
        return median(self.seconds) if self.seconds else math.nan


def _measured(
    clip: Clip, indices: Sequence[int], *, display_side: int
) -> tuple[Clip, tuple[tuple[int, ...] | None, ...], tuple[float, ...]]:
    """Some frames of a clip at the size shown, and the objects and the share of void of each at its own."""
    shape: Size = (clip.frames.shape[-2], clip.frames.shape[-1])
    size = fit(shape, display_side)
    frames = [as_bytes(resize_image(_as_unit(clip.frames[i]), size)) for i in indices]
    ids: list[tuple[int, ...] | None] = []
    void: list[float] = []
    labels = torch.zeros(len(indices), *size, dtype=torch.uint8)
    for row, i in enumerate(indices):
        known = clip.labels is not None and (clip.labelled is None or bool(clip.labelled[i]))
        if not known or clip.labels is None:
            ids.append(None)
            void.append(math.nan)
            continue
        labels[row] = resize_labels(clip.labels[i], size)
        ids.append(object_ids(clip.labels[i]))
        void.append(float((clip.labels[i] == VOID).float().mean()))
    scale = torch.tensor([size[1] / shape[1], size[0] / shape[0]])[:, None, None]
    shown = replace(
        clip,
        frames=torch.stack(frames),
        labels=None if clip.labels is None else labels,
        labelled=torch.tensor([found is not None for found in ids]),
        frame_names=tuple(clip.frame_names[i] for i in indices) if clip.frame_names else (),
        flow=None if clip.flow is None else resize_labels(clip.flow[list(indices)], size) * scale,
        features={},
    )
    return shown, tuple(ids), tuple(void)


def _as_unit(image: Tensor) -> Tensor:
    return image if image.is_floating_point() else image.float() / 255


def _worth_showing(video: Video, count: int) -> list[int]:
    """Indices of at most `count` frames of a video, in order."""
    if len(video) <= count:
        return list(range(len(video)))
    flags = video.labelled
    if flags is None or bool(flags.all()):
        return evenly_spaced(len(video), count)
    labelled: list[int] = flags.nonzero().flatten().tolist()
    chosen = [labelled[i] for i in evenly_spaced(len(labelled), count // 2)]
    others = sorted(set(range(len(video))) - set(chosen))
    return sorted(chosen + [others[i] for i in evenly_spaced(len(others), count - len(chosen))])


def _joined(clips: Iterable[Clip], name: str) -> Clip:
    """Pieces of one video as one clip; a piece without labels is background there."""
    pieces = list(clips)
    labels = [torch.zeros_like(c.frames[:, 0]) if c.labels is None else c.labels for c in pieces]
    return Clip(
        name=name,
        frames=torch.cat([clip.frames for clip in pieces]),
        labels=torch.cat(labels) if any(clip.labels is not None for clip in pieces) else None,
        labelled=torch.cat([clip.labelled for clip in pieces if clip.labelled is not None]),
        frame_names=tuple(name for clip in pieces for name in clip.frame_names),
    )
