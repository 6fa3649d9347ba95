"""Video files and shards, looked at one by one: whether they open, and whether they hold what they say."""

from __future__ import annotations

import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from vosssl.data.check_files import VideoFacts
from vosssl.data.listing import VIDEO_SUFFIXES
from vosssl.data.tfrecord import TFRecordFile
from vosssl.data.video_io import VideoReader

_TFRECORD = re.compile(r"(?P<stem>.+\.(?:tfrecord|array_record))-(?P<number>\d+)-of-(?P<total>\d+)")
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{4,})\.tar")
_UNSUPPORTED = (".braw", ".r3d", ".gif", ".mxf", ".vob", ".3gp", ".heic", ".raw", ".y4m")


def video_files(root: Path) -> list[Path]:
    """Video files in a folder and below; or the one file."""
    return [root] if root.is_file() else [path for path in _files(root) if _ends_with(path, VIDEO_SUFFIXES)]


def unsupported_videos(root: Path) -> list[Path]:
    """Footage in formats that are not read."""
    return [] if root.is_file() else [path for path in _files(root) if _ends_with(path, _UNSUPPORTED)]


def look_at_footage(path: Path, *, whole: bool = True) -> VideoFacts:
    """Decodes a video file.

    Args:
        path: the file.
        whole: decode it to its end; otherwise only whether it ends where it says.

    Returns:
        Its frames as they can be decoded, with flaws where it does not open or promises others.
    """
    facts = VideoFacts(path.name)
    try:
        with VideoReader(path) as reader:
            promised = reader.frame_count or 0
            height, width = reader.size
            if whole:
                while reader.skip():
                    facts.frames += 1
            else:
                facts.frames = reader.count_frames(promised)
            fps = reader.fps
    except (OSError, ValueError):
        facts.flaw("video-does-not-open", f"{path.name} ({path.stat().st_size} bytes)")
        return facts
    facts.checked = facts.frames
    facts.sizes[f"{width}x{height}"] += facts.frames
    facts.kinds[f"{fps:.4g} fps"] += 1
    if promised != facts.frames:
        facts.flaw("video-length", f"{path.name}: {facts.frames} of {promised} frames")
    return facts


def shard_groups(folder: Path, kind: str) -> dict[str, list[Path]]:
    """Shards of a folder by the series they belong to.

    Args:
        folder: where they lie, also in its subfolders.
        kind: tfrecord or tar.

    Returns:
        Name of the series, such as `movi_e-train.tfrecord` -> its files in order.
    """
    pattern = _TFRECORD if kind == "tfrecord" else _NUMBERED
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in _files(folder):
        match = pattern.fullmatch(path.name)
        if match:
            groups[f"{path.parent.relative_to(folder).as_posix()}/{match['stem']}".removeprefix("./")].append(
                path
            )
    return dict(groups)


def missing_shards(paths: Sequence[Path]) -> tuple[list[int], int]:
    """Numbers that a series lacks, and how many shards it should have.

    Where the names do not say the total (tar), a hole is what lies below the largest number.
    """
    matches = [_TFRECORD.fullmatch(path.name) or _NUMBERED.fullmatch(path.name) for path in paths]
    found = {int(match["number"]) for match in matches if match}
    totals = [int(match["total"]) for match in matches if match and "total" in match.groupdict()]
    total = max(totals) if totals else max(found) + 1
    return [number for number in range(total) if number not in found], total


def look_at_tfrecord(path: Path) -> VideoFacts:
    """Counts the records of a shard and compares their checksums.

    Args:
        path: a TFRecord file.

    Returns:
        `frames` holds the number of records; flaws name truncation and wrong checksums with record and byte.
    """
    facts = VideoFacts(path.name)
    try:
        shard = TFRecordFile(path, verify="all")
    except (OSError, ValueError) as error:
        facts.flaw("shard-truncated" if "truncated" in str(error) else "shard-damaged", str(error))
        return facts
    for number in range(len(shard)):
        try:
            with shard.visit(number):
                facts.frames += 1
        except (OSError, ValueError) as error:
            facts.flaw("shard-damaged", str(error))
    facts.checked = facts.frames
    if len(shard) == 0:
        facts.flaw("shard-empty", path.name)
    return facts


def look_at_tar(path: Path) -> VideoFacts:
    """Counts the samples of a tar shard; a sample is what has one name before the first dot."""
    facts = VideoFacts(path.name)
    previous = None
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.offset_data + member.size > path.stat().st_size:
                    facts.flaw("shard-truncated", f"{path.name} ends in {member.name}")
                    return facts
                key = member.name.partition(".")[0]
                facts.frames += key != previous
                previous = key
                facts.kinds[member.name.partition(".")[2]] += 1
    except (tarfile.TarError, EOFError, OSError):
        facts.flaw("shard-truncated", f"{path.name} ({path.stat().st_size} bytes)")
        return facts
    facts.checked = facts.frames
    if facts.frames == 0:
        facts.flaw("shard-empty", path.name)
    return facts


def _files(folder: Path, *, depth: int = 4) -> Iterator[Path]:
    """Files of a folder and of those below, in order."""
    with os.scandir(folder) as found:
        entries = sorted(
            (entry for entry in found if not entry.name.startswith((".", "__MACOSX"))), key=_name
        )
    yield from (Path(entry.path) for entry in entries if entry.is_file())
    if depth > 1:
        for entry in entries:
            if entry.is_dir():
                yield from _files(Path(entry.path), depth=depth - 1)


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _ends_with(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes
