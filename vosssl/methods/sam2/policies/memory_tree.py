"""Several paths through the video at once: in each frame all their masks compete, and the best ones go on.

Source: Ding et al., "SAM2Long: Enhancing SAM 2 for Long Video Segmentation with a Training-Free Memory Tree",
ICCV 2025, section 3, and its code (Mark12Ding/SAM2Long). Other than there: each object has a tree of its own;
it starts from one path and branches from the first frame after the prompt, not from as many equal paths one
frame later; all chosen frames give a pointer, the oldest one too; prompts leave the best path only. A stream
shows the best path of the moment; in a stored video the end chooses the path for all frames, as published.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from vosssl.methods.sam2.mask_decoder import Candidates
from vosssl.methods.sam2.memory_selection import POINTERS, Recall
from vosssl.methods.sam2.object_memory import ObjectTrack, Output
from vosssl.methods.sam2.policies.policy import (
    AMBIGUOUS,
    Choice,
    Follower,
    Usual,
    prompted_maps,
    recent_maps,
    well_seen,
)

SMALLEST_QUALITY = 1e-5  # is added before the logarithm
PROMPTED_SCORE = 10.0  # object score (logit) of frames with prompts
WEAKEST, STRONGEST = 0.95, 1.05  # what keys of memories are multiplied with


class MemoryTree:
    """Memory tree (SAM2Long). The defaults are the published constants.

    Args:
        paths: how many are kept.
        min_quality: a memory needs a predicted quality above this, and an object score above 0.
        sure: object score (logit, either sign) above which the frame counts as certain; otherwise paths are
            chosen to differ.
        modulate: keys of memories with a better object score get a larger weight.
        presence: objects whose score is above that are there.

    Raises:
        ValueError: no path.
    """

    decides_late = True

    def __init__(
        self,
        *,
        paths: int = 3,
        min_quality: float = 0.1,
        sure: float = 2.0,
        modulate: bool = True,
        presence: float = 0.0,
    ) -> None:
        if paths < 1:
            raise ValueError(f"paths is {paths}, expected at least 1")
        self.paths = paths
        self.min_quality = min_quality
        self.sure = sure
        self.modulate = modulate
        self.presence = presence

    def follow_object(self) -> Follower:
        """Starts to follow an object."""
        return TreeFollower(self)


class Branch(NamedTuple):
    """A mask that a path may go on with.

    Attributes:
        path, mask: as in `Choice`.
        total: sum of the logarithms of predicted qualities along the path.
        quality: of this mask; negative where the object is not there.
    """

    path: int
    mask: int
    total: float
    quality: float


def branches(
    totals: Sequence[float], quality: Sequence[Sequence[float]], object_scores: Sequence[float]
) -> list[Branch]:
    """All ways on, the best first.

    Args:
        totals: of P paths.
        quality: of the three masks of each.
        object_scores: of each, logits.

    Returns:
        3P branches; of equal ones the first path's come first.
    """
    found = [
        Branch(path, mask, total + math.log(value + SMALLEST_QUALITY), value if score > 0 else -value)
        for path, (total, values, score) in enumerate(zip(totals, quality, object_scores, strict=True))
        for mask, value in enumerate(values, start=1)
    ]
    return sorted(found, key=lambda branch: -branch.total)


def pruned(ranked: Sequence[Branch], *, most: int, certain: bool) -> list[Branch]:
    """Those branches that go on.

    Args:
        ranked: all of them, the best first.
        most: at most so many.
        certain: take the best; otherwise the best that differ in predicted quality, to two digits, and then
            the best of paths that none of these comes from.

    Returns:
        The best first, but for those that were added last.
    """
    if certain:
        return list(ranked[:most])
    kept: list[Branch] = []
    for branch in ranked:
        if all(round(branch.quality, 2) != round(other.quality, 2) for other in kept):
            kept.append(branch)
    kept = kept[:most]
    for path in sorted({branch.path for branch in ranked} - {branch.path for branch in kept}):
        if len(kept) < most:
            kept.append(next(branch for branch in ranked if branch.path == path))
    return kept


@dataclass
class TreePath:
    """One way in which an object may have gone.

    Attributes:
        tracked: what is remembered along it.
        object_scores: by frame, logits.
        good: frames in which the object was seen well.
        total: as in `Branch`.
    """

    tracked: MutableMapping[int, Output]
    object_scores: dict[int, float] = field(default_factory=dict)
    good: set[int] = field(default_factory=set)
    total: float = 0.0

    def extended(self, frame: int, branch: Branch, *, object_score: float, min_quality: float) -> TreePath:
        """This path, one frame on; its output follows."""
        seen_well = object_score > 0 and abs(branch.quality) > min_quality
        return TreePath(
            dict(self.tracked),
            {**self.object_scores, frame: object_score},
            (self.good | {frame}) if seen_well else (self.good - {frame}),
            branch.total,
        )


class TreeFollower(Follower):
    """One object on several paths."""

    def __init__(self, policy: MemoryTree) -> None:
        self.policy = policy
        self._paths: list[TreePath] = []
        self._next: list[TreePath] = []

    def restart(self) -> None:
        del self._paths[1:]
        self._next = []

    def paths(self, track: ObjectTrack) -> list[ObjectTrack]:
        if not self._paths:
            self._paths = [TreePath(track.tracked)]
        return [track, *(replace(track, tracked=path.tracked) for path in self._paths[1:])]

    def recalls(self, frame: int, track: ObjectTrack, *, usual: Usual, reverse: bool = False) -> list[Recall]:
        views = self.paths(track)
        return [
            self._recall(frame, view, path, usual=usual, reverse=reverse)
            for view, path in zip(views, self._paths, strict=True)
        ]

    def _recall(
        self, frame: int, track: ObjectTrack, path: TreePath, *, usual: Usual, reverse: bool
    ) -> Recall:
        recall = usual(track)
        seen = well_seen(frame, track, path.good, most=POINTERS - 1, reverse=reverse)
        maps = (*prompted_maps(recall), *recent_maps(track, seen))
        said = tuple((index, distance) for index, distance in recall.pointers if index in track.conditioning)
        pointers = (*said, *((index, rank) for rank, index in enumerate(seen, start=1)))
        if not self.policy.modulate or len(maps) == 1:
            return Recall(maps, pointers)
        scores = path.object_scores
        emphasis = [
            ranks_as_weights([scores.get(index, PROMPTED_SCORE) for index, _ in part])
            for part in (maps, pointers)
        ]
        return Recall(maps, pointers, (emphasis[0], emphasis[1]))

    def choose(self, frame: int, candidates: Candidates) -> list[Choice]:
        quality = candidates.quality[:, AMBIGUOUS].tolist()
        object_scores = candidates.object_score[:, 0].tolist()
        ranked = branches([path.total for path in self._paths], quality, object_scores)
        certain = max(abs(score) for score in object_scores) > self.policy.sure
        kept = pruned(ranked, most=self.policy.paths, certain=certain)
        self._next = [
            self._paths[branch.path].extended(
                frame,
                branch,
                object_score=object_scores[branch.path],
                min_quality=self.policy.min_quality,
            )
            for branch in kept
        ]
        return [Choice(branch.path, branch.mask) for branch in kept]

    def remember(self, frame: int, track: ObjectTrack, outputs: list[Output]) -> None:
        for path, output in zip(self._next, outputs, strict=True):
            path.tracked[frame] = output
        best = self._next[0].total  # only differences count
        for path in self._next:
            path.total -= best
        self._paths, self._next = self._next, []
        track.tracked = self._paths[0].tracked

    def forget(self, frame: int, track: ObjectTrack, *, usual: Usual) -> None:
        super().forget(frame, track, usual=usual)
        for path in self._paths:
            path.good &= path.tracked.keys()
            scores = path.object_scores
            path.object_scores = {index: scores[index] for index in scores if index in path.tracked}


def ranks_as_weights(scores: Sequence[float]) -> tuple[float, ...]:
    """Weights that rise evenly from the smallest score to the largest one.

    Args:
        scores: any numbers; of equal ones the first counts as smaller.

    Returns:
        From 0.95 to 1.05, in the order of the scores.
    """
    steps = torch.linspace(WEAKEST, STRONGEST, len(scores)).tolist()
    weights = [0.0] * len(scores)
    for weight, place in zip(steps, sorted(range(len(scores)), key=scores.__getitem__), strict=True):
        weights[place] = weight
    return tuple(weights)
