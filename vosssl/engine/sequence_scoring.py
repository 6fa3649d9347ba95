"""SequenceScorer: all that protocols measure of one sequence, of label files and of live labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from vosssl.data.prediction_set import ObjectMasks, Predictions, some
from vosssl.data.video_truth import VideoTruth
from vosssl.engine.categories import object_groups
from vosssl.engine.object_frames import object_frames
from vosssl.engine.object_jf_scoring import ObjectJFScorer
from vosssl.engine.object_scoring import ObjectScorer
from vosssl.engine.protocol import EvalProtocol
from vosssl.engine.report import Report
from vosssl.engine.score_cache import SequenceScores
from vosssl.engine.scoring import JFScorer, SegmentationScorer
from vosssl.metrics.outlines import contingency_tables, trace
from vosssl.ops.resize import resize_labels

log = logging.getLogger(__name__)

TOGETHER = 8  # frames looked at in one pass: more do not fit a core's cache, fewer cost a call each


class _Scorers(NamedTuple):
    """What one protocol measures of a sequence."""

    regions: JFScorer | None
    segments: SegmentationScorer | None
    objects: ObjectScorer | None
    object_jf: ObjectJFScorer | None


class SequenceScorer:
    """What several protocols measure of one sequence; fed a few frames at a time, it keeps none.

    Args:
        truth: the set that the sequence is of: it knows the frames of each object.
        sequence: its name.
        protocols: what is compared.
    """

    def __init__(self, truth: Predictions, sequence: str, protocols: Sequence[EvalProtocol]) -> None:
        self.sequence = sequence
        self.protocols = tuple(protocols)
        self._scorers = [_scorers(truth, sequence, protocol) for protocol in protocols]

    @property
    def needs_beginning(self) -> bool:
        """Whether any protocol asks for the objects of the first frame."""
        return any(one.regions is not None for one in self._scorers)

    @property
    def needs_labels(self) -> bool:
        """Whether any protocol scores label maps."""
        return any(protocol.frames == "video" for protocol in self.protocols)

    @property
    def needs_masks(self) -> bool:
        """Whether any protocol scores objects one by one."""
        return any(protocol.frames != "video" for protocol in self.protocols)

    def begin(self, truth: Tensor) -> None:
        """Takes note of the objects in the first frame's truth, (H, W) uint8, scored or not."""
        for one in self._scorers:
            if one.regions is not None:
                one.regions.begin(truth)

    def update(
        self,
        names: Sequence[str],
        predicted: Sequence[Tensor],
        truth: Sequence[Tensor],
        *,
        scored: Sequence[Sequence[bool]],
    ) -> None:
        """Scores the label maps of T frames.

        Args:
            names: T names.
            predicted: T (H, W) uint8 ids.
            truth: the same, 255 is void.
            scored: for each frame, whether each protocol scores it.

        Raises:
            ValueError: maps of several sizes, or ids that a protocol does not allow.
        """
        if any(one.shape != truth[0].shape for one in truth):
            raise ValueError(f"true labels of {self.sequence} are not all of one size")
        traced = {}
        for place, (protocol, (regions, segments, _, object_jf)) in enumerate(
            zip(self.protocols, self._scorers, strict=True)
        ):
            if regions is None and segments is None and object_jf is None:
                continue
            shape = protocol.crop, protocol.size
            if shape not in traced:
                pair = [[_shaped(one, protocol) for one in side] for side in (predicted, truth)]
                traced[shape] = trace(pair[0], pair[1]), pair
            outlines, pair = traced[shape]
            here = [frame[place] for frame in scored]
            if regions is not None:
                regions.update_all(names, outlines, scored=here)
            if segments is not None:
                for table, wanted in zip(contingency_tables(outlines, pair[0][0].numel()), here, strict=True):
                    if wanted:
                        segments.update_table(table)
            if object_jf is not None:
                for found, true, wanted in zip(*pair, here, strict=True):
                    if wanted:
                        object_jf.update(found, true)

    def update_masks(
        self, name: str, predicted: ObjectMasks, truth: ObjectMasks, *, scored: Sequence[bool]
    ) -> None:
        """Scores the objects of one frame one by one, under the protocols that ask for that."""
        for one, wanted in zip(self._scorers, scored, strict=True):
            if one.objects is not None and wanted:
                one.objects.update((name,), (predicted,), (truth,))

    def absorb(self, later: SequenceScorer) -> None:
        """Appends what another scorer found in later frames; this one's have to end with a whole chunk."""
        for before, after in zip(self._scorers, later._scorers, strict=True):
            if before.regions is not None and after.regions is not None:
                before.regions.absorb(after.regions)
            if before.segments is not None and after.segments is not None:
                before.segments.absorb(after.segments)
            if before.objects is not None and after.objects is not None:
                before.objects.absorb(after.objects)
            if before.object_jf is not None and after.object_jf is not None:
                before.object_jf.absorb(after.object_jf)

    def finish(self, truth: Predictions) -> SequenceScores:
        """Scores and curves, one pair per protocol; both empty where no frame or no object is scored.

        Args:
            truth: the same set; its folder names the objects' categories where a protocol splits by them.

        Raises:
            FileNotFoundError, ValueError: see `object_groups`, and ids that a protocol does not allow.
        """
        results = []
        for protocol, one in zip(self.protocols, self._scorers, strict=True):
            groups = object_groups(truth.path, self.sequence) if protocol.split == "seen-unseen" else None
            scores, curves = one.objects.finish() if one.objects is not None else ([], [])
            if one.regions is not None and one.regions.scored:
                scores, curves = one.regions.finish(groups=groups)
            parts = (one.segments, one.object_jf)
            whole = [score for part in parts if part is not None for score in part.finish()]
            results.append(([*whole, *scores], curves))
        return results


def require_followable(protocol: EvalProtocol, truth: VideoTruth) -> None:
    """Refuses a protocol that asks for more than the label maps of videos hold.

    Raises:
        ValueError: one that needs a file per object, or lists that lie beside label files; says what to do.
    """
    if protocol.frames == "object":
        lacking = "each object's own files"
    elif protocol.frames == "listed" and not truth.on_disk:
        lacking = "the *_meta.json beside label files"
    elif protocol.split != "none" and not truth.on_disk:
        lacking = "the meta.json beside label files"
    else:
        return
    raise ValueError(
        f"protocol {protocol.name} needs {lacking}, which these videos do not carry: write label files with "
        f"mode=predict, then python eval/score.py PREDICTIONS TRUTH --protocol {protocol.name}"
    )


def build_report(protocol: EvalProtocol, names: Sequence[str], sequences: SequenceScores) -> Report:
    """The report of a set.

    Args:
        protocol: what was compared.
        names: of all sequences of the set.
        sequences: the scores and curves of each; empty ones are left out, and named with a warning and in
            the fact `incomplete`.

    Returns:
        The report.
    """
    scores = [score for one, _ in sequences for score in one]
    curves = [curve for _, one in sequences for curve in one]
    facts = {"compare_with": protocol.compare_with, "source": protocol.source}
    empty = [name for name, (one, _) in zip(names, sequences, strict=True) if not one]
    gaps = []
    if protocol.videos and len(sequences) != protocol.videos:
        gaps.append(f"{len(sequences)} of the {protocol.videos} sequences of {protocol.name}")
    if empty:
        gaps.append(f"nothing is scored in {some(empty)}: too short, or no object in a scored frame")
    if gaps:
        facts["incomplete"] = "; ".join(gaps)
    if empty and scores:
        log.warning("%s leaves out of its means: %s (too short, or no object)", protocol.name, some(empty))
    return Report(scores, protocol=protocol.name, curves=curves, facts=facts)


def require_scores(report: Report, truth: str) -> None:
    """Refuses a report without any score.

    Raises:
        ValueError: says why that may be; `truth` is where the true labels lie.
    """
    if not report.scores:
        raise ValueError(
            f"nothing is scored under {report.protocol}: no object of ids 1..254 in {truth} "
            "(0 and 255 only, as in DAVIS 2016? then use davis16-val, or leave this protocol out), or "
            "every sequence is too short for it"
        )


def _scorers(truth: Predictions, sequence: str, protocol: EvalProtocol) -> _Scorers:
    one_by_one = protocol.scores_whole_masks
    return _Scorers(
        JFScorer(sequence, protocol) if protocol.region_metrics and not one_by_one else None,
        SegmentationScorer(sequence, protocol) if protocol.segmentation_metrics else None,
        ObjectScorer(sequence, protocol, frames=object_frames(truth, sequence, protocol))
        if one_by_one
        else None,
        ObjectJFScorer(sequence, protocol) if protocol.object_jf_metrics else None,
    )


def _shaped(labels: Tensor, protocol: EvalProtocol) -> Tensor:
    """(H, W) labels, cropped and resized as the protocol says."""
    if protocol.crop == "center":
        labels = _central_square(labels)
    return labels if protocol.size is None else resize_labels(labels, protocol.size)


def _central_square(labels: Tensor) -> Tensor:
    """The largest central square of (H, W) labels, rounded as by torchvision, which takes 2 s to import."""
    side = min(labels.shape)
    top, left = (round((length - side) / 2) for length in labels.shape)
    return labels[top : top + side, left : left + side]
