"""Trivial baselines of segmentation into classes: what a supervised model has to beat.

All background, all of one class, and chance at each place: the mean of the training masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from vosssl.clip import VOID, Clip
from vosssl.losses.segmentation import class_labels
from vosssl.ops.resize import resize_labels
from vosssl.propagation.segmenter import Prompted, VideoSegmenter

SIDE = 64  # of the mean mask
MOST_VIDEOS = 64  # whose masks it is the mean of
FRAMES = 8  # of each, evenly spaced


class FixedClasses(VideoSegmenter):
    """The same classes in every frame of every video, stretched to its size.

    Args:
        probabilities: (C, h, w) float, background first.
        device: where they are stretched.
    """

    discovers = True
    prompt_kinds = ()

    def __init__(self, probabilities: Tensor, *, device: torch.device | str = "cpu") -> None:
        super().__init__(device=device)
        self.fixed = probabilities.to(device)

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        self.object_ids = tuple(range(1, len(self.fixed)))
        return self.fixed


def class_floors(
    *, num_classes: int = 2, clips: Any = None, device: torch.device | str = "cpu"
) -> dict[str, VideoSegmenter]:
    """The floors of the comparison table.

    Args:
        num_classes: C, with the background.
        clips: the training data; None leaves out the mean mask.
        device: where they work.

    Returns:
        By the name of their row.
    """
    rows = torch.eye(num_classes)[..., None, None]  # (C, C, 1, 1)
    floors = {"all background": rows[0]}
    if num_classes == 2:
        floors["all foreground"] = rows[1]
    else:
        floors |= {f"all class {place}": rows[place] for place in range(1, min(num_classes, 4))}
    mean = None if clips is None else mean_mask(clips, num_classes)
    if mean is not None:
        floors["mean training mask"] = mean
    return {name: FixedClasses(fixed, device=device) for name, fixed in floors.items()}


def mean_mask(clips: Any, num_classes: int) -> Tensor | None:
    """How often each class is at each place of the training frames; the objects scaled for the best J there.

    With a plain arg-max it would be all background where objects move about: their shares are multiplied by
    one factor, the one with the highest mean IoU on the very masks that it is the mean of.

    Args:
        clips: a dataset of clips, or of videos.
        num_classes: C, with the background.

    Returns:
        (C, SIDE, SIDE) float, or None where no frame has labels.
    """
    masks = [mask for clip in _labelled(clips) for mask in _masks(clip, num_classes)]
    if not masks:
        return None
    every = torch.stack(masks)  # (N, C, SIDE, SIDE) bool
    mean = every.float().mean(dim=0)
    scales = [factor / 4 for factor in range(1, 81)]  # thresholds from 0.8 down to 0.05
    best = max(scales, key=lambda scale: _mean_iou(_scaled(mean, scale), every))
    return _scaled(mean, best)


def _scaled(mean: Tensor, scale: float) -> Tensor:
    factors = torch.full((len(mean), 1, 1), scale)
    factors[0] = 1
    return mean * factors


def _mean_iou(probabilities: Tensor, masks: Tensor) -> float:
    """Of the objects of all masks (N, C, h, w) with one guess (C, h, w)."""
    classes = torch.arange(len(probabilities))[:, None, None]
    guess = (probabilities.argmax(dim=0) == classes)[1:]  # (C - 1, h, w)
    shared = (masks[:, 1:] & guess).sum(dim=(2, 3))
    union = (masks[:, 1:] | guess).sum(dim=(2, 3))
    return float((shared / union.clamp(min=1)).mean())


def _labelled(clips: Any) -> Iterator[Clip]:
    """Small clips of some evenly spaced frames, of videos where the data have them."""
    if not hasattr(clips, "videos"):
        step = max(1, len(clips) // MOST_VIDEOS)
        yield from (clips[index] for index in range(0, len(clips), step))
        return
    videos: Iterable[Any] = clips.videos()
    for video in islice(videos, MOST_VIDEOS):
        if video.labelled is None:
            continue
        known = video.labelled.nonzero().flatten().tolist()
        places = torch.linspace(0, len(known) - 1, min(FRAMES, len(known))).round().int().tolist()
        yield video.clip([known[place] for place in places], size=(SIDE, SIDE))


def _masks(clip: Clip, num_classes: int) -> Iterator[Tensor]:
    if clip.labels is None:
        return
    small = class_labels(resize_labels(clip.labels, (SIDE, SIDE)), num_classes)  # (T, SIDE, SIDE)
    for labels in small:
        if (labels != VOID).any():
            yield labels[None] == torch.arange(num_classes)[:, None, None]
