"""Evaluation: videos to label PNGs, and live labels or label PNGs to a report. One frame in memory at a
time."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vosssl.clip import Frame
from vosssl.data.files import path_inside
from vosssl.data.io import write_labels
from vosssl.data.prediction_folders import require_ids
from vosssl.data.prediction_set import object_masks, some
from vosssl.data.predictions import open_predictions
from vosssl.data.video import FirstFrames, Video
from vosssl.data.video_truth import VideoTruth
from vosssl.engine.file_scoring import evaluate
from vosssl.engine.object_frames import scored_frames_of
from vosssl.engine.prompting import FirstMasks, can_take_late_objects, gives_late_objects
from vosssl.engine.protocol import DISCOVERY, EvalProtocol, load_protocol
from vosssl.engine.report import Report
from vosssl.engine.score_cache import SequenceScores
from vosssl.engine.sequence_scoring import (
    TOGETHER,
    SequenceScorer,
    build_report,
    require_followable,
    require_scores,
)
from vosssl.propagation.segmenter import VideoSegmenter

__all__ = [
    "LabelVideo",
    "Predicted",
    "Stopwatch",
    "evaluate",
    "evaluate_discovery",
    "evaluate_lock_on",
    "follow",
    "follow_protocol",
    "predict",
    "score",
]

log = logging.getLogger(__name__)

LabelVideo = Callable[[Video], Iterable[tuple[Frame, Tensor]]]  # frames in order, each with (H, W) labels


class Predicted(NamedTuple):
    """What `predict` did: videos written and skipped, frames, and the seconds spent segmenting and
    decoding."""

    videos: int
    skipped: int
    frames: int
    seconds: float


@dataclass
class Stopwatch:
    """Times the making of labels, decoding included, and nothing else."""

    frames: int = 0
    seconds: float = 0.0

    def over(self, labelled: Iterable[tuple[Frame, Tensor]]) -> Iterator[tuple[Frame, Tensor]]:
        """Passes frames through and counts them."""
        iterator = iter(labelled)
        while True:
            start = time.perf_counter()
            item = next(iterator, None)
            self.seconds += time.perf_counter() - start
            if item is None:
                return
            self.frames += 1
            yield item

    @property
    def facts(self) -> dict[str, Any]:
        """For a report."""
        rate = self.frames / self.seconds if self.seconds else None
        return {"frames": self.frames, "seconds": self.seconds, "frames_per_second": rate}


def follow(
    segmenter: VideoSegmenter, *, prompt_first: bool = False, prompt_late: bool = False, merge: bool = False
) -> LabelVideo:
    """Makes a segmenter a function from videos to labels.

    Args:
        segmenter: any method; reset before each video.
        prompt_first: give the labels of the first labelled frame as the prompt; frames before it are
            background.
        prompt_late: with it, give objects that come later too, each in the first frame whose labels show it.
        merge: the prompt's values above 0, 255 included, are one object.

    Returns:
        A generator function; it raises ValueError at the end of a video that has no labels for the prompt.
    """
    late = prompt_first and prompt_late and can_take_late_objects(segmenter)

    def label(video: Video) -> Iterator[tuple[Frame, Tensor]]:
        segmenter.reset()
        prompts = FirstMasks(late=late, merge=merge)
        for frame in video:
            yield (
                frame,
                prompts.step(segmenter, frame) if prompt_first else segmenter.step(frame.image),
            )
        if prompt_first and not prompts.has_labels:
            raise ValueError(
                f"no frame of {video.name} has labels; the first frame's are needed as the prompt"
            )

    return label


def follow_protocol(segmenter: VideoSegmenter, protocol: EvalProtocol) -> LabelVideo:
    """`follow` with the first masks as prompt, and those of late objects where the protocol counts them."""
    return follow(
        segmenter,
        prompt_first=True,
        prompt_late=gives_late_objects(protocol),
        merge=protocol.merge_truth,
    )


def predict(
    label_video: LabelVideo | VideoSegmenter,
    videos: Iterable[Video],
    out_dir: str | Path,
    *,
    progress: bool = True,
) -> Predicted:
    """Writes a folder of label PNGs for each video; videos that are there already are skipped.

    A folder gets its name when its last frame is written: an interrupted run leaves no half of a video
    and goes on where it stopped.

    Args:
        label_video: a segmenter (discovery), or `follow(segmenter, prompt_first=True)`, or any such function.
        videos: where frames, and labels for the prompt, come from.
        out_dir: gets `<video>/<frame>.png`.
        progress: show a bar.

    Returns:
        What was done.

    Raises:
        ValueError: a video or frame whose name leads out of its folder.
    """
    label_video = _as_function(label_video)
    watch = Stopwatch()
    done = skipped = 0
    for video in _with_bar(videos, "predict", progress=progress):
        folder = path_inside(out_dir, video.name)
        if folder.is_dir():
            skipped += 1
            continue
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for frame, labels in watch.over(label_video(video)):
            write_labels(path_inside(partial, f"{frame.name}.png"), labels)
        partial.rename(folder)
        done += 1
    return Predicted(done, skipped, watch.frames, watch.seconds)


def evaluate_discovery(
    label_video: LabelVideo | VideoSegmenter,
    videos: Iterable[Video],
    *,
    protocol: EvalProtocol = DISCOVERY,
    frames: int | None = None,
    progress: bool = True,
) -> Report:
    """Scores discovered objects in one pass, nothing written; the report is that of `predict` and `score`.

    Args:
        label_video: a segmenter, or a function from videos to labels such as a floor. A segmenter that cannot
            start without the first frame's labels (a conditional slot network) gets them.
        videos: with truth on some frames; the other frames are segmented and not scored.
        protocol: what is compared; the default's metrics are ARI, FG-ARI, mBO, mIoU (video and image), and J
            and F after matching.
        frames: only the first so many frames of each video.
        progress: show a bar.

    Returns:
        The report. A video without any truth, or too short for the protocol, is left out of the means, with
        a warning and in the fact `incomplete`.

    Raises:
        ValueError: a protocol that needs files, see `require_followable`; labels that it does not allow, or
            nothing to score in videos that have truth.
    """
    return _evaluate_live(_as_function(label_video), videos, protocol, frames=frames, progress=progress)


def evaluate_lock_on(
    segmenter: VideoSegmenter,
    videos: Iterable[Video],
    *,
    protocol: str | Path | EvalProtocol = "davis17-val",
    frames: int | None = None,
    progress: bool = True,
) -> Report:
    """Scores objects that were given, nothing written; see `evaluate_discovery`.

    Each is given in the first frame that shows it; under protocols that count the objects of the first frame
    only (DAVIS), no others are.

    Args:
        segmenter: any method that takes masks.
        videos: with truth.
        protocol: what is compared; `semi-supervised`.
        frames: only the first so many frames of each video.
        progress: show a bar.

    Returns:
        The report.

    Raises:
        ValueError: a protocol without a prompt, or as `evaluate_discovery` says.
    """
    protocol = load_protocol(protocol)
    if protocol.prompt != "first-frame":
        raise ValueError(f"{protocol.name} gives no prompt; use evaluate_discovery")
    videos = list(videos)
    bare = next((video.name for video in videos if video.labelled is None), None)
    if bare is not None:
        raise ValueError(f"no frame of {bare} has labels; the first frame's are needed as the prompt")
    label_video = follow_protocol(segmenter, protocol)
    return _evaluate_live(label_video, videos, protocol, frames=frames, progress=progress)


def score(
    predictions: str | Path,
    videos: Iterable[Video],
    *,
    protocol: str | Path | EvalProtocol = "davis17-val",
    progress: bool = True,
) -> Report:
    """Scores a folder of label PNGs against videos that carry their truth.

    Args:
        predictions: `<video>/<frame>.png`, from any program.
        videos: with truth.
        protocol: what is compared.
        progress: show a bar.

    Returns:
        The report.

    Raises:
        FileNotFoundError, ValueError: see `evaluate`; a video without truth, or a protocol that asks for more
            than videos carry.
    """
    protocol = load_protocol(protocol)
    truth = VideoTruth(list(videos))
    require_followable(protocol, truth)
    return evaluate(open_predictions(predictions), truth, protocol, progress=progress)


def _evaluate_live(
    label_video: LabelVideo,
    videos: Iterable[Video],
    protocol: EvalProtocol,
    *,
    frames: int | None,
    progress: bool,
) -> Report:
    """What `evaluate` does with files, with labels as they are made."""
    names: list[str] = []
    sequences: SequenceScores = []
    watch = Stopwatch()
    has_truth = False
    for video in _with_bar(videos, "evaluate", progress=progress):
        known = video if frames is None else FirstFrames(video, frames)
        names.append(video.name)
        if known.labelled is None:
            log.warning("no frame of %s has labels; it is not scored", video.name)
            sequences.append(([], []))
            continue
        has_truth = True
        labelled = islice(watch.over(label_video(video)), frames)
        sequences += _sequence_scores(labelled, VideoTruth([known]), protocol)
    report = build_report(protocol, names, sequences)
    if has_truth:
        require_scores(report, "these videos")
    return replace(report, facts={**report.facts, **watch.facts})


def _sequence_scores(
    labelled: Iterable[tuple[Frame, Tensor]], truth: VideoTruth, protocol: EvalProtocol
) -> SequenceScores:
    """Scores the labels of the one video of `truth`, a few frames at a time."""
    require_followable(protocol, truth)
    (name,) = truth.sequences
    wanted = scored_frames_of(truth, name, protocol)
    scorer = SequenceScorer(truth, name, [protocol])
    waiting: list[_Pair] = []
    has_begun = False
    for frame, labels in labelled:
        if frame.labels is None:
            continue
        if not has_begun:
            scorer.begin(frame.labels)
            has_begun = True
        if frame.name in wanted:
            wanted.discard(frame.name)
            waiting.append(_pair(name, frame.name, labels, frame.labels))
        if len(waiting) == TOGETHER:
            _update(scorer, waiting)
    _update(scorer, waiting)
    if wanted:
        raise ValueError(f"{len(wanted)} scored frames of {name} got no labels: {some(sorted(wanted))}")
    return scorer.finish(truth)


class _Pair(NamedTuple):
    """A frame's name, its labels, and its truth, (H, W) uint8."""

    frame: str
    predicted: Tensor
    truth: Tensor


def _pair(video: str, frame: str, predicted: Tensor, truth: Tensor) -> _Pair:
    """Labels that a prediction file would not be allowed to hold are refused here too."""
    if predicted.shape != truth.shape:
        raise ValueError(
            f"labels of frame {frame} of {video} are {tuple(predicted.shape)}, its truth is "
            f"{tuple(truth.shape)}; give labels at the size of the frames"
        )
    predicted = predicted.to(truth.device)
    require_ids(predicted, f"of frame {frame} of {video}")
    return _Pair(frame, predicted, truth)


@torch.inference_mode()
def _update(scorer: SequenceScorer, waiting: list[_Pair]) -> None:
    """Scores the frames that wait, all at once."""
    if not waiting:
        return
    names, predicted, truth = zip(*waiting, strict=True)
    if scorer.needs_labels:
        scorer.update(names, predicted, truth, scored=[(True,)] * len(waiting))
    if scorer.needs_masks:
        for name, found, true in waiting:
            scorer.update_masks(name, object_masks(found), object_masks(true), scored=(True,))
    waiting.clear()


def _as_function(label_video: LabelVideo | VideoSegmenter) -> LabelVideo:
    if not isinstance(label_video, VideoSegmenter):
        return label_video
    return follow(label_video, prompt_first=label_video.needs_prompt)


def _with_bar(videos: Iterable[Video], what: str, *, progress: bool) -> Iterator[Video]:
    total = len(videos) if isinstance(videos, Sequence) else None
    yield from tqdm(videos, desc=what, unit="video", total=total, disable=not progress, leave=False)
