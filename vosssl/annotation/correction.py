"""How far a correction is carried over frames that were tracked before."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.tracking_steps import TrackedFrame

MERGED = 3  # frames in a row in which a correction finds what is known, until it has nothing more to say
SAME = 0.95  # intersection over union of masks that are taken for the same
SLACK = 0.05  # of confidence that a correction may lack


class Correction:
    """Whether the next frame of a pass is better than what is known of it; one for each way.

    A pass through an occlusion may lose an object that the earlier track, which came from the other side,
    holds well. So the pass ends where it is less sure than that track, and where it finds the same masks.

    Args:
        work: the session.
        start: the frame in which a person said something.
    """

    def __init__(self, work: ClickAndTrack, start: int) -> None:
        self.work = work
        self.said = work.said(start)
        self._same = 0

    def __call__(self, tracked: TrackedFrame) -> bool:
        """Whether the frame is to be kept, and the pass to go on."""
        known = self.work.labels(tracked.frame)
        if known is None:
            return True
        self._same = self._same + 1 if agree(tracked.labels, known, self.said) else 0
        seen = [identity for identity, mask in self.said.items() if bool(mask.any())]
        return self._same < MERGED and not less_sure(
            tracked.confidence, self.work.confidence(tracked.frame), seen
        )


def agree(found: Tensor, known: Tensor, said: Mapping[int, Tensor]) -> bool:
    """Whether two label maps (H, W) have the same masks of objects, nearly.

    Args:
        found, known: uint8 ids.
        said: masks of the objects that count; one that is seen has to be seen in both, one that is absent
            (an empty mask) in neither.
    """
    for identity, mask in said.items():
        first, second = found == identity, known == identity
        union = int((first | second).sum())
        if bool(mask.any()) != (union > 0) or int((first & second).sum()) < SAME * union:
            return False
    return True


def less_sure(found: Mapping[int, float], known: Mapping[int, float], objects: list[int]) -> bool:
    """Whether the confidence of any object is lower than the known one; that of a lost object is 0."""
    return any(known.get(identity, 0.0) - found.get(identity, 0.0) > SLACK for identity in objects)
