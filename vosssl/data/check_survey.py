"""The fast half of a check: where the parts of a dataset are and what is missing; no frame is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vosssl.data.check_findings import CheckReport, such_as
from vosssl.data.check_footage import video_files
from vosssl.data.check_parts import (
    PartSpec,
    VideoFolders,
    junk_below,
    same_folder_in_other_case,
    video_folders,
)
from vosssl.data.check_release import resolution_instead
from vosssl.data.check_shards import Series, find_series, report_series, series_of
from vosssl.data.check_tally import report_count, report_presence
from vosssl.data.listing import archives_below, contents, frames_below, neighbours
from vosssl.data.sequences import better_root


@dataclass(frozen=True)
class SurveyedPart:
    """A part that is there.

    Attributes:
        spec: what it should be.
        kind: folders, files, tfrecord or tar.
        image_root: where its frames, or its video files, are.
        annotations: its folder or JSON file of labels; None where there are none.
        folders: its videos, for kind folders.
        series: its shards, for kinds tfrecord and tar.
    """

    spec: PartSpec
    kind: str
    image_root: Path
    annotations: Path | None = None
    folders: VideoFolders | None = None
    series: Series | None = None

    def label_folder(self, video: str) -> Path:
        """Where the labels of a video lie."""
        assert self.annotations is not None
        if "{video}" in str(self.annotations):
            return Path(str(self.annotations).replace("{video}", video))
        return self.annotations / video


def survey(
    root: Path, specs: Sequence[PartSpec], report: CheckReport, *, name: str = ""
) -> list[SurveyedPart]:
    """Finds the parts of a dataset.

    Args:
        root: of the dataset.
        specs: the parts it should have; none: whatever there is.
        report: gets findings about what is missing or misplaced.
        name: of the dataset, for advice.

    Returns:
        The parts that are there.
    """
    if not root.exists():
        message = f"no dataset at {root}: pass the folder it was unpacked to{neighbours(root)}"
        report.add("error", "no-root", "", message)
        return []
    if root.is_dir():
        _report_surroundings(root, report, name=name)
    specs = specs or [PartSpec("all", images="", labels="some")]
    found, absent = [], []
    series: list[Series] | None = None
    for spec in specs:
        part = None if spec.images == "" or "series" in spec.more else _part(root, spec, report)
        if part is None and root.is_dir():
            series = find_series(root) if series is None else series
            part = _shards(spec, series, report)
        if part is None and spec.images == "" and "series" not in spec.more:
            part = _part(root, spec, report)
        if part is None:
            absent.append(spec)
        else:
            found.append(part)
    _report_absent(root, absent, report, some_found=bool(found), name=name)
    return found


def _part(root: Path, spec: PartSpec, report: CheckReport) -> SurveyedPart | None:
    """A part as files or folders; None where it is neither."""
    image_root = root / spec.images
    if spec.more.get("files") == "video" or image_root.is_file():
        count = len(video_files(image_root)) if image_root.exists() else 0
        if count:
            report_count(spec, count, report)
        return SurveyedPart(spec, "files", image_root) if count else None
    if not image_root.is_dir():
        return None
    split = None if spec.split_file is None else root / Path(spec.split_file).expanduser()
    if split is not None and not split.is_file():
        return None
    if split is None and spec.annotations and not spec.more.get("stills"):
        listing = root / spec.annotations
        split = listing if listing.suffix == ".json" and listing.is_file() else None
    try:
        folders = video_folders(image_root, split)
    except (OSError, ValueError) as error:
        report.add("error", "split-file", spec.name, str(error))
        return None
    if not folders.chosen and not folders.missing:
        return None
    report_presence(spec, folders, report)
    if folders.deeper is not None:
        first = next(iter(folders.chosen))
        instead = folders.deeper.parent.relative_to(root).as_posix()
        report.add(
            "error",
            "one-folder-too-shallow",
            spec.name,
            f"{image_root / first} is no folder of frames, but holds such folders: pass images={instead}, "
            f"and "
            "annotations likewise",
        )
        return None
    return SurveyedPart(spec, "folders", image_root, _annotations(root, spec, report), folders)


def _annotations(root: Path, spec: PartSpec, report: CheckReport) -> Path | None:
    """The place of a part's labels, or a finding that says what is there instead."""
    if spec.annotations is None:
        return None
    place = root / spec.annotations
    if "{video}" in spec.annotations or place.exists():
        return place
    if spec.labels == "none":
        return None
    other = same_folder_in_other_case(root, spec.annotations)
    hint = f"; {other} differs only in case: rename it" if other else ""
    train = spec.name.startswith("train")
    effect = "training works without labels only" if train else "nothing can be scored"
    above = next(path for path in place.parents if path.is_dir())
    message = (
        f"no {spec.annotations} in {root} ({above}: {contents(above)}){hint}; {effect}; pass annotations=null"
    )
    report.add("warning" if train else "error", "no-annotations", spec.name, message)
    return None


def _shards(spec: PartSpec, series: Sequence[Series], report: CheckReport) -> SurveyedPart | None:
    found = series_of(spec, series)
    if found is None:
        return None
    shards = spec.more.get("shards")
    report_series(found, shards if isinstance(shards, int) else None, report)
    return SurveyedPart(spec, found.kind, found.paths[0].parent, series=found)


def _report_surroundings(root: Path, report: CheckReport, *, name: str) -> None:
    """Archives that nobody unpacked, and what other systems left."""
    junk = junk_below(root)
    if junk:
        such = such_as([path.name for path in junk], len(junk))
        message = f"{len(junk):,} leftovers of macOS or Windows ({such}): ignored; delete them"
        report.add("note", "junk", "", message, count=len(junk))
    packed = archives_below(root)
    if packed:
        such = such_as([path.relative_to(root).as_posix() for path in packed], len(packed))
        message = (
            f"{len(packed):,} archives lie in {root} ({such}): {_advice(name)} them; delete what is unpacked"
        )
        report.add("note", "archives", "", message, count=len(packed))


def _report_absent(
    root: Path, absent: Sequence[PartSpec], report: CheckReport, *, some_found: bool, name: str
) -> None:
    """Parts that are not there: an error when none is, otherwise an effect."""
    explained = {finding.part for finding in report.findings if finding.severity == "error"}
    reasons = {spec: _why_absent(root, spec, name=name) for spec in absent if spec.name not in explained}
    shared = len(set(reasons.values())) == 1 < len(reasons)
    for spec, reason in reasons.items():
        if not some_found:
            if not shared or spec is next(iter(reasons)):
                report.add("error", "misplaced", "" if shared else spec.name, reason)
            continue
        train = spec.name.startswith("train")
        effect = "mode=train cannot run, evaluation works" if train else "nothing of it can be evaluated"
        report.add("warning", "part-absent", spec.name, f"{spec.name} is not here ({reason}): {effect}")


def _why_absent(root: Path, spec: PartSpec, *, name: str) -> str:
    """The likeliest reason why a part is not found, with what to do."""
    if "series" in spec.more:
        begin = spec.more["series"]
        wanted = f"{begin}.tfrecord-00000-of-… or {begin}-000000.tar"
        return f"no shards {wanted} in {root}, {contents(root) if root.is_dir() else 'a file'}"
    if spec.more.get("files") == "video":
        there = f"found {root.name}" if root.is_file() else contents(root)
        return f"no videos in {root / spec.images}: expected files like a.mp4 or b.avi, {there}"
    if (root / spec.images).is_dir():
        return _why_no_videos(root, spec)
    resolution = resolution_instead(root, spec.images)
    if resolution is not None:
        return (
            f"no {spec.images}, but {resolution}: another resolution of the release; get this one, or pass "
            f"images={resolution} and annotations likewise (slower, numbers are not comparable)"
        )
    other = same_folder_in_other_case(root, spec.images)
    if other is not None:
        return f"no {spec.images}, but {other.relative_to(root)}, which differs only in case: rename it"
    place = better_root(root, spec.images)
    if place is not None:
        deeper = (
            "one folder too high" if root.absolute() in place.absolute().parents else "one folder too deep"
        )
        return f"no {spec.images} in {root}, but in {place}: the root is {deeper}; pass root={place}"
    packed = archives_below(root) if root.is_dir() else []
    if packed:
        such = such_as([path.name for path in packed], len(packed))
        return f"no {spec.images} in {root}, but {such}, still packed: {_advice(name)} it"
    frames = frames_below(root) if root.is_dir() else None
    if frames is not None:
        found = frames.parent.relative_to(root).as_posix()
        return f"no {spec.images} in {root}; frames were found in {frames}: pass images={found}"
    there = contents(root) if root.is_dir() else f"found {root.name}"
    return f"{root} holds no folder {spec.images}, {there}"


def _why_no_videos(root: Path, spec: PartSpec) -> str:
    """The folder is there, its videos are not."""
    image_root = root / spec.images
    split = None if spec.split_file is None else root / spec.split_file
    if split is not None and not split.is_file():
        return f"no split file {split}{neighbours(split)}"
    return f"no video folders in {image_root}: {contents(image_root)}"


def _advice(name: str) -> str:
    """How to unpack."""
    return f"mode=download data={name} unpacks" if name else "unpack"
