"""Memories of how an object looks now, apart from memories that tell it from others that look alike.

Source: Videnović et al., "A Distractor-Aware Memory for Visual Object Tracking with SAM2", CVPR 2025, section
3, and its code (jovanavidenovic/DAM4SAM). Other than there: each object has memories of its own; masks are
compared at the decoder's stride of 4, not at the video's size; boxes reach to the far edge of their last
pixels; anchors that lie ahead are not read; prompts clear the record of areas.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from vosssl.methods.sam2.mask_decoder import Candidates
from vosssl.methods.sam2.memory_selection import MAPS, POINTERS, Recall
from vosssl.methods.sam2.object_memory import ObjectTrack
from vosssl.methods.sam2.policies.box_motion import overlaps
from vosssl.methods.sam2.policies.policy import AMBIGUOUS, Choice, Follower, Usual, mask_edges
from vosssl.ops.regions import connected_regions

AREAS = 300  # frames back in which areas are looked for
MEDIAN_AREAS = 10  # areas that are not empty


class DistractorAware:
    """Distractor-aware memory (DAM4SAM). The defaults are the published constants.

    Args:
        stride: recent memories, but for the last one, are of frames whose number is a multiple of this.
        anchors: frames with prompts and frames that tell the object from others, at most so many together.
        min_quality: an anchor needs a predicted quality above this,
        area_change: and an area that differs from the usual one by at most this part of it,
        max_overlap: and an alternative mask that makes the object's box this different (IoU) or more.
        spacing: more than so many frames lie between anchors.
        presence: objects whose score is above that are there.

    Raises:
        ValueError: a number out of range.
    """

    decides_late = False

    def __init__(
        self,
        *,
        stride: int = 5,
        anchors: int = 4,
        min_quality: float = 0.8,
        area_change: float = 0.2,
        max_overlap: float = 0.7,
        spacing: int = 5,
        presence: float = 0.0,
    ) -> None:
        if stride < 1 or not 1 <= anchors < MAPS:
            raise ValueError(
                f"stride is {stride} and anchors {anchors}, expected at least 1, and 1 to {MAPS - 1}"
            )
        self.stride = stride
        self.anchors = anchors
        self.min_quality = min_quality
        self.area_change = area_change
        self.max_overlap = max_overlap
        self.spacing = spacing
        self.presence = presence

    def follow_object(self) -> Follower:
        """Starts to follow an object."""
        return DistractorFollower(self)


class DistractorFollower(Follower):
    """One object, the frames in which it is to be seen, and those that tell it from others."""

    def __init__(self, policy: DistractorAware) -> None:
        self.policy = policy
        self._present: set[int] = set()
        self._anchors: set[int] = set()
        self._areas: deque[int] = deque(maxlen=AREAS)
        self._last_anchor: int | None = None

    def restart(self) -> None:
        self._areas.clear()
        self._last_anchor = None

    def recalls(self, frame: int, track: ObjectTrack, *, usual: Usual, reverse: bool = False) -> list[Recall]:
        sign = -1 if reverse else 1
        resolving = self._resolving(frame, track, sign)
        distances = {index: (frame - index) * sign for index in (*track.conditioning, *track.tracked)}
        visible = {
            index
            for index, distance in distances.items()
            if distance > 0
            and index not in resolving
            and (index in track.conditioning or index in self._present)
        }
        older = (self._anchors | track.conditioning.keys()) - {frame - sign}  # these are never recent again
        recent = [index for index in visible - older if track.remembered(index).memory is not None]
        maps = [(index, MAPS - 1) for index in resolving]
        maps += self._recent(recent, sign, MAPS - len(maps))
        pointers = [(index, distances[index]) for index in resolving if distances[index] >= 0]
        pointers += [
            (index, distance)
            for index, distance in usual(track).pointers
            if index in visible and distance < POINTERS
        ]
        return [Recall(tuple(maps), tuple(pointers))]

    def choose(self, frame: int, candidates: Candidates) -> list[Choice]:
        quality = candidates.quality[0, AMBIGUOUS].tolist()
        best = quality.index(max(quality))
        there = float(candidates.object_score[0]) > self.policy.presence
        masks = (candidates.masks[0, AMBIGUOUS] > 0) & there  # (3, 4h, 4w)
        area = int(masks[best].sum())
        self._areas.append(area)
        self._anchors.discard(frame)
        self._present.discard(frame)
        if area:
            self._present.add(frame)
        if self._trusted(frame, quality[best], area):
            others = torch.cat([masks[:best], masks[best + 1 :]])
            if divergence(masks[best], others) <= self.policy.max_overlap:
                self._anchors.add(frame)
                self._last_anchor = frame
        return [Choice(0, best + 1)]

    def spared(self, track: ObjectTrack) -> set[int]:
        # when the frame that is the last one now becomes an anchor, an older one takes its place
        plain = self._present & track.tracked.keys() - self._anchors
        there = [index for index in plain if track.tracked[index].memory is not None]
        return {index for index, _ in self._recent(there, 1, MAPS - 1)}

    def forget(self, frame: int, track: ObjectTrack, *, usual: Usual) -> None:
        super().forget(frame, track, usual=usual)
        self._present &= track.tracked.keys()
        self._anchors &= track.tracked.keys()

    def _resolving(self, frame: int, track: ObjectTrack, sign: int) -> list[int]:
        """The first frame with a prompt, and the nearest of other prompts and anchors."""
        behind = {i for i in self._anchors if i in track.tracked and (frame - i) * sign > 0}
        first = min(track.conditioning, key=lambda index: index * sign)
        # what the previous frame shows is recent
        others = (behind | track.conditioning.keys()) - {first, frame - sign}
        nearest = sorted(others, key=lambda index: abs(frame - index))[: self.policy.anchors - 1]
        return [first, *sorted(nearest)]

    def _recent(self, visible: Sequence[int], sign: int, most: int) -> list[tuple[int, int]]:
        """The last frame and those on multiples of the stride, with their ages."""
        ordered = sorted(visible, key=lambda index: -index * sign)
        recent = ordered[:1] + [index for index in ordered[1:] if index % self.policy.stride == 0]
        return [(index, age) for age, index in enumerate(recent[:most])]

    def _trusted(self, frame: int, quality: float, area: int) -> bool:
        """Whether a frame shows the object well enough to be an anchor, if others stand beside it."""
        if not area or len(self._areas) < 2 or quality <= self.policy.min_quality:
            return False
        if self._last_anchor is not None and abs(frame - self._last_anchor) <= self.policy.spacing:
            return False
        usual_area = median([value for value in self._areas if value][-MEDIAN_AREAS:])
        return abs(area / usual_area - 1) <= self.policy.area_change


def divergence(chosen: Tensor, alternatives: Tensor) -> float:
    """How little the box of a mask changes when the largest region that an alternative adds is joined to it.

    Args:
        chosen: (h, w) bool, not empty.
        alternatives: (K, h, w) bool.

    Returns:
        The smallest intersection over union of the box with one that grew; 1 where alternatives add nothing.
    """
    joined = []
    for alternative in alternatives:
        regions = connected_regions(alternative & ~chosen)
        areas = regions.flatten().bincount()[1:]
        if len(areas):
            joined.append(chosen | (regions == int(areas.argmax()) + 1))
    if not joined:
        return 1.0
    boxes = mask_edges(torch.stack([chosen, *joined]).float())
    return float(overlaps(boxes[0], boxes[1:]).min())
