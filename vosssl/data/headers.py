"""What video files say about themselves, read once: tens of thousands of files take minutes to open."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from vosssl.data.download import cache_folder
from vosssl.data.files import atomic_write
from vosssl.data.video_io import VideoReader
from vosssl.ops.resize import Size

log = logging.getLogger(__name__)

MANY = 200  # files from which on an index is kept; fewer open in a second or two
_AHEAD = 8  # files per thread that wait


class Header(NamedTuple):
    """What a video file says about itself; the number of frames may be wrong.

    Attributes:
        size: (H, W) of its first frame.
        fps: frames per second; 0 when the file does not say.
        frame_count: frames.
    """

    size: Size
    fps: float
    frame_count: int


class _Version(NamedTuple):
    """What changes when a file does."""

    bytes: int
    modified_ns: int


def read_header(path: Path) -> Header:
    """The header of one file.

    Raises:
        FileNotFoundError, ValueError: as VideoReader.
    """
    with VideoReader(path) as reader:
        return Header(reader.size, reader.fps, reader.frame_count or 0)


def read_headers(
    paths: Sequence[Path], *, index: Path | None = None, threads: int | None = None, progress: bool = False
) -> dict[Path, Header]:
    """The headers of many files, from an index where it knows them.

    Args:
        paths: the files.
        index: a JSON file that keeps headers by path, size and time of change; a damaged one is made anew,
            and a folder that cannot be written costs a warning. None: read all, keep nothing.
        threads: files that are opened at once; None: twice the number of cores, at most 16.
        progress: show a bar.

    Returns:
        A header for each path.

    Raises:
        FileNotFoundError, ValueError: a file that cannot be read; those before it are in the index.
    """
    known = {} if index is None else _load(index)
    versions = {path: _version(path) for path in paths}
    found: dict[Path, Header] = {}
    for path, version in versions.items():
        entry = known.get(str(path.absolute()))
        if entry is not None and entry[0] == version:
            found[path] = entry[1]
    missing = [path for path in paths if path not in found]
    if not missing:
        return found
    workers = threads or min(16, 2 * (os.cpu_count() or 1))
    try:
        headers = _in_threads(missing, workers)
        for path, header in tqdm(headers, total=len(missing), desc="opening videos", disable=not progress):
            found[path] = header
    finally:
        if index is not None:
            _save(index, {path: (versions[path], header) for path, header in found.items()})
    return found


def index_of(folder: Path) -> Path:
    """Where the index of a folder of videos is kept: beside downloads, named by the folder's full path."""
    place = sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    return cache_folder() / "video_headers" / f"{place}.json"


def _in_threads(paths: Sequence[Path], threads: int) -> Iterator[tuple[Path, Header]]:
    """Headers in order; few files ahead, so that an error or Ctrl-C ends it soon."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = iter(paths)
        while batch := list(islice(waiting, threads * _AHEAD)):
            yield from zip(batch, pool.map(read_header, batch), strict=True)


def _version(path: Path) -> _Version:
    status = path.stat()
    return _Version(status.st_size, status.st_mtime_ns)


def _load(index: Path) -> dict[str, tuple[_Version, Header]]:
    if not index.is_file():
        return {}
    try:
        rows = json.loads(index.read_text(encoding="utf-8"))
        return {
            name: (_Version(int(size), int(time)), Header((int(high), int(wide)), float(fps), int(count)))
            for name, (size, time, high, wide, fps, count) in rows.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        log.warning("index of videos %s is damaged and is made anew", index)
        return {}


def _save(index: Path, entries: Mapping[Path, tuple[_Version, Header]]) -> None:
    """Writes the index; it holds only files that were asked for, so that it does not grow with lost ones."""
    rows = {
        str(path.absolute()): [*version, *header.size, header.fps, header.frame_count]
        for path, (version, header) in entries.items()
    }
    try:
        with atomic_write(index, durable=False) as temporary:
            temporary.write_text(json.dumps(rows), encoding="utf-8")
    except OSError as error:
        log.warning("the index of videos cannot be kept, all files are opened again next time: %s", error)
