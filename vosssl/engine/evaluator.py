"""Evaluation: videos to label PNGs, and live labels or label PNGs to a report. One frame in memory at a
time."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vosssl.clip import Frame
from vosssl.data.files import path_inside
from vosssl.data.io import read_labels, write_labels
from vosssl.data.video import Video
from vosssl.engine.file_scoring import TOGETHER, evaluate
from vosssl.engine.protocol import DISCOVERY, EvalProtocol, load_protocol
from vosssl.engine.report import Report
from vosssl.engine.scoring import Curve, JFScorer, SegmentationScorer, scored_frames
from vosssl.metrics.outlines import trace
from vosssl.metrics.score import Score
from vosssl.propagation.segmenter import VideoSegmenter

__all__ = [
    "LabelVideo",
    "Predicted",
    "Stopwatch",
    "evaluate",
    "evaluate_discovery",
    "evaluate_lock_on",
    "follow",
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


def follow(segmenter: VideoSegmenter, *, prompt_first: bool = False, merge: bool = False) -> LabelVideo:
    """Makes a segmenter a function from videos to labels.

    Args:
        segmenter: any method; reset before each video.
        prompt_first: give the labels of the first labelled frame as the prompt.
        merge: the prompt's values above 0, 255 included, are one object.

    Returns:
        A generator function; it raises ValueError at the end of a video that has no labels for the prompt.
    """

    def label(video: Video) -> Iterator[tuple[Frame, Tensor]]:
        segmenter.reset()
        waiting = prompt_first
        for frame in video:
            prompt = frame.labels if waiting else None
            waiting = waiting and prompt is None
            yield (
                frame,
                segmenter.step(frame.image, prompt.clamp(max=1) if merge and prompt is not None else prompt),
            )
        if waiting:
            raise ValueError(
                f"no frame of {video.name} has labels; the first frame's are needed as the prompt"
            )

    return label


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
    """Scores discovered objects in one pass: ARI, FG-ARI, mBO, mIoU (video and image), J and F after
    matching.

    Args:
        label_video: a segmenter, or a function from videos to labels such as a floor. A segmenter that cannot
            start without the first frame's labels (a conditional slot network) gets them.
        videos: with truth on some frames; the other frames are segmented and not scored.
        protocol: of J and F; matches proposals to objects.
        frames: only the first so many frames of each video.
        progress: show a bar.

    Returns:
        The report; a video without any truth is left out, with a warning.
    """
    label_video = _as_function(label_video)
    scores: list[Score] = []
    curves: list[Curve] = []
    watch = Stopwatch()
    for video in _with_bar(videos, "evaluate", progress=progress):
        segmentation, matching = SegmentationScorer(video.name), JFScorer(video.name, protocol)
        labelled = islice(watch.over(label_video(video)), frames)
        truthful = ((frame, labels) for frame, labels in labelled if frame.labels is not None)
        for (frame, labels), scored in scored_frames(truthful, protocol):
            assert frame.labels is not None
            labels = labels.to(frame.labels.device)
            if matching.count is None:
                matching.begin(frame.labels)
            if scored:
                matching.update(frame.name, labels, frame.labels)
                segmentation.update(labels, frame.labels)
        if matching.count is None:
            log.warning("no frame of %s has labels; it is not scored", video.name)
            continue
        video_scores, video_curves = matching.finish()
        scores += [*segmentation.finish(), *video_scores]
        curves += video_curves
    return Report(scores, protocol=protocol.name, curves=curves, facts=watch.facts)


def evaluate_lock_on(
    segmenter: VideoSegmenter,
    videos: Iterable[Video],
    *,
    protocol: str | Path | EvalProtocol = "davis17-val",
    frames: int | None = None,
    progress: bool = True,
) -> Report:
    """Scores objects that were given in the first frame: J and F, nothing written.

    Args:
        segmenter: any method that takes masks.
        videos: with truth.
        protocol: of J and F; `semi-supervised`.
        frames: only the first so many frames of each video.
        progress: show a bar.

    Returns:
        The report.

    Raises:
        ValueError: a protocol without a prompt, or a video without labels.
    """
    protocol = load_protocol(protocol)
    if protocol.prompt != "first-frame":
        raise ValueError(f"{protocol.name} gives no prompt; use evaluate_discovery")
    watch = Stopwatch()
    label_video = follow(segmenter, prompt_first=True, merge=protocol.merge_truth)

    def sequences() -> Iterator[tuple[str, Iterator[_Pair]]]:
        for video in _with_bar(videos, "evaluate", progress=progress):
            pairs = (
                _Pair(frame.name, labels.to(frame.labels.device), frame.labels)
                for frame, labels in islice(watch.over(label_video(video)), frames)
                if frame.labels is not None
            )
            yield video.name, pairs

    return _score(sequences(), protocol, watch=watch)


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
        protocol: of J and F.
        progress: show a bar.

    Returns:
        The report.

    Raises:
        FileNotFoundError: a scored frame has no prediction.
        ValueError: a prediction of another size.
    """
    root = Path(predictions)

    def sequences() -> Iterator[tuple[str, Iterator[_Pair]]]:
        for video in _with_bar(videos, "score", progress=progress):
            pairs = (_Pair(f.name, root / video.name, f.labels) for f in video if f.labels is not None)
            yield video.name, pairs

    return _score(sequences(), load_protocol(protocol))


class _Pair(NamedTuple):
    """A frame's name, its labels or the folder that holds them, and its truth."""

    frame: str
    predicted: Tensor | Path
    truth: Tensor


def _score(
    sequences: Iterable[tuple[str, Iterator[_Pair]]],
    protocol: EvalProtocol,
    *,
    watch: Stopwatch | None = None,
) -> Report:
    """J and F of sequences of pairs. Label files of frames that are not scored are never opened."""
    scores: list[Score] = []
    curves: list[Curve] = []
    for name, pairs in sequences:
        scorer = JFScorer(name, protocol)
        waiting: list[tuple[str, Tensor, Tensor]] = []
        for pair, scored in scored_frames(pairs, protocol):
            if scorer.count is None:
                scorer.begin(pair.truth)
            if scored:
                waiting.append((pair.frame, _read(pair), pair.truth))
            if len(waiting) == TOGETHER:
                _update(scorer, waiting)
        _update(scorer, waiting)
        video_scores, video_curves = scorer.finish()
        scores += video_scores
        curves += video_curves
    return Report(scores, protocol=protocol.name, curves=curves, facts=watch.facts if watch else {})


def _update(scorer: JFScorer, waiting: list[tuple[str, Tensor, Tensor]]) -> None:
    """Scores the frames that wait, all at once."""
    if waiting:
        names, predicted, truth = zip(*waiting, strict=True)
        scorer.update_all(names, trace(torch.stack(predicted), torch.stack(truth)))
        waiting.clear()


def _read(pair: _Pair) -> Tensor:
    if isinstance(pair.predicted, Tensor):
        return pair.predicted
    path = pair.predicted / f"{pair.frame}.png"
    if not path.is_file():
        where = "it has no folder" if not path.parent.is_dir() else f"{path.parent} has other frames"
        raise FileNotFoundError(f"no prediction {path} for a scored frame: {where}")
    labels = read_labels(path)
    if labels.shape != pair.truth.shape:
        raise ValueError(
            f"prediction {path} is {tuple(labels.shape)}, its truth is {tuple(pair.truth.shape)}; "
            "resize it first"
        )
    return labels


def _as_function(label_video: LabelVideo | VideoSegmenter) -> LabelVideo:
    if not isinstance(label_video, VideoSegmenter):
        return label_video
    return follow(label_video, prompt_first=label_video.needs_prompt)


def _with_bar(videos: Iterable[Video], what: str, *, progress: bool) -> Iterator[Video]:
    total = len(videos) if isinstance(videos, Sequence) else None
    yield from tqdm(videos, desc=what, unit="video", total=total, disable=not progress, leave=False)
