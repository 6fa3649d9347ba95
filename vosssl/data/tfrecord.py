"""TFRecord files without TensorFlow: random access to records, every error with its file, record and byte.

A record is its length (8 bytes, little-endian), the masked CRC-32C of those, the payload, and its masked CRC.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from vosssl.data.crc32c import crc32c, masked
from vosssl.data.files import atomic_write

Verify = Literal["first", "all", "none"]

_HEADER = 12  # bytes: length and its check value
_FOOTER = 4  # bytes: check value of the payload
_CHUNK = 1 << 21  # bytes checked at once: records have 40 MB, which need not be in memory together
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")


class Place(NamedTuple):
    """Where a payload is, for messages.

    Attributes:
        path: the file.
        number: number of the record in it, 0 for the first.
        offset: byte of the file at which the record's payload begins.
    """

    path: Path
    number: int
    offset: int

    def error(self, what: str, *, at: int = 0) -> ValueError:
        """A ValueError that says where.

        Args:
            what: what is wrong.
            at: byte within the payload.
        """
        return ValueError(
            f"record {self.number} of {self.path} (byte {self.offset + at}): {what}; download the file again"
        )


class Payload:
    """The bytes of one record, in memory or read from the open file when asked for.

    Args:
        place: where the record is.
        length: bytes of the payload.
        file: the open file; None when the bytes are given.
        content: the bytes, when they are in memory already.
    """

    def __init__(
        self, place: Place, length: int, *, file: BinaryIO | None = None, content: bytes | None = None
    ) -> None:
        self.place = place
        self.length = length
        self._file = file
        self._content = None if content is None else memoryview(content)

    def read(self, start: int, stop: int) -> memoryview:
        """Bytes start..stop of the payload.

        Raises:
            ValueError: they reach past its end, or the file ends before them.
        """
        if not 0 <= start <= stop <= self.length:
            raise self.place.error(
                f"a field reaches to byte {stop} of a record of {self.length} bytes", at=min(start, stop)
            )
        if self._content is not None:
            return self._content[start:stop]
        assert self._file is not None
        self._file.seek(self.place.offset + start)
        piece = _read_whole(self._file, stop - start)
        if len(piece) < stop - start:
            raise self.place.error(f"the file ends after {len(piece)} of {stop - start} bytes", at=start)
        return memoryview(piece)


class TFRecordFile:
    """One TFRecord file; its records can be read in any order, by any thread or process.

    The file is opened for each visit, so that thousands of shards need no open handles, and a copy in another
    process needs nothing.

    Args:
        path: the file.
        spans: (N, 2) int64, byte at which each payload begins, and its length; None: scanned now.
        verify: which payloads are checked against their CRC-32C: "first": each when this process reads it for
            the first time, "all": at every visit, "none". A visit that checks reads the whole record.

    Raises:
        ValueError: the file is damaged or cut off; says at which record and byte.
    """

    def __init__(
        self, path: str | Path, *, spans: np.ndarray | None = None, verify: Verify = "first"
    ) -> None:
        if verify not in ("first", "all", "none"):
            raise ValueError(f"verify={verify}, expected first, all or none")
        self.path = Path(path)
        self.spans = scan_records(self.path) if spans is None else spans
        self.verify = verify
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return len(self.spans)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_verified": set()}

    @contextmanager
    def visit(self, number: int) -> Iterator[Payload]:
        """Opens one record.

        Args:
            number: 0 for the first.

        Yields:
            Its payload, valid until the visit ends.

        Raises:
            IndexError: no such record.
            ValueError: the payload does not fit its check value.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {self.path}, which holds {len(self)}")
        offset, length = map(int, self.spans[number])
        place = Place(self.path, number, offset)
        with self.path.open("rb", buffering=0) as file:
            if self.verify == "all" or (self.verify == "first" and number not in self._verified):
                _check(file, place, length)
                self._verified.add(number)
            yield Payload(place, length, file=file)

    def read(self, number: int) -> bytes:
        """All bytes of one record; see `visit`."""
        with self.visit(number) as payload:
            return bytes(payload.read(0, payload.length))


def _check(file: BinaryIO, place: Place, length: int) -> None:
    """Raises where a payload does not fit its check value."""
    buffer, crc, left = memoryview(bytearray(min(_CHUNK, length))), 0, length
    file.seek(place.offset)
    while left and (count := file.readinto(buffer[: min(left, _CHUNK)])):  # type: ignore[attr-defined]
        crc = crc32c(buffer[:count], crc)
        left -= count
    footer = _read_whole(file, _FOOTER)
    if left or len(footer) < _FOOTER:
        found = length - left + len(footer)
        raise place.error(f"the file ends after {found} of {length + _FOOTER} bytes: truncated")
    stored = int.from_bytes(footer, "little")
    if masked(crc) != stored:
        raise place.error(
            f"its {length} bytes have the check value {masked(crc):08x}, the file says {stored:08x}: damaged"
        )


def _read_whole(file: BinaryIO, count: int) -> bytes:
    """Up to `count` bytes; an unbuffered file may return fewer at a time."""
    pieces, left = [], count
    while left and (piece := file.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def scan_records(path: str | Path) -> np.ndarray:
    """Where the records of a file are; only the 12 bytes before each are read.

    Args:
        path: the file.

    Returns:
        (N, 2) int64, byte at which each payload begins, and its length.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a length that does not fit its check value, or a record that the file cuts off.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no TFRecord file {path}")
    spans: list[tuple[int, int]] = []
    end = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        start = 0
        while start < end:
            place = Place(path, len(spans), start)
            file.seek(start)
            header = file.read(_HEADER)
            if len(header) < _HEADER:
                raise place.error(f"the file ends after {end} bytes, inside its header: truncated")
            length, stored = int.from_bytes(header[:8], "little"), int.from_bytes(header[8:], "little")
            if masked(crc32c(header[:8])) != stored:
                hint = "" if spans else ", or this is no TFRecord file"
                raise place.error(f"its length {length} does not fit its check value: damaged{hint}")
            following = start + _HEADER + length + _FOOTER
            if following > end:
                raise place.error(f"it ends at byte {following}, but the file at {end}: truncated")
            spans.append((start + _HEADER, length))
            start = following
    return np.array(spans, np.int64).reshape(-1, 2)


def shard_files(folder: str | Path, stem: str, *, allow_missing: bool = False) -> list[Path]:
    """The files `<stem>-00000-of-01024` of a folder, in order.

    Args:
        folder: where they are.
        stem: what their names begin with, such as `movi_e-train.tfrecord`.
        allow_missing: take what is there.

    Raises:
        FileNotFoundError: none, or not all of them; names those that are missing.
        ValueError: files of two different releases, which name different numbers of shards.
    """
    folder = Path(folder)
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob(f"{stem}-*"):
        match = _SHARD.fullmatch(path.name)
        if match is not None and match["stem"] == stem:
            found.setdefault(int(match["count"]), {})[int(match["number"])] = path
    if not found:
        raise FileNotFoundError(f"no shards {stem}-*-of-* in {folder}")
    if len(found) > 1:
        counts = ", ".join(f"{len(paths)} of {count}" for count, paths in sorted(found.items()))
        raise ValueError(f"shards {stem} of two releases lie in {folder} ({counts}); keep those of one")
    ((count, paths),) = found.items()
    missing = sorted(set(range(count)) - set(paths))
    if missing and not allow_missing:
        raise FileNotFoundError(
            f"{len(missing)} of {count} shards {stem} are missing in {folder} (such as "
            f"{stem}-{missing[0]:05d}-of-{count:05d}); download them, or pass data.allow_missing=true to go "
            "on with a part: its scores are not comparable"
        )
    return [paths[number] for number in sorted(paths)]


def index_files(paths: Sequence[Path], *, cache: str | Path | None = None) -> list[np.ndarray]:
    """Where the records of many files are.

    Args:
        paths: the files.
        cache: an .npz file that keeps what was found, for files that have not changed since (size, time);
            useful where opening a thousand files is slow. It is written when anything was scanned.

    Returns:
        One (N, 2) int64 array per file, see `scan_records`.

    Raises:
        ValueError: a damaged or truncated file.
    """
    if cache is None:
        return [scan_records(path) for path in paths]
    cache = Path(cache).expanduser()
    known = _read_index(cache)
    states = [path.stat() for path in paths]
    keys = [
        f"{path.name} {state.st_size} {state.st_mtime_ns}" for path, state in zip(paths, states, strict=True)
    ]
    spans = [
        known[key] if key in known else scan_records(path) for key, path in zip(keys, paths, strict=True)
    ]
    if any(key not in known for key in keys):
        known.update(zip(keys, spans, strict=True))  # the file may serve other splits too
        with atomic_write(cache.with_suffix(".npz"), durable=False) as temporary:
            np.savez(
                temporary,
                keys=np.array(list(known)),
                counts=np.array([len(part) for part in known.values()]),
                spans=np.concatenate([*known.values(), np.zeros((0, 2), np.int64)]),
            )
    return spans


def _read_index(cache: Path) -> dict[str, np.ndarray]:
    """What an index file knows; nothing when it is not there or is damaged: it is made again."""
    try:
        with np.load(cache.with_suffix(".npz"), allow_pickle=False) as stored:
            keys, counts, spans = stored["keys"], stored["counts"], stored["spans"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    if spans.ndim != 2 or len(keys) != len(counts) or counts.sum() != len(spans):
        return {}
    parts = np.split(spans.astype(np.int64), np.cumsum(counts)[:-1])
    return {str(key): part for key, part in zip(keys, parts, strict=True)}


def file_states(paths: Sequence[Path]) -> str:
    """Names, sizes and times of files, for fingerprints."""
    states = ((path.name, os.stat(path)) for path in paths)
    return " ".join(f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states)
