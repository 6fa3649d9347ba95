"""Scorers: fed one frame at a time, they keep tables and per-frame values, never frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.engine.protocol import EvalProtocol
from vosssl.metrics.ari import adjusted_rand_index
from vosssl.metrics.contingency import compact, full_contingency
from vosssl.metrics.overlap import best_overlap, matched_overlap
from vosssl.metrics.region_boundary import (
    FrameJF,
    frame_jf,
    match_proposals,
    paired_frame_jf,
    statistics,
)
from vosssl.metrics.score import Score
from vosssl.ops.masks import object_ids

Item = TypeVar("Item")


class Curve(NamedTuple):
    """Values of one object over the scored frames."""

    video: str
    object: int
    metric: str
    frames: tuple[str, ...]
    values: tuple[float, ...]


class JFScorer:
    """J and F of one video under a protocol.

    Args:
        video: its name.
        protocol: what is compared.
    """

    def __init__(self, video: str, protocol: EvalProtocol) -> None:
        self.video = video
        self.protocol = protocol
        self.count: int | None = None  # n, the largest id of the first frame
        self.frames: list[str] = []
        self._values: list[FrameJF] = []
        self._predicted: list[tuple[int, ...]] = []  # rows of each frame's values, when matching
        self._true: list[tuple[int, ...]] = []

    def begin(self, truth: Tensor) -> None:
        """Takes note of the objects in the first frame's truth, (H, W) uint8, scored or not."""
        ids = object_ids(self._truth(truth))
        self.count = max(ids, default=0)

    def update(self, frame: str, predicted: Tensor, truth: Tensor) -> None:
        """Scores one frame: its name and two (H, W) uint8 label maps.

        Raises:
            ValueError: ids that the protocol does not allow, or maps that do not fit.
        """
        truth = self._truth(truth)
        if self.protocol.merge_predictions:
            predicted = predicted.clamp(max=1)
        self.frames.append(frame)
        if self.protocol.task == "semi-supervised" and self.protocol.objects == "first-frame":
            self._update_paired(frame, predicted, truth)
        else:
            self._update_pairs(predicted, truth)

    def finish(self) -> tuple[list[Score], list[Curve]]:
        """Scores and curves of the video.

        Returns:
            Per object J, F, their recall and decay; none when there is no object.

        Raises:
            ValueError: no frame was scored.
        """
        if not self.frames:
            raise ValueError(
                f"no frame of {self.video} is scored under {self.protocol.name}: "
                "it is too short or has no truth"
            )
        objects, j, f = self._paired() if self.protocol.task == "semi-supervised" else self._matched()
        scores, curves = [], []
        for place, identity in enumerate(objects):
            for metric, values in (("J", j[place]), ("F", f[place])):
                stats = statistics(values)
                for suffix, value in (("", stats.mean), ("/recall", stats.recall), ("/decay", stats.decay)):
                    scores.append(Score(self.video, identity, metric + suffix, value))
                curves.append(Curve(self.video, identity, metric, tuple(self.frames), tuple(values.tolist())))
        return scores, curves

    def _truth(self, truth: Tensor) -> Tensor:
        return truth.clamp(max=1) if self.protocol.merge_truth else truth

    def _update_paired(self, frame: str, predicted: Tensor, truth: Tensor) -> None:
        assert self.count is not None, "begin comes first"
        extra = max(object_ids(predicted), default=0)
        if extra > self.count and self.protocol.extra_ids == "error":
            raise ValueError(
                f"frame {frame} of {self.video} has predicted id {extra}, the truth has 1..{self.count}; "
                "remove it or use a protocol that ignores extra ids"
            )
        ids = tuple(range(1, self.count + 1))
        self._values.append(paired_frame_jf(predicted, truth, ids, void=self.protocol.void))

    def _update_pairs(self, predicted: Tensor, truth: Tensor) -> None:
        """Every segment against every object of this frame; the last row and column stand for absent ones."""
        segments, objects = object_ids(predicted), object_ids(truth)
        limit = self.protocol.max_proposals
        if limit is not None and max(segments, default=0) > limit:
            raise ValueError(
                f"{self.video} has predicted id {max(segments)}, "
                f"{self.protocol.name} allows {limit} proposals"
            )
        absent = _absent(segments, objects)
        self._predicted.append(segments)
        self._true.append(objects)
        self._values.append(
            frame_jf(
                predicted,
                truth,
                predicted_ids=[*segments, absent],
                true_ids=[*objects, absent],
                void=self.protocol.void,
            )
        )

    def _paired(self) -> tuple[list[int], Tensor, Tensor]:
        """Objects in rising order, with (N, T) J and F."""
        if self.protocol.objects == "any-frame":
            objects = sorted(set().union(*self._true))
            j, f = (self._dense(objects, objects, part).diagonal().T for part in (0, 1))
            return objects, j, f
        j = torch.stack([values.j for values in self._values], dim=1)  # T x (N,) -> (N, T)
        f = torch.stack([values.f for values in self._values], dim=1)
        return list(range(1, len(j) + 1)), j, f

    def _matched(self) -> tuple[list[int], Tensor, Tensor]:
        """Objects in the order of their proposals, as the official tool lists them, with (N, T) J and F."""
        if self.protocol.objects == "first-frame":
            objects = list(range(1, (self.count or 0) + 1))
        else:
            objects = sorted(set().union(*self._true))
        if not objects:
            return [], torch.empty(0, len(self.frames)), torch.empty(0, len(self.frames))
        segments = list(range(1, max((max(ids, default=0) for ids in self._predicted), default=0) + 1))
        segments += [VOID] * (len(objects) - len(segments))  # 255 never occurs: padded with empty proposals
        j, f = (self._dense(segments, objects, part) for part in (0, 1))
        matching = match_proposals(j, f)
        chosen = (matching.proposals, matching.objects)
        return [objects[place] for place in matching.objects], j[chosen], f[chosen]

    def _dense(self, segments: list[int], objects: list[int], part: int) -> Tensor:
        """(Q, N, T) values of all pairs; ids that a frame lacks read its row or column of absent ones."""
        frames = []
        for values, here, there in zip(self._values, self._predicted, self._true, strict=True):
            rows = [here.index(identity) if identity in here else len(here) for identity in segments]
            columns = [there.index(identity) if identity in there else len(there) for identity in objects]
            frames.append(values[part][rows][:, columns])
        return torch.stack(frames, dim=2)


def _absent(segments: tuple[int, ...], objects: tuple[int, ...]) -> int:
    """An id between 1 and 254 that neither side uses; the maps hold at most 254 of them."""
    used = {*segments, *objects}
    return next((identity for identity in range(VOID - 1, 0, -1) if identity not in used), VOID)


class SegmentationScorer:
    """ARI, FG-ARI, mBO and matched mIoU of one video, over its frames and as one long image.

    Frames that are void everywhere do not count. The image metrics weigh as many samples as counted.

    Args:
        video: its name.
    """

    def __init__(self, video: str) -> None:
        self.video = video
        self._total: Tensor | None = None  # (255, 256) int64
        self._frames: dict[str, list[float]] = {}

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Counts one frame: two (H, W) uint8 label maps."""
        table = full_contingency(predicted, truth).cpu()
        self._total = table if self._total is None else self._total + table
        for name, value in segmentation_metrics(compact(table)).items():
            if not math.isnan(value):
                self._frames.setdefault(name, []).append(value)

    def finish(self) -> list[Score]:
        """The video's scores, `video/…` and `image/…`; a metric that nothing was counted for is left out."""
        if self._total is None:
            return []
        values = segmentation_metrics(compact(self._total))
        scores = [
            Score(self.video, None, f"video/{name}", value)
            for name, value in values.items()
            if not math.isnan(value)
        ]
        for name, samples in self._frames.items():
            scores.append(
                Score(self.video, None, f"image/{name}", math.fsum(samples) / len(samples), len(samples))
            )
        return scores


def segmentation_metrics(table: Tensor) -> dict[str, float]:
    """Every metric that a contingency table gives.

    Args:
        table: (C, K) counts, row 0 the background.

    Returns:
        fg_ari, ari, mbo, miou; NaN where nothing is to be scored.
    """
    if not bool(table.any()):
        return dict.fromkeys(("fg_ari", "ari", "mbo", "miou"), math.nan)
    return {
        "fg_ari": adjusted_rand_index(table[1:]),
        "ari": adjusted_rand_index(table),
        "mbo": best_overlap(table),
        "miou": matched_overlap(table),
    }


def scored_frames(items: Iterable[Item], protocol: EvalProtocol) -> Iterator[tuple[Item, bool]]:
    """Marks the frames that a protocol scores, one frame ahead so that the last one is known as the last.

    Args:
        items: frames in order, of any kind and number.
        protocol: says whether the first and the last are skipped.

    Yields:
        Each item, whether it is scored.
    """
    first = True
    waiting: list[Item] = []
    for item in items:
        if waiting:
            yield waiting.pop(), not (first and protocol.skip_first)
            first = False
        waiting.append(item)
    if waiting:
        skipped = protocol.skip_last or (first and protocol.skip_first)
        yield waiting.pop(), not skipped
