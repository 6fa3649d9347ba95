"""Is a dataset on disk what its readers expect? Counts, decoded files, and findings with their effects."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from vosssl.data.annotations import Annotations
from vosssl.data.check_files import VideoFacts, VideoTask, look_at_video
from vosssl.data.check_findings import CheckReport, Finding, PartCounts, such_as
from vosssl.data.check_footage import (
    look_at_footage,
    look_at_tar,
    look_at_tfrecord,
    unsupported_videos,
    video_files,
)
from vosssl.data.check_meta import check_meta, labelled_frames
from vosssl.data.check_parts import PartSpec
from vosssl.data.check_release import describe_release, same_counts
from vosssl.data.check_shards import Series, stated_records, stated_size
from vosssl.data.check_survey import SurveyedPart, survey
from vosssl.data.check_tally import PartTally
from vosssl.data.release import Release

Task = TypeVar("Task")
_AHEAD = 4  # chunks per worker that wait in the queue: memory does not grow with the dataset
_CHUNK = 2  # videos that a worker gets at once


def check_dataset(
    root: str | Path,
    *,
    name: str = "",
    release: Release | None = None,
    parts: Sequence[PartSpec] = (),
    others: Mapping[str, Release] | None = None,
    sample: int | None = None,
    workers: int = 1,
    progress: bool = False,
) -> CheckReport:
    """Looks at everything that a dataset's readers will read.

    Args:
        root: its folder.
        name: of the dataset, for messages.
        release: what its authors offer; its `expect` is what counts are compared with.
        parts: what the yaml reads; used for parts that the release does not describe.
        others: releases by name that the one on disk may turn out to be.
        sample: frames of each video to decode; None for all.
        workers: processes that decode; 1 decodes in this one.
        progress: show a bar.

    Returns:
        Counts and findings, errors first. A damaged dataset raises nothing.

    Raises:
        ValueError: fewer than one worker, or sampled frame.
    """
    if workers < 1 or (sample is not None and sample < 1):
        raise ValueError(f"check got {workers} workers and {sample} sampled frames, expected 1 or more")
    release = release or Release()
    root = Path(root).expanduser()
    report = CheckReport(name, str(root))
    tallies = []
    for part in survey(root, specs_of(release, parts), report, name=name):
        tally = PartTally(part.spec, PartCounts(part.spec.name, part.kind, expected=part.spec.expected()))
        _look_closely(part, tally, report, sample=sample, workers=workers, progress=progress)
        tallies.append(tally)
        report.parts.append(tally.counts)
    describe_release(root, release, tallies, report)
    _report_other_release(name, release, others or {}, report)
    if sample is not None and report.parts:
        files = all(part.kind == "files" for part in report.parts)
        looked = "only the ends of video files" if files else f"{sample} frames of each video"
        report.add("note", "sampled", "", f"{looked} were decoded; check.sample=null: all frames")
    report.sort()
    return report


def quick(root: str | Path, release: Release) -> list[str]:
    """What can be said without opening images: missing folders, videos, shards, archives left packed.

    Args:
        root: the dataset's folder.
        release: with `expect`.

    Returns:
        A line for each finding, errors first; empty when all that is expected is there.
    """
    report = CheckReport("", str(root))
    survey(Path(root).expanduser(), specs_of(release, ()), report)
    report.sort()
    return [finding.line() for finding in report.findings if finding.severity != "note"]


def specs_of(release: Release, parts: Sequence[PartSpec]) -> list[PartSpec]:
    """The parts that a release describes, completed by what the yaml reads, or those of the yaml alone.

    Args:
        release: its `expect` is looked at.
        parts: as the yaml reads them.
    """
    if not release.expect:
        return list(parts)
    found = []
    for entry in release.expect:
        spec = PartSpec.from_dict(entry)
        same = [part for part in parts if _alike(part, spec)]
        same += [part for part in parts if part.images == spec.images]  # the format, if not the videos
        if same:
            binary = same[0].binary if spec.binary is None else spec.binary
            kind = next((part.more["kind"] for part in same if "kind" in part.more), "auto")
            spec = replace(spec, binary=binary, more={**same[0].more, "kind": kind, **spec.more})
        found.append(spec)
    return found


def _alike(part: PartSpec, spec: PartSpec) -> bool:
    """Whether a yaml's reader reads the part of a release."""
    if "series" in part.more:
        return part.name[:3] == spec.name[:3]
    return part.images == spec.images and part.split_file == spec.split_file


def _look_closely(
    part: SurveyedPart,
    tally: PartTally,
    report: CheckReport,
    *,
    sample: int | None,
    workers: int,
    progress: bool,
) -> None:
    """Opens the files of a part and adds its findings."""
    look = _Pool(workers, progress=progress, name=part.spec.name)
    if part.series is not None:
        _look_at_series(part.series, tally, report, look)
        return
    if part.kind == "files":
        _look_at_files(part, tally, report, look, sample=sample)
        return
    assert part.folders is not None
    spec = part.spec
    annotations = part.annotations
    shared = None
    if annotations is not None and annotations.is_file():
        shared = _opened(annotations, spec, report)
        if shared is not None and shared.videos is None:
            shared = None  # COCO: nothing says which image is which video
        tally.counts.label_kinds[annotations.suffix.lstrip(".").upper()] = 1
        annotations = None
    else:
        check_meta(part.image_root, annotations, spec.name, report)
    tally.spec = spec if annotations is not None else replace(spec, annotations=None)
    plain = spec.more.get("kind") in (None, "auto", "png", "objects")
    tasks = (
        VideoTask(
            name,
            part.image_root / name,
            None if annotations is None else part.label_folder(name),
            chosen=None if frames is None else tuple(frames),
            binary=True if spec.more.get("kind") == "objects" else spec.binary,
            stills=bool(spec.more.get("stills")),
            plain=plain,
            sample=sample,
        )
        for name, frames in part.folders.chosen.items()
    )
    for facts in look(look_at_video, tasks, total=len(part.folders.chosen)):
        if shared is not None:
            _count_shared(shared, facts, part, report)
        tally.add(facts)
    tally.report(report)


def _opened(path: Path, spec: PartSpec, report: CheckReport) -> Annotations | None:
    """The file of labels for all videos; None, with a finding, where it cannot be read."""
    try:
        return Annotations(path.parent, path.name, kind=spec.more.get("kind", "auto"))
    except (OSError, ValueError) as error:
        report.add("error", "labels-file", spec.name, str(error))
        return None


def _count_shared(shared: Annotations, facts: VideoFacts, part: SurveyedPart, report: CheckReport) -> None:
    """Frames of a video with labels in the file for all videos."""
    assert part.folders is not None
    name = part.folders.names.get(facts.name, facts.name)
    try:
        facts.labelled = labelled_frames(shared, name, part.folders.chosen[facts.name])
    except (OSError, ValueError, KeyError) as error:
        report.add("error", "labels-file", part.spec.name, f"labels of video {name}: {error}")


def _look_at_files(
    part: SurveyedPart, tally: PartTally, report: CheckReport, look: _Pool, *, sample: int | None
) -> None:
    """Video files: opened and, unless frames are sampled, decoded to their end."""
    paths = video_files(part.image_root)
    for facts in look(partial(look_at_footage, whole=sample is None), paths, total=len(paths)):
        tally.add(facts)
    flaws = tally.flaws
    others = unsupported_videos(part.image_root)
    if others:
        such = such_as([path.name for path in others], len(others))
        message = f"{len(others):,} files are in formats that are not read ({such}): convert them with ffmpeg"
        report.add("warning", "unsupported-format", part.spec.name, message, count=len(others))
    for code, severity, text in (
        ("video-does-not-open", "error", "files cannot be opened: truncated, or a codec OpenCV lacks"),
        (
            "video-length",
            "warning",
            "files hold other numbers of frames than they claim: decoded frames count",
        ),
    ):
        if code in flaws:
            such = such_as(flaws[code].examples, flaws[code].count)
            message = f"{flaws[code].count:,} video {text} ({such})"
            report.add("error" if severity == "error" else "warning", code, part.spec.name, message)


def _look_at_series(series: Series, tally: PartTally, report: CheckReport, look: _Pool) -> None:
    """Shards: walked through to their ends, with checksums where they have some."""
    part, counts = series.part, tally.counts
    function = look_at_tfrecord if series.kind == "tfrecord" else look_at_tar
    for facts in look(function, series.paths, total=len(series.paths)):
        tally.add(facts)
    counts.videos, counts.frames, counts.checked = counts.frames, 0, counts.frames
    for code, flaws in tally.flaws.items():
        what = {"shard-truncated": "cut off", "shard-damaged": "damaged", "shard-empty": "empty"}[code]
        files = f"{flaws.count:,} records or shards are {what} ({such_as(flaws.examples, flaws.count)})"
        report.add("error", code, part, f"{files}: get these shards again", count=flaws.count)
    stated = stated_records(series)
    if stated is not None and not series.missing and counts.videos != stated:
        message = f"{counts.videos:,} records, dataset_info.json states {stated:,}: shards of another release"
        report.add("warning", "records-differ", part, message)
    expected = tally.spec.videos
    if expected is not None and counts.videos < 0.97 * expected and not series.missing:  # "about 9,750"
        message = f"{part} has {counts.videos:,} of {expected:,} videos: numbers are not comparable"
        report.add("warning", "partial", part, message)
    size = stated_size(series)
    if size is not None:
        counts.image_sizes[f"{size[1]}x{size[0]}"] = counts.videos


def _report_other_release(
    name: str, release: Release, others: Mapping[str, Release], report: CheckReport
) -> None:
    """Names the dataset whose numbers of videos are those on disk, where they are not those expected."""
    expected = {str(entry["part"]): entry.get("videos") for entry in release.expect}
    if not expected or not any(
        part.expected.get("videos", part.videos) != part.videos for part in report.parts
    ):
        return
    matching = [other for other in same_counts(report.parts, others) if other != name]
    if matching and len(matching) <= 3:
        there = " or ".join(f"data={other}" for other in matching)
        report.release.append(f"the numbers of videos are those of {there}")
        counted = ", ".join(f"{part.videos:,} {part.name}" for part in report.parts)
        message = f"{counted} videos are what {there} has: another release than {name}; choose that one"
        report.findings.append(Finding("warning", "other-release", "", message))


class _Pool:
    """Runs a function over tasks, in this process or in several, in order, few tasks ahead.

    Args:
        workers: processes.
        progress: show a bar.
        name: beside the bar.
    """

    def __init__(self, workers: int, *, progress: bool, name: str) -> None:
        self.workers = workers
        self.progress = progress
        self.name = name

    def __call__(
        self, function: Callable[[Task], VideoFacts], tasks: Iterable[Task], *, total: int
    ) -> Iterator[VideoFacts]:
        bar = tqdm(
            total=total, desc=f"check {self.name}", unit="video", disable=not self.progress, leave=False
        )
        with bar:
            for facts in self._results(function, iter(tasks), total):
                bar.update()
                yield facts

    def _results(
        self, function: Callable[[Task], VideoFacts], tasks: Iterator[Task], total: int
    ) -> Iterator[VideoFacts]:
        if self.workers == 1 or total < 2 * _CHUNK:
            yield from map(function, tasks)
            return
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        pool = ProcessPoolExecutor(min(self.workers, total), context, _start_worker)
        try:
            waiting: deque[Future[list[VideoFacts]]] = deque()
            while True:
                chunk = list(islice(tasks, _CHUNK))
                if chunk:
                    waiting.append(pool.submit(_look_at_chunk, function, chunk))
                if waiting and (not chunk or len(waiting) >= _AHEAD * self.workers):
                    yield from waiting.popleft().result()
                elif not chunk:
                    return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Workers are the parallelism; what decoders print about damaged files is reported as findings."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _look_at_chunk(function: Callable[[Task], VideoFacts], chunk: Sequence[Task]) -> list[VideoFacts]:
    return [function(task) for task in chunk]
