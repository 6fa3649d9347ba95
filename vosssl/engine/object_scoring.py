"""ObjectScorer: J and F of whole masks, object by object, for data sets whose objects overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vosssl.data.prediction_set import ObjectMasks
from vosssl.engine.protocol import EvalProtocol
from vosssl.engine.scoring import Curve, score_object
from vosssl.metrics.outlines import trace
from vosssl.metrics.region_boundary import FrameJF, paired_jf
from vosssl.metrics.score import Score

_TOGETHER = 8  # masks looked at in one pass: more do not fit a core's cache


class ObjectScorer:
    """J and F of one video, of whole masks.

    Args:
        video: its name.
        protocol: what is compared; one that `scores_whole_masks`.
        frames: id -> names of the frames in which the object is scored; None: all that are passed.
    """

    def __init__(
        self, video: str, protocol: EvalProtocol, *, frames: Mapping[int, Sequence[str]] | None
    ) -> None:
        assert protocol.scores_whole_masks, "load_protocol checks it"
        self.video = video
        self.protocol = protocol
        self._own = None if frames is None else {identity: set(names) for identity, names in frames.items()}
        self._frames: list[str] = []
        self._values: dict[tuple[int, str], tuple[float, float]] = {}
        self._true: set[tuple[int, str]] = set()
        self._predicted: set[tuple[int, str]] = set()

    @property
    def scored(self) -> bool:
        """Whether any frame was scored."""
        return bool(self._frames)

    def update(
        self, frames: Sequence[str], predicted: Sequence[ObjectMasks], truth: Sequence[ObjectMasks]
    ) -> None:
        """Scores T frames: their names, and the objects of each, (N, H, W) masks of one size."""
        wanted: list[tuple[int, str]] = []
        pairs: list[tuple[Tensor, Tensor]] = []
        for frame, found, true in zip(frames, predicted, truth, strict=True):
            self._frames.append(frame)
            masks_found, masks_true = _nonempty(found), _nonempty(true)
            absent = torch.zeros(true.masks.shape[1:], dtype=torch.uint8)
            for identity in sorted(masks_found.keys() | masks_true.keys()):
                if self._own is not None and frame not in self._own.get(identity, ()):
                    continue
                key = identity, frame
                pairs.append((masks_found.get(identity, absent), masks_true.get(identity, absent)))
                wanted.append(key)
                self._predicted |= {key} if identity in masks_found else set()
                self._true |= {key} if identity in masks_true else set()
        for start in range(0, len(pairs), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            outlines = trace([one for one, _ in pairs[part]], [other for _, other in pairs[part]])
            values = paired_jf(outlines, [1])  # (1, P)
            j, f = values.j[0].tolist(), values.f[0].tolist()
            self._values |= dict(zip(wanted[part], zip(j, f, strict=True), strict=True))

    def absorb(self, later: ObjectScorer) -> None:
        """Appends what another scorer found in later frames of this video."""
        self._frames += later._frames
        self._values |= later._values
        self._true |= later._true
        self._predicted |= later._predicted

    def finish(self) -> tuple[list[Score], list[Curve]]:
        """Scores and curves of the video: per object J, F, their recall and decay; none without an object."""
        scores: list[Score] = []
        curves: list[Curve] = []
        for identity in self._objects():
            own = [frame for frame in self._frames if self._own is None or frame in self._own[identity]]
            shown = [((identity, frame) in self._true, (identity, frame) in self._predicted) for frame in own]
            own = own[self.protocol.first_counted(shown) :]
            if not own:
                continue
            pairs = [self._values.get((identity, frame), (1.0, 1.0)) for frame in own]  # 1: neither shows it
            j, f = torch.tensor(pairs, dtype=torch.float64).unbind(1)
            found = score_object(self.video, identity, own, FrameJF(j, f))
            scores += found[0]
            curves += found[1]
        return scores, curves

    def _objects(self) -> list[int]:
        """Those listed, where they are listed by hand; else those that the truth shows in a scored frame."""
        if self.protocol.frames == "listed":
            assert self._own is not None, "object_frames raises where there is no list"
            return sorted(self._own)
        return sorted({identity for identity, _ in self._true})


def _nonempty(objects: ObjectMasks) -> dict[int, Tensor]:
    """Id -> (H, W) uint8 mask."""
    masks = objects.masks.view(torch.uint8) if objects.masks.dtype == torch.bool else objects.masks
    return {identity: mask for identity, mask in zip(objects.ids, masks, strict=True) if bool(mask.any())}
