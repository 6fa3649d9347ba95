"""Scoring of label files: several protocols in one pass over the frames, in several processes, with a cache.

Work is cut by frames, not by videos: processes get a few dozen frames each, and what they find is joined per
sequence, so that one long video keeps all of them busy.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import torch
from torch import Tensor
from tqdm import tqdm

from vosssl.data.io import read_labels
from vosssl.data.prediction_folders import LabelFolders
from vosssl.data.predictions import Kind, Predictions, open_predictions
from vosssl.engine.object_frames import scored_frames_of
from vosssl.engine.protocol import EvalProtocol, load_protocol
from vosssl.engine.report import Report
from vosssl.engine.score_cache import ScoreCache, SequenceScores
from vosssl.engine.sequence_scoring import TOGETHER, SequenceScorer, build_report, require_scores

log = logging.getLogger(__name__)

_ONCE = 31 << 20  # bytes, just below the largest array for which glibc changes its mind
UNIT = 48  # frames that a process takes at a time, a multiple of common chunks

Protocol = str | Path | EvalProtocol  # a name, a yaml file, or the thing itself
Protocols = list[Protocol] | tuple[Protocol, ...]


@overload
def evaluate(
    predictions: str | Path | Predictions,
    truth: str | Path | Predictions,
    protocol: Protocol = ...,
    *,
    sequences: Sequence[str] | None = ...,
    kind: Kind = ...,
    workers: int = ...,
    cache: str | Path | None = ...,
    resize: bool = ...,
    ignore_extra_frames: bool = ...,
    progress: bool = ...,
) -> Report: ...


@overload
def evaluate(
    predictions: str | Path | Predictions,
    truth: str | Path | Predictions,
    protocol: Protocols,
    *,
    sequences: Sequence[str] | None = ...,
    kind: Kind = ...,
    workers: int = ...,
    cache: str | Path | None = ...,
    resize: bool = ...,
    ignore_extra_frames: bool = ...,
    progress: bool = ...,
) -> list[Report]: ...


def evaluate(
    predictions: str | Path | Predictions,
    truth: str | Path | Predictions,
    protocol: Protocol | Protocols = "davis17-val",
    *,
    sequences: Sequence[str] | None = None,
    kind: Kind = "auto",
    workers: int = 1,
    cache: str | Path | None = None,
    resize: bool = False,
    ignore_extra_frames: bool = False,
    progress: bool = False,
) -> Report | list[Report]:
    """Scores label files against label files; no image is read.

    Args:
        predictions: what `open_predictions` opens, or has opened: label PNGs `<sequence>/<frame>.png`, …
        truth: the same for the truth, in which 255 is void; a dataset root will do.
        protocol: name, yaml file, or protocol; or several, which share one pass over the files.
        sequences: only these; None for every sequence of the truth.
        kind: of the predictions, where they are given as a path.
        workers: processes.
        cache: a folder that keeps each sequence's scores, so that only changed ones are scored again.
        resize: stretch predictions of another size to the truth's by the nearest pixel; else an error.
        ignore_extra_frames: leave predicted frames without truth out, where the protocol calls them an error.
        progress: show a bar.

    Returns:
        The report; for several protocols a list of them, in their order.

    Raises:
        FileNotFoundError: no such folder, or a scored frame has no prediction; names it.
        ValueError: an unknown protocol, a damaged file, a prediction of another size, ids that the protocol
            does not allow, or nothing to score. A single sequence in which nothing is scored is left out of
            the means, and named in the report's `incomplete`.
    """
    wanted = protocol if isinstance(protocol, (list, tuple)) else [protocol]
    protocols = tuple(load_protocol(one) for one in wanted)
    work = _Work(
        predictions if isinstance(predictions, Predictions) else open_predictions(predictions, kind=kind),
        truth if isinstance(truth, Predictions) else open_truth(truth),
        protocols,
        resize,
    )
    chosen = _chosen(work, sequences, ignore_extra=ignore_extra_frames)
    store = ScoreCache(cache, work.predictions, work.truth, protocols, resize=resize)
    found = {name: scores for name in chosen if (scores := store.load(name)) is not None}
    missing = [name for name in chosen if name not in found]
    for name, scores in _score_all(work, missing, workers=workers, progress=progress):
        store.save(name, scores)
        found[name] = scores
    reports = [
        build_report(one, chosen, [found[name][place] for name in chosen])
        for place, one in enumerate(protocols)
    ]
    for report in reports:
        require_scores(report, str(work.truth.path))
    return reports if isinstance(protocol, (list, tuple)) else reports[0]


def open_truth(path: str | Path) -> Predictions:
    """Opens true labels: as predictions are opened, but 255 is allowed, and means what the protocol says."""
    opened = open_predictions(path)
    return TrueFolders(opened) if isinstance(opened, LabelFolders) else opened


class TrueFolders(LabelFolders):
    """A folder of true label images per sequence.

    Args:
        opened: the same, as predictions.
    """

    def __init__(self, opened: LabelFolders) -> None:
        super().__init__(opened.path, opened.folders, kind="labels", palette=opened.palette)

    def _labels(self, sequence: str, frame: str) -> Tensor:
        return read_labels(self.file(sequence, frame))


@dataclass(frozen=True)
class _Work:
    """What is scored; sent to every process once."""

    predictions: Predictions
    truth: Predictions
    protocols: tuple[EvalProtocol, ...]
    resize: bool


class _Unit(NamedTuple):
    """Some frames of a sequence, each with whether each protocol scores it."""

    sequence: str
    first: bool
    frames: list[str]
    scored: list[tuple[bool, ...]]


def _chosen(work: _Work, sequences: Sequence[str] | None, *, ignore_extra: bool) -> list[str]:
    """Checks before any file is decoded that every scored frame has a prediction."""
    known = work.truth.sequences
    chosen = list(known if sequences is None else sequences)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise FileNotFoundError(f"no true labels for {', '.join(unknown) or 'anything'} in {work.truth.path}")
    for name in chosen:
        needed = (
            frame
            for unit in _units(work, name)
            for frame, scored in zip(unit.frames, unit.scored, strict=True)
            if any(scored)
        )
        work.predictions.require_frames(name, needed)
        if not ignore_extra and any(protocol.extra_frames == "error" for protocol in work.protocols):
            _refuse_extra_frames(work, name)
    extra = [name for name in work.predictions.sequences if name not in known]
    if extra and sequences is None:
        log.warning(
            "%d predicted sequences have no truth and are left out: %s", len(extra), ", ".join(extra[:5])
        )
    return chosen


def _refuse_extra_frames(work: _Work, sequence: str) -> None:
    true = set(work.truth.frames(sequence))
    extra = [frame for frame in work.predictions.frames(sequence) if frame not in true]
    if extra:
        shown = ", ".join(extra[:3]) + (" …" if len(extra) > 3 else "")
        raise ValueError(
            f"{len(extra)} predicted frames of {sequence} in {work.predictions.path} have no truth: {shown}; "
            "remove them, or leave them out by ignore_extra_frames=True (--ignore-extra-frames)"
        )


def _units(work: _Work, sequence: str) -> Iterator[_Unit]:
    frames = work.truth.frames(sequence)
    chosen = [scored_frames_of(work.truth, sequence, protocol) for protocol in work.protocols]
    scored = [tuple(frame in names for names in chosen) for frame in frames]
    for start in range(0, len(frames), UNIT):
        part = slice(start, start + UNIT)
        yield _Unit(sequence, start == 0, list(frames[part]), scored[part])


def _score_all(
    work: _Work, sequences: list[str], *, workers: int, progress: bool
) -> Iterator[tuple[str, SequenceScores]]:
    """Scores sequences one after the other, in whatever process."""
    units = [unit for name in sequences for unit in _units(work, name)]
    bar = tqdm(
        total=sum(len(unit.frames) for unit in units), desc="score", unit="frame", disable=not progress
    )
    joined: dict[str, SequenceScorer] = {}
    left = {name: sum(unit.sequence == name for unit in units) for name in sequences}
    for unit, scorer in zip(units, _scored(work, units, workers), strict=True):
        if unit.sequence in joined:
            joined[unit.sequence].absorb(scorer)
        else:
            joined[unit.sequence] = scorer
        left[unit.sequence] -= 1
        bar.update(len(unit.frames))
        if not left[unit.sequence]:
            yield unit.sequence, joined.pop(unit.sequence).finish(work.truth)
    bar.close()


def _scored(work: _Work, units: list[_Unit], workers: int) -> Iterator[SequenceScorer]:
    """The units' results, in their order."""
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    if workers == 1 or len(units) < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # arrays of one frame are too small to share
        try:
            yield from (_score_unit(work, unit) for unit in units)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(min(workers, len(units)), context, _start_worker, (work,))
    try:
        waiting: list[Future[bytes]] = [pool.submit(_score_in_worker, unit) for unit in units]
        for future in waiting:
            yield pickle.loads(future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker_work: list[_Work] = []  # of this process


def _start_worker(work: _Work) -> None:
    torch.set_num_threads(1)
    _worker_work[:] = [work]


def _score_in_worker(unit: _Unit) -> bytes:
    """Pickled here: left to the pool, each tensor would become a piece of shared memory."""
    return pickle.dumps(_score_unit(_worker_work[0], unit))


@torch.inference_mode()
def _score_unit(work: _Work, unit: _Unit) -> SequenceScorer:
    torch.empty(
        _ONCE, dtype=torch.uint8
    )  # after this glibc keeps freed arrays: a quarter less time in J and F
    scorer = SequenceScorer(work.truth, unit.sequence, work.protocols)
    if unit.first and scorer.needs_beginning:
        scorer.begin(work.truth.labels(unit.sequence, unit.frames[0]))
    wanted = [place for place, scored in enumerate(unit.scored) if any(scored)]
    for start in range(0, len(wanted), TOGETHER):
        places = wanted[start : start + TOGETHER]
        if scorer.needs_labels:
            _score_frames(work, unit, places, scorer)
        if scorer.needs_masks:
            _score_masks(work, unit, places, scorer)
    return scorer


def _score_masks(work: _Work, unit: _Unit, places: list[int], scorer: SequenceScorer) -> None:
    """Scores frames object by object, where a protocol asks for that."""
    for place in places:
        name = unit.frames[place]
        true = work.truth.masks(unit.sequence, name)
        height, width = true.masks.shape[1:]
        predicted = work.predictions.masks(unit.sequence, name, size=(height, width), resize=work.resize)
        scorer.update_masks(name, predicted, true, scored=unit.scored[place])


def _score_frames(work: _Work, unit: _Unit, places: list[int], scorer: SequenceScorer) -> None:
    """Scores label maps."""
    names = [unit.frames[place] for place in places]
    true = [work.truth.labels(unit.sequence, name) for name in names]
    predicted = [
        work.predictions.labels(unit.sequence, name, size=(one.shape[0], one.shape[1]), resize=work.resize)
        for name, one in zip(names, true, strict=True)
    ]
    scorer.update(names, predicted, true, scored=[unit.scored[place] for place in places])
