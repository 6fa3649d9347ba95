"""Scorers: fed one frame at a time, they keep tables and per-frame values, never frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.engine.protocol import DISCOVERY, EvalProtocol
from vosssl.metrics.ari import adjusted_rand_index
from vosssl.metrics.contingency import compact, full_contingency
from vosssl.metrics.outlines import Outlines, present_ids, trace
from vosssl.metrics.overlap import best_overlap, matched_overlap
from vosssl.metrics.region_boundary import FrameJF, match_proposals, paired_jf, pairwise_jf, statistics
from vosssl.metrics.score import Score
from vosssl.ops.masks import object_ids


class Curve(NamedTuple):
    """Values of one object over the scored frames."""

    video: str
    object: int
    metric: str
    frames: tuple[str, ...]
    values: tuple[float, ...]


class _Part(NamedTuple):
    """J and F of some frames: (N, T) of equal ids, or (Q, N, T) with a last row and column of absent ids."""

    frames: tuple[str, ...]
    predicted: list[tuple[int, ...]]  # ids in each frame
    true: list[tuple[int, ...]]
    segments: list[int]  # what the rows are of
    objects: list[int]
    values: FrameJF


class JFScorer:
    """J and F of one video under a protocol.

    Args:
        video: its name.
        protocol: what is compared.
    """

    def __init__(self, video: str, protocol: EvalProtocol) -> None:
        if protocol.frames != "video":
            raise ValueError(
                f"{protocol.name} scores each object over frames of its own, which label maps do not tell; "
                "score files with evaluate(), or use vos-benchmark"
            )
        self.video = video
        self.protocol = protocol
        self.count: int | None = None  # n, the largest id of the first frame
        self._first: tuple[int, ...] = ()  # its ids
        self._parts: list[_Part] = []

    def begin(self, truth: Tensor) -> None:
        """Takes note of the objects in the first frame's truth, (H, W) uint8, scored or not."""
        ids = object_ids(truth.clamp(max=1) if self.protocol.merge_truth else truth)
        self.count = max(ids, default=0)
        self._first = tuple(ids)

    @property
    def scored(self) -> bool:
        """Whether any frame was scored."""
        return any(part.frames for part in self._parts)

    def update(self, frame: str, predicted: Tensor, truth: Tensor) -> None:
        """Scores one frame: its name and two (H, W) uint8 label maps; see `update_all`."""
        self.update_all((frame,), trace(predicted[None], truth[None]))

    def update_all(
        self, frames: Sequence[str], outlines: Outlines, *, scored: Sequence[bool] | None = None
    ) -> None:
        """Scores T frames.

        Args:
            frames: T names.
            outlines: of their label maps, from `trace`.
            scored: T; None: all of them.

        Raises:
            ValueError: ids that the protocol does not allow.
        """
        protocol = self.protocol
        kept = [place for place in range(len(frames)) if scored is None or scored[place]]
        predicted = present_ids(outlines.predicted, outlines, merge=protocol.merge_predictions)
        true = present_ids(outlines.truth, outlines, merge=protocol.merge_truth)
        predicted, true = [predicted[place] for place in kept], [true[place] for place in kept]
        self._check_proposals(predicted)
        segments, objects = sorted(set().union(*predicted)), sorted(set().union(*true))
        options = {name: getattr(protocol, name) for name in ("void", "merge_predictions", "merge_truth")}
        if protocol.task == "semi-supervised":
            segments = objects = sorted({*segments, *objects})
            values = paired_jf(outlines, objects, **options) if objects else _nothing(outlines)
        else:
            absent = _absent(segments, objects)
            segments, objects = [*segments, absent], [*objects, absent]
            values = pairwise_jf(outlines, predicted_ids=segments, true_ids=objects, **options)
        names = tuple(frames[place] for place in kept)
        values = FrameJF(*(part[..., kept] for part in values))
        self._parts.append(_Part(names, predicted, true, segments, objects, values))

    def absorb(self, later: JFScorer) -> None:
        """Appends what another scorer found in later frames of this video."""
        if self.count is None:
            self.count, self._first = later.count, later._first
        self._parts += later._parts

    def finish(self, *, groups: Mapping[int, str] | None = None) -> tuple[list[Score], list[Curve]]:
        """Scores and curves of the video.

        Args:
            groups: a group of each object, such as `seen`, by which J and F are also listed.

        Returns:
            Per object J, F, their recall and decay; none when there is no object.

        Raises:
            ValueError: no frame was scored, or there are ids that the protocol does not allow.
        """
        frames = [name for part in self._parts for name in part.frames]
        if not frames:
            raise ValueError(
                f"no frame of {self.video} is scored under {self.protocol.name}: "
                "it is too short or has no truth"
            )
        self._check_extra()
        unknown = [] if groups is None else [one for one in self._objects() if one not in groups]
        if unknown:
            raise ValueError(f"objects {unknown} of {self.video} have no category in meta.json")
        matched = self.protocol.task == "unsupervised"
        objects, j, f = self._matched(self._objects()) if matched else self._paired(self._objects())
        scores, curves = [], []
        for place, identity in enumerate(objects):
            kept = self._counted(identity)
            if not kept:
                continue  # it appears in the last frame, and that one does not count
            object_scores, object_curves = score_object(
                self.video,
                identity,
                [frames[index] for index in kept],
                FrameJF(j[place, kept], f[place, kept]),
                group=None if groups is None else groups[identity],
                weight=len(kept) if self.protocol.average == "frames" else 1.0,
            )
            scores += object_scores
            curves += object_curves
        return scores, curves

    def _objects(self) -> list[int]:
        if self.protocol.objects == "first-frame":
            assert self.count is not None, "begin comes first"
            return list(range(1, self.count + 1))
        first = self._first if self.protocol.objects == "first-or-any" else ()
        return sorted(set(first).union(*(ids for part in self._parts for ids in part.true)))

    def _counted(self, identity: int) -> list[int]:
        """The scored frames that count for an object, as positions."""
        shown = [
            (identity in true, identity in predicted)
            for part in self._parts
            for predicted, true in zip(part.predicted, part.true, strict=True)
        ]
        start = self.protocol.first_counted(shown)
        if self.protocol.average == "objects":
            return list(range(start, len(shown)))
        return [place for place in range(start, len(shown)) if any(shown[place])]

    def _check_proposals(self, predicted: list[tuple[int, ...]]) -> None:
        limit = self.protocol.max_proposals
        largest = max((max(ids, default=0) for ids in predicted), default=0)
        if limit is not None and largest > limit:
            raise ValueError(
                f"{self.video} has predicted id {largest}, {self.protocol.name} allows {limit} proposals"
            )

    def _check_extra(self) -> None:
        protocol = self.protocol
        if (protocol.task, protocol.objects, protocol.extra_ids) != (
            "semi-supervised",
            "first-frame",
            "error",
        ):
            return
        assert self.count is not None, "begin comes first"
        for part in self._parts:
            for frame, ids in zip(part.frames, part.predicted, strict=True):
                if max(ids, default=0) > self.count:
                    raise ValueError(
                        f"frame {frame} of {self.video} has predicted id {max(ids)}, the truth has "
                        f"1..{self.count}; remove it or use a protocol that ignores extra ids"
                    )

    def _paired(self, objects: list[int]) -> tuple[list[int], Tensor, Tensor]:
        """Objects in rising order, with (N, T) J and F; 1 where neither side has one."""
        tables = []
        for which in (0, 1):
            columns = []
            for part in self._parts:
                values = torch.ones(len(objects), len(part.frames), dtype=torch.float64)
                for place, identity in enumerate(objects):
                    if identity in part.objects:
                        values[place] = part.values[which][part.objects.index(identity)]
                columns.append(values)
            tables.append(torch.cat(columns, dim=1))
        return objects, tables[0], tables[1]

    def _matched(self, objects: list[int]) -> tuple[list[int], Tensor, Tensor]:
        """Objects in the order of their proposals, as the official tool lists them, with (N, T) J and F."""
        if not objects:
            return [], torch.empty(0, 0), torch.empty(0, 0)
        used = (max(ids, default=0) for part in self._parts for ids in part.predicted)
        segments = list(range(1, max(used) + 1))
        segments += [VOID] * (len(objects) - len(segments))  # 255 never occurs: padded with empty proposals
        j, f = (self._dense(segments, objects, which) for which in (0, 1))
        matching = match_proposals(j, f)
        chosen = (matching.proposals, matching.objects)
        return [objects[place] for place in matching.objects], j[chosen], f[chosen]

    def _dense(self, segments: list[int], objects: list[int], which: int) -> Tensor:
        """(Q, N, T) values of all pairs; ids that some frames lack read the row or column of absent ones."""
        blocks = []
        for part in self._parts:
            rows, columns = (
                [known.index(identity) if identity in known else -1 for identity in wanted]
                for wanted, known in ((segments, part.segments), (objects, part.objects))
            )
            blocks.append(part.values[which][rows][:, columns])
        return torch.cat(blocks, dim=2)


def score_object(
    video: str,
    identity: int,
    frames: Sequence[str],
    values: FrameJF,
    *,
    group: str | None = None,
    weight: float = 1.0,
) -> tuple[list[Score], list[Curve]]:
    """Scores and curves of one object.

    Args:
        video: name of its sequence.
        identity: its id.
        frames: names of the T > 0 frames that count.
        values: (T,) J and F in them.
        group: by which J and F are also listed, such as `seen`.
        weight: of the object in the mean of a set.

    Returns:
        J, F, their recall and decay; a curve of each.
    """
    scores, curves = [], []
    for metric, column in (("J", values.j), ("F", values.f)):
        stats = statistics(column)
        named = [("", stats.mean), ("/recall", stats.recall), ("/decay", stats.decay)]
        named += [] if group is None else [(f"/{group}", stats.mean)]
        scores += [Score(video, identity, metric + suffix, value, weight) for suffix, value in named]
        curves.append(Curve(video, identity, metric, tuple(frames), tuple(column.tolist())))
    return scores, curves


def _nothing(outlines: Outlines) -> FrameJF:
    """J and F of no object."""
    return FrameJF(*(torch.empty(0, outlines.frames, dtype=torch.float64) for _ in range(2)))


def _absent(segments: list[int], objects: list[int]) -> int:
    """An id between 1 and 254 that neither side uses; the maps hold at most 254 of them."""
    used = {*segments, *objects}
    return next((identity for identity in range(VOID - 1, 0, -1) if identity not in used), VOID)


class SegmentationScorer:
    """ARI, FG-ARI, mBO and matched mIoU of one video, over its frames and as one long image.

    Frames that are void everywhere do not count. The image metrics weigh as many samples as counted, the
    video metrics as many chunks.

    Args:
        video: its name.
        protocol: chunks, background and empty frames.
    """

    def __init__(self, video: str, protocol: EvalProtocol = DISCOVERY) -> None:
        self.video = video
        self.protocol = protocol
        self._total: Tensor | None = None  # (255, 256) int64, of the present chunk
        self._frames = 0  # in it
        self._samples: dict[str, list[float]] = {}

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Counts one frame: two (H, W) uint8 label maps."""
        self.update_table(full_contingency(predicted, truth).cpu())

    def update_table(self, table: Tensor) -> None:
        """Counts one frame, given as its (255, 256) contingency table."""
        self._total = table if self._total is None else self._total + table
        self._frames += 1
        self._sample("image", table)
        if self._frames == self.protocol.chunk:
            self._sample("video", self._total)
            self._total, self._frames = None, 0

    def absorb(self, later: SegmentationScorer) -> None:
        """Appends what another scorer found in later frames; this one's have to end with a whole chunk."""
        for name, samples in later._samples.items():
            self._samples.setdefault(name, []).extend(samples)
        if later._total is not None:
            self._total = later._total if self._total is None else self._total + later._total
            self._frames += later._frames

    def finish(self) -> list[Score]:
        """The video's scores, `video/…` and `image/…`; a metric that nothing was counted for is left out."""
        if self._total is not None and self.protocol.chunk is None:
            self._sample("video", self._total)
            self._total = None
        wanted = self.protocol.metrics if self.protocol.segmentation_metrics else tuple(self._samples)
        order = sorted(self._samples.items(), key=lambda item: not item[0].startswith("video"))
        return [
            Score(self.video, None, name, math.fsum(samples) / len(samples), self._weight(name, len(samples)))
            for name, samples in order
            if name in wanted
        ]

    def _weight(self, name: str, samples: int) -> float:
        return 1.0 if name.startswith("video") and self.protocol.chunk is None else samples

    def _sample(self, scope: str, table: Tensor) -> None:
        values = segmentation_metrics(
            compact(table), background=self.protocol.background, skip_empty=self.protocol.skip_empty
        )
        for name, value in values.items():
            if not math.isnan(value):
                self._samples.setdefault(f"{scope}/{name}", []).append(value)


def segmentation_metrics(
    table: Tensor, *, background: bool = False, skip_empty: bool = False
) -> dict[str, float]:
    """Every metric that a contingency table gives.

    Args:
        table: (C, K) counts, row 0 the background.
        background: mBO and mIoU count it as an object.
        skip_empty: without any object there is no ARI; otherwise it is 1.

    Returns:
        fg_ari, ari, mbo, miou; NaN where nothing is to be scored.
    """
    if not bool(table.any()) or (skip_empty and not bool(table[1:].any())):
        return dict.fromkeys(("fg_ari", "ari", "mbo", "miou"), math.nan)
    return {
        "fg_ari": adjusted_rand_index(table[1:]),
        "ari": adjusted_rand_index(table),
        "mbo": best_overlap(table, ignore_background=not background),
        "miou": matched_overlap(table, ignore_background=not background),
    }
