"""One step of tracking objects that a person pointed out, and what it changes in labels that exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.ops.masks import masks_to_labels
from vosssl.propagation.segmenter import VideoSegmenter
from vosssl.propagation.track_record import Masks, labels_of


class TrackedFrame(NamedTuple):
    """One frame of a pass.

    Attributes:
        frame: its number.
        labels: (H, W) uint8 ids.
        confidence: by object, mean probability of its pixels; 1 where a person gave the mask.
    """

    frame: int
    labels: Tensor
    confidence: dict[int, float]


def show(segmenter: VideoSegmenter, image: Tensor, masks: Masks) -> Tensor:
    """One step; a frame with masks stays in the segmenter's memory for good, where it has such a memory.

    Args:
        segmenter: takes the step.
        image: (3, H, W).
        masks: (H, W) bool of objects, without overlap; an empty one says that the object is not there.

    Returns:
        (H, W) uint8 ids.
    """
    known = {key: mask for key, mask in masks.items() if key in segmenter.object_ids or bool(mask.any())}
    if not known:
        return segmenter.step(image)
    keep_next = getattr(segmenter, "keep_next", None)
    if keep_next is not None:
        keep_next()
    if any(not bool(mask.any()) for mask in known.values()):  # a label map cannot say that one is absent
        return segmenter.step(image, {key: mask.float() for key, mask in known.items()})
    return segmenter.step(image, labels_of(known, (image.shape[-2], image.shape[-1])))


def tracked_frame(
    frame: int,
    rows: Tensor,
    ids: Sequence[int],
    *,
    before: Tensor | None,
    changing: Iterable[int],
    said: Masks,
    confidence: Mapping[int, float],
) -> TrackedFrame:
    """What a segmenter found, put into what is known of the frame.

    Args:
        frame: its number.
        rows: (N + 1, H, W) probabilities, background first.
        ids: of the N objects.
        before: (H, W) uint8, the frame's labels so far; None: there are none, and all objects are taken.
        changing: objects that are taken; others keep their pixels, but for those that these take or leave.
        said: what a person said of the frame; it stays as it is.
        confidence: of the labels so far.

    Returns:
        The frame's new labels on the CPU.
    """
    labels = masks_to_labels(rows, ids).cpu()
    new = set(ids) if before is None else set(changing)
    if before is not None:
        labels = torch.where(among(labels, new) | among(before, new), labels, before)
    for identity, mask in said.items():
        labels[labels == identity] = 0
        labels[mask] = identity
    values = {} if before is None else {key: value for key, value in confidence.items() if key not in new}
    for row, identity in enumerate(ids, start=1):
        inside = labels == identity
        if identity in new and bool(inside.any()):
            values[identity] = round(float(rows[row].cpu()[inside].mean()), 4)
    return TrackedFrame(frame, labels, values | dict.fromkeys(said, 1.0))


def among(labels: Tensor, ids: Iterable[int]) -> Tensor:
    """Where a label map (H, W) uint8 has one of these ids: (H, W) bool."""
    table = torch.zeros(VOID + 1, dtype=torch.bool)
    table[list(ids)] = True
    return table[labels.long()]
