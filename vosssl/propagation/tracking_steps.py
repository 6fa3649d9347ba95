"""The steps of tracking objects that a person pointed out, and what each changes in labels that exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.ops.masks import masks_to_labels, object_ids
from vosssl.propagation.segmenter import VideoSegmenter
from vosssl.propagation.track_record import Masks, Reached, Record, labels_of, masks_of


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


class PassSteps:
    """Takes a segmenter through the frames of a pass; what is known comes with each call and is not changed.

    Args:
        segmenter: follows the objects; where it stands is what each step returns.
        read: gives the image of a frame, (3, H, W).
        labels: gives what is known of a frame, (H, W) uint8 ids, or None.
        again: of the frames that a person spoke about, so many of the nearest are shown at the start.
    """

    def __init__(
        self,
        segmenter: VideoSegmenter,
        *,
        read: Callable[[int], Tensor],
        labels: Callable[[int], Tensor | None],
        again: int,
    ) -> None:
        self._segmenter, self._read, self._labels, self._again = segmenter, read, labels, again

    def start(
        self, known: Record, start: int, step: int, labels: Tensor, objects: Sequence[int] | None
    ) -> Reached:
        """Shows the segmenter the frames that a person spoke about, the first frame of the pass last.

        Args:
            known: of all frames.
            start: the first frame.
            step: 1, or -1 towards the beginning.
            labels: (H, W) uint8 ids of the first frame.
            objects: whose masks may change; None: those said of the first frame, or all.

        Returns:
            Where the segmenter stands now.
        """
        said = known.said
        changing = frozenset(objects or said.get(start, {}) or known.objects)
        behind = {key for frame, masks in said.items() if (start - frame) * step >= 0 for key in masks}
        followed = changing | behind | set(object_ids(labels))
        self._segmenter.reset()
        others = sorted((frame for frame in said if frame != start), key=lambda frame: abs(frame - start))
        for frame in reversed(others[: self._again]):
            shown = self._labels(frame)
            if shown is not None and (ids := sorted(followed & set(object_ids(shown)))):
                show(self._segmenter, self._read(frame), masks_of(shown, ids))
        masks = masks_of(labels, object_ids(labels))
        absent = {key: mask for key, mask in said.get(start, {}).items() if key not in masks}
        show(self._segmenter, self._read(start), {**masks, **absent})
        return Reached(start, step, frozenset(followed), changing)

    def look_again(self, known: Record, reached: Reached) -> Reached:
        """Shows the segmenter the frame that it saw last once more, with what was said of it since."""
        said = known.said.get(reached.frame, {})
        fresh = {key: said[key] for key in reached.fresh if key in said}
        show(self._segmenter, self._read(reached.frame), fresh)
        return reached._replace(
            followed=reached.followed | set(fresh), changing=reached.changing | set(fresh), fresh=()
        )

    def follow(self, known: Record, reached: Reached, image: Tensor) -> tuple[TrackedFrame, Reached]:
        """The next frame of the pass, (3, H, W), with its labels, and where the segmenter stands then."""
        frame = reached.frame + reached.step
        said = known.said.get(frame, {})
        show(self._segmenter, image, said)
        reached = reached._replace(
            frame=frame, followed=reached.followed | set(said), changing=reached.changing | set(said)
        )
        rows, found = self._segmenter.probabilities, self._segmenter.object_ids
        kept = [row for row, key in enumerate(found) if key in reached.followed and key in known.objects]
        confidence = known.confidence.get(frame, {})
        tracked = tracked_frame(
            frame,
            rows[[0, *(row + 1 for row in kept)]],
            [found[row] for row in kept],
            before=self._labels(frame),
            changing=reached.changing,
            said=said,
            confidence={key: value for key, value in confidence.items() if key in known.objects},
        )
        return tracked, reached


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
