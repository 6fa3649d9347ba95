"""Prompts from labels: the mask of each object in the first frame that shows it, found as frames go by."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from vosssl.clip import Frame
from vosssl.engine.protocol import EvalProtocol
from vosssl.ops.masks import labels_to_masks, object_ids
from vosssl.propagation.segmenter import VideoSegmenter

log = logging.getLogger(__name__)


def gives_late_objects(protocol: EvalProtocol) -> bool:
    """Whether objects that the first frame does not show are given too, each where it is seen first.

    That holds where such objects count at all; where only those of the first frame do (DAVIS), a late one
    would be an id too many.
    """
    return protocol.prompt == "first-frame" and protocol.objects != "first-frame"


class FirstMasks:
    """The prompts of one video, taken from its labels frame by frame; it remembers ids, not masks.

    Args:
        late: give an object that appears later in the first frame whose labels show it, by a map of the new
            objects only. Otherwise the first labelled frame is the only prompt, objects or not.
        merge: the values above 0, 255 included, are one object.

    Attributes:
        waiting: no prompt was given yet.
        has_labels: any frame so far had labels.

    Source: hkchengrex/Cutie, commit e8773af, eval_vos.py and inference/inference_core.py: nothing is
    segmented before the first mask; a later mask takes its pixels from the objects followed so far, and what
    is written for its frame is the network's output with that mask in it.
    """

    def __init__(self, *, late: bool, merge: bool = False) -> None:
        self.late = late
        self.merge = merge
        self.waiting = True
        self.has_labels = False
        self._given: set[int] = set()

    def step(self, segmenter: VideoSegmenter, frame: Frame) -> Tensor:
        """(H, W) uint8 ids of the next frame: background until the first prompt, then the segmenter's."""
        prompt = self.take(frame.labels)
        if self.waiting:
            return torch.zeros(frame.image.shape[-2:], dtype=torch.uint8, device=frame.image.device)
        return segmenter.step(frame.image, prompt)

    def take(self, labels: Tensor | None) -> Tensor | None:
        """The prompt that the next frame's labels give.

        Args:
            labels: (H, W) uint8 ids, 255 void; None where the frame has none.

        Returns:
            (H, W) uint8 ids, or None when there is no object. A later prompt has 0 wherever it names no
            new object, void too: void would make a segmenter forget what it follows there.
        """
        if labels is None or not (self.late or self.waiting):
            return None
        self.has_labels = True
        if self.merge:
            labels = labels.clamp(max=1)
        new = [identity for identity in object_ids(labels) if identity not in self._given]
        if self.late and not new:
            return None
        prompt = labels if self.waiting else labels * labels_to_masks(labels, new).any(dim=0)
        self._given.update(new)
        self.waiting = False
        return prompt if new else None


def can_take_late_objects(segmenter: VideoSegmenter) -> bool:
    """Whether a segmenter takes prompts after its first; one that starts from given labels does not, and a
    warning says so."""
    if segmenter.needs_prompt:
        log.warning(
            "%s starts from the first labels only; objects that come later are not given to it",
            type(segmenter).__name__,
        )
    return not segmenter.needs_prompt
