"""What is looked at while a slot network trains and afterwards: clips, masks, and signs of collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from vosssl.clip import Batch, Frame
from vosssl.data.video import Video
from vosssl.engine.drawing import overlay, slot_grid, tile
from vosssl.engine.inspected_clip import InspectedClip
from vosssl.layers.slot_network import SlotTrace
from vosssl.losses.collapse import collapse_alarms, collapse_measures
from vosssl.ops.resize import resize_image, resize_labels
from vosssl.propagation.class_segmentation import ClassSegmenter
from vosssl.propagation.slot_tracking import SlotTracker

PICTURED = 60  # frames of a video that a picture may show some of
PICTURE_WIDTH = 128  # pixels


def finds_slots(network: nn.Module) -> bool:
    """Whether a network is a slot network, so that it can be looked at as one."""
    return hasattr(network, "initial_slots")


class CollapseMonitor:
    """The trainer's monitor of slot networks: slot usage, attention entropy, duplicates in a batch.

    Args:
        objective: knows how its network is called, as for conditional starts.
    """

    def __init__(self, objective: Any) -> None:
        self.objective = objective

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> Mapping[str, float]:
        """Measures under `collapse/…`, and `alarm/…` above 0 where one says that the run has collapsed."""
        trace: SlotTrace = self.objective.trace(network, batch)
        measures = collapse_measures(trace.slots, trace.masks, trace.attention)
        values = {f"collapse/{name}": float(value) for name, value in measures.items()}
        return values | {f"alarm/{name}": 1.0 for name in collapse_alarms(measures)}


def watched(segmenter: SlotTracker, video: Video, *, frames: int | None = None) -> InspectedClip:
    """Runs a slot tracker over a video and keeps everything worth looking at.

    Args:
        segmenter: discovers with slots.
        video: with or without truth.
        frames: only the first so many.

    Returns:
        The clip, its pictures at the size of the video, without metrics.
    """
    seen: list[Frame] = []
    predicted, masks, attention = [], [], []
    segmenter.reset()
    for frame in islice(video, frames):
        predicted.append(segmenter.step(frame.image))
        masks.append(segmenter.masks.float().cpu())
        attention.append(segmenter.attention.float().cpu())
        seen.append(frame)
    blank = torch.zeros_like(predicted[0])
    truth = [blank if frame.labels is None else frame.labels for frame in seen]
    labelled = torch.tensor([frame.labels is not None for frame in seen])
    return InspectedClip(
        name=video.name,
        frames=torch.stack([frame.image for frame in seen]),
        predicted=torch.stack(predicted),
        truth=torch.stack(truth) if labelled.any() else None,
        labelled=labelled,
        masks=torch.stack(masks),
        attention=torch.stack(attention),
    )


def classes_over_time(segmenter: ClassSegmenter, videos: Sequence[Video], *, columns: int = 6) -> Tensor:
    """(3, H, W) uint8 picture of some frames of each video: the truth, and the prediction below it."""
    rows = []
    for video in videos:
        segmenter.reset()
        pairs = [(frame, segmenter.step(frame.image)) for frame in islice(video, PICTURED)]
        places = torch.linspace(0, len(pairs) - 1, min(columns, len(pairs))).round().int().tolist()
        for kind in ("truth", "predicted"):
            pictures = []
            for place in places:
                frame, predicted = pairs[place]
                labels = predicted if kind == "predicted" else frame.labels
                size = scaled_to_width(frame.image, PICTURE_WIDTH)
                image = resize_image(frame.image[None].float(), size)[0].round().byte()
                pictures.append(image if labels is None else overlay(image, resize_labels(labels, size)))
            rows.append(pictures)
    return tile(rows)


def scaled_to_width(image: Tensor, width: int) -> tuple[int, int]:
    """(height, width) of a picture (3, H, W) at another width."""
    return max(1, round(image.shape[-2] * width / image.shape[-1])), width


def slots_over_time(segmenter: SlotTracker, video: Video, *, frames: int = 16) -> Tensor:
    """(3, H, W) uint8 picture of the slots on a video's first frames, for TensorBoard."""
    clip = watched(segmenter, video, frames=frames)
    assert clip.masks is not None
    return slot_grid(clip.frames, clip.masks, attention=clip.attention, truth=clip.truth)
