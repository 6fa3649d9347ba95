"""ObjectJFScorer: J&F as object-centric papers compute it, fed one frame at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vosssl.engine.protocol import EvalProtocol
from vosssl.metrics.contingency import full_contingency
from vosssl.metrics.object_jf import ObjectJF, matched_jf, pairwise_band_f
from vosssl.metrics.overlap import pairwise_iou
from vosssl.metrics.score import Score

NAMES = ("object_jf", "object_j", "object_f")  # as in ObjectJF


class ObjectJFScorer:
    """`object_jf`, `object_j` and `object_f` of one video: of its frames, and of its chunks or its whole.

    Not the J and F of DAVIS: see `metrics/object_jf.py`. It keeps sums of two (255, 256) tables, no frames.

    Args:
        video: its name.
        protocol: which of them, the chunks, and whether the background is to be found.
    """

    def __init__(self, video: str, protocol: EvalProtocol) -> None:
        self.video = video
        self.protocol = protocol
        self._sums: Tensor | None = None  # (2, 255, 256) J and F of the present chunk, added over its frames
        self._present = torch.zeros(255, dtype=torch.bool)  # classes that occur in it
        self._frames = 0
        self._samples: dict[str, list[float]] = {}

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Counts one frame: two (H, W) uint8 label maps, of the truth 255 is void."""
        table = full_contingency(predicted, truth).cpu()
        pairs = torch.stack([pairwise_iou(table), pairwise_band_f(predicted, truth)])  # (2, 255, 256)
        present = table.any(dim=1)
        self._sample("image", present, pairs)
        self._sums = pairs if self._sums is None else self._sums + pairs
        self._present = self._present | present
        self._frames += 1
        if self._frames == self.protocol.chunk:
            self._close()

    def absorb(self, later: ObjectJFScorer) -> None:
        """Appends what another scorer found in later frames; this one's have to end with a whole chunk."""
        for name, samples in later._samples.items():
            self._samples.setdefault(name, []).extend(samples)
        if later._sums is not None:
            self._sums = later._sums if self._sums is None else self._sums + later._sums
            self._present = self._present | later._present
            self._frames += later._frames

    def finish(self) -> list[Score]:
        """The video's scores; what nothing was counted for, or the protocol does not ask for, is left out."""
        if self.protocol.chunk is None:
            self._close()
        once = self.protocol.chunk is None
        return [
            Score(
                self.video,
                None,
                name,
                math.fsum(samples) / len(samples),
                1.0 if once and name.startswith("video") else len(samples),
            )
            for name, samples in self._samples.items()
            if name in self.protocol.metrics
        ]

    def _close(self) -> None:
        if self._sums is not None:
            self._sample("video", self._present, self._sums / self._frames)
        self._sums, self._frames = None, 0
        self._present = torch.zeros_like(self._present)

    def _sample(self, scope: str, present: Tensor, pairs: Tensor) -> None:
        if not any(metric.startswith(f"{scope}/object_") for metric in self.protocol.metrics):
            return  # matching costs more than adding
        found: ObjectJF = matched_jf(present, *pairs, ignore_background=not self.protocol.background)
        for name, value in zip(NAMES, found, strict=True):
            if not math.isnan(value):
                self._samples.setdefault(f"{scope}/{name}", []).append(value)
