"""Masks that move as the object did, and memories of frames in which it was seen well.

Source: Yang et al., "SAMURAI: Adapting Segment Anything Model for Zero-Shot Visual Tracking with
Motion-Aware Memory", 2024, section 4, and its code (yangchris11/samurai). Other than there: each object has a
filter of its own; boxes are those of the decoder's maps at stride 4, up to the far edge of their last pixels;
an object that is not to be seen ends the filter, instead of being a box without area in the image's corner;
the first frame after the prompt may be a chosen memory; prompts start the filter anew.
"""

from __future__ import annotations

from torch import Tensor

from vosssl.methods.sam2.mask_decoder import Candidates
from vosssl.methods.sam2.memory_selection import MAPS, Recall
from vosssl.methods.sam2.object_memory import ObjectTrack
from vosssl.methods.sam2.policies.box_motion import BoxMotion, corrected, overlaps, predicted, started
from vosssl.methods.sam2.policies.policy import (
    AMBIGUOUS,
    Choice,
    Follower,
    Usual,
    mask_edges,
    prompted_maps,
    recent_maps,
    well_seen,
)


class MotionAware:
    """Motion-aware memory (SAMURAI). The defaults are the published constants.

    Args:
        motion_weight: of a mask's overlap with the predicted box; its predicted quality has the rest.
        stable_frames: the box is predicted once it was followed in so many frames one after the other.
        stable_quality: predicted quality of a mask below which motion is learnt anew.
        min_quality: a memory needs a predicted quality above this,
        min_object_score: and an object score (logit) above this,
        min_motion_score: and, where the box was predicted, an overlap above this.
        presence: objects whose score is above that are there.

    Raises:
        ValueError: a weight or a number out of range.
    """

    decides_late = False

    def __init__(
        self,
        *,
        motion_weight: float = 0.15,
        stable_frames: int = 15,
        stable_quality: float = 0.3,
        min_quality: float = 0.5,
        min_object_score: float = 0.0,
        min_motion_score: float = 0.0,
        presence: float = -1.0,
    ) -> None:
        if not 0 <= motion_weight <= 1 or stable_frames < 1:
            raise ValueError(
                f"motion_weight is {motion_weight} and stable_frames {stable_frames}, expected "
                "a weight in [0, 1] and at least 1 frame"
            )
        self.motion_weight = motion_weight
        self.stable_frames = stable_frames
        self.stable_quality = stable_quality
        self.min_quality = min_quality
        self.min_object_score = min_object_score
        self.min_motion_score = min_motion_score
        self.presence = presence

    def follow_object(self) -> Follower:
        """Starts to follow an object."""
        return MotionFollower(self)


class MotionFollower(Follower):
    """One object, its motion, and the frames in which it was seen well."""

    def __init__(self, policy: MotionAware) -> None:
        self.policy = policy
        self._motion: BoxMotion | None = None
        self._stable = 0
        self._good: set[int] = set()

    def restart(self) -> None:
        self._motion, self._stable = None, 0

    def recalls(self, frame: int, track: ObjectTrack, *, usual: Usual, reverse: bool = False) -> list[Recall]:
        recall = usual(track)
        seen = well_seen(frame, track, self._good, reverse=reverse, most=MAPS - 1)
        return [recall._replace(maps=(*prompted_maps(recall), *recent_maps(track, seen)))]

    def choose(self, frame: int, candidates: Candidates) -> list[Choice]:
        quality = candidates.quality[0, AMBIGUOUS].double().cpu()  # (3,)
        object_score = float(candidates.object_score[0])
        there = object_score > self.policy.presence
        boxes = mask_edges(candidates.masks[0, AMBIGUOUS]) * there  # (3, 4)
        best, motion_score = self._best(quality, boxes)
        self._learn(boxes[best], float(quality[best]))
        self._good.discard(frame)
        if (
            quality[best] > self.policy.min_quality
            and object_score > self.policy.min_object_score
            and (motion_score is None or motion_score > self.policy.min_motion_score)
        ):
            self._good.add(frame)
        return [Choice(0, best + 1)]

    def forget(self, frame: int, track: ObjectTrack, *, usual: Usual) -> None:
        super().forget(frame, track, usual=usual)
        self._good &= track.tracked.keys()

    def _best(self, quality: Tensor, boxes: Tensor) -> tuple[int, float | None]:
        """The best mask and its overlap with the predicted box; None while there is no prediction."""
        if self._motion is not None:
            self._motion = predicted(self._motion)
        if self._motion is None or self._stable < self.policy.stable_frames:
            return int(quality.argmax()), None
        motion = overlaps(self._motion.box, boxes)  # (3,)
        weight = self.policy.motion_weight
        best = int((weight * motion + (1 - weight) * quality).argmax())
        return best, float(motion[best])

    def _learn(self, box: Tensor, quality: float) -> None:
        """Takes the chosen mask's box as seen, if it is to be trusted."""
        visible = bool(box[2] > box[0])
        if self._motion is None or self._stable == 0:
            self._motion, self._stable = (started(box), 1) if visible else (None, 0)
        elif visible and quality >= self.policy.stable_quality:
            self._motion = corrected(self._motion, box)
            self._stable = min(self._stable + 1, self.policy.stable_frames)
        else:
            self._stable = 0
