"""Checks a submission before it is uploaded: everything a server would refuse, found in one pass."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from vosssl.clip import VOID
from vosssl.data.io import decode_labels
from vosssl.data.listing import neighbours
from vosssl.data.packing import ExpectedSequence, Server, extra_ids
from vosssl.data.png import png_header
from vosssl.data.prediction_set import some
from vosssl.ops.masks import object_ids

_RATIO = 200  # declared over stored bytes above which an entry is refused, if it is large
_LARGE = 1 << 24  # bytes


class _Entry(NamedTuple):
    """A file of the submission: its place, its size as declared, and what is wrong with it already."""

    place: str
    size: int
    problem: str
    member: zipfile.ZipInfo | Path


def check_submission(
    path: str | Path,
    expected: Mapping[str, ExpectedSequence],
    *,
    server: Server,
    progress: bool = False,
) -> list[str]:
    """Compares a zip, or the folder that would be zipped, with what a server asks for. Nothing is extracted.

    Args:
        path: a zip, or a folder.
        expected: see `packing.expected_sequences`.
        server: says where the sequences lie.
        progress: show a bar.

    Returns:
        What is wrong, a line each, with the file's name; empty when all is well.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no zip and no folder, or a zip that cannot be opened.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no submission {path}{neighbours(path)}")
    if path.is_dir():
        return _problems(_walked(path), None, expected, server, progress=progress)
    try:
        with zipfile.ZipFile(path) as archive:
            return _problems(_listed(archive), archive, expected, server, progress=progress)
    except zipfile.BadZipFile as error:
        raise ValueError(f"submission {path} is truncated, or no zip: {error}") from error


def _problems(
    entries: Iterator[_Entry],
    archive: zipfile.ZipFile | None,
    expected: Mapping[str, ExpectedSequence],
    server: Server,
    *,
    progress: bool,
) -> list[str]:
    problems: list[str] = []
    files = list(entries)
    if len(expected) != server.videos:
        problems.append(f"the dataset has {len(expected)} sequences, {server.name} has {server.videos}")
    for place, count in Counter(entry.place.casefold() for entry in files).items():
        if count > 1:
            problems.append(f"{place}: {count} files of this name")
    wanted = {
        "/".join(filter(None, (server.folder, name, f"{frame}.png"))): sequence
        for name, sequence in expected.items()
        for frame in sequence.frames
    }
    misplaced = {place.removeprefix("Annotations/") for place in wanted} if server.folder else set(wanted)
    for entry in tqdm(files, desc="check", unit="file", disable=not progress):
        if entry.problem:
            problems.append(f"{entry.place}: {entry.problem}")
        elif entry.place in wanted:
            problem = _file_problem(entry, archive, wanted[entry.place])
            problems += [f"{entry.place}: {problem}"] if problem else []
        else:
            inner = entry.place.removeprefix("Annotations/")
            where = f"expected {server.folder or 'the sequences'} at the top" if inner in misplaced else ""
            problems.append(f"{entry.place}: {where or 'not asked for'}")
    present = {entry.place for entry in files}
    return problems + _missing(expected, server, present)


def _missing(expected: Mapping[str, ExpectedSequence], server: Server, present: set[str]) -> list[str]:
    """A line for each sequence that is missing, or of which frames are."""
    found = []
    for name, sequence in expected.items():
        folder = "/".join(filter(None, (server.folder, name)))
        missing = [frame for frame in sequence.frames if f"{folder}/{frame}.png" not in present]
        if len(missing) == len(sequence.frames):
            found.append(f"{folder}: the sequence is missing")
        elif missing:
            found.append(
                f"{folder}: {len(missing)} of {len(sequence.frames)} frames are missing: {some(missing)}"
            )
    return found


def _file_problem(entry: _Entry, archive: zipfile.ZipFile | None, sequence: ExpectedSequence) -> str:
    """What is wrong with one label file; empty when nothing is."""
    height, width = sequence.size
    limit = 2 * height * width + (1 << 20)  # no palette PNG of that size is longer
    if entry.size > limit:
        return f"declares {entry.size} bytes, expected at most {limit} for {width} x {height} pixels"
    try:
        if isinstance(entry.member, Path):
            encoded = entry.member.read_bytes()
        else:
            assert archive is not None
            encoded = archive.read(entry.member)
        header = png_header(encoded)
        if header is None:
            return "no PNG"
        if header.size != (height, width):
            return f"is {header.size[1]} x {header.size[0]} pixels, its frames are {width} x {height}"
        if not header.palette:
            return "no palette PNG: the servers read indices"
        labels = decode_labels(encoded, entry.place)
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        return f"truncated or damaged: {error}"
    return extra_ids(object_ids(labels), sequence, void=bool((labels == VOID).any()))


def _listed(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    """The files of a zip; what would be written outside its folder or fill the disk is marked, not read."""
    for member in archive.infolist():
        if member.is_dir() and not _escapes(member.filename):
            continue
        problem = ""
        if _escapes(member.filename):
            problem = "its path leads out of the folder it is unpacked to"
        elif stat.S_ISLNK(member.external_attr >> 16):
            problem = "a symbolic link, expected files"
        elif member.flag_bits & 1:
            problem = "encrypted"
        elif member.file_size > _LARGE and member.file_size > _RATIO * max(member.compress_size, 1):
            problem = f"declares {member.file_size} bytes in {member.compress_size}: a decompression bomb"
        yield _Entry(member.filename, member.file_size, problem, member)


def _escapes(place: str) -> bool:
    parts = PurePosixPath(place.replace("\\", "/")).parts
    return not parts or place[0] in "/\\" or ".." in parts or ":" in parts[0] or "\\" in place


def _walked(folder: Path) -> Iterator[_Entry]:
    """The files of a folder; links are marked, not followed."""
    for above, folders, files in os.walk(folder):
        for name in sorted([*files, *(name for name in folders if Path(above, name).is_symlink())]):
            path = Path(above, name)
            problem = "a symbolic link, expected files" if path.is_symlink() else ""
            yield _Entry(path.relative_to(folder).as_posix(), path.lstat().st_size, problem, path)
