"""Predictions as run lengths in one JSON file: YouTube-VIS results or annotations, and BURST.

Files of gigabytes are not loaded: their entries are found once, one after the other, and those of a sequence
are parsed when it is read.
"""

from __future__ import annotations

import json
import mmap
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.prediction_set import ObjectMasks, Predictions
from vosssl.data.rle import decode_columns
from vosssl.ops.resize import Size

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
Span = tuple[int, int]  # first byte of an entry, and the one after its last


class Sequence(NamedTuple):
    """One sequence of a file: frame names in order, size in pixels, and where its entries lie."""

    frames: tuple[str, ...]
    size: Size | None
    entries: tuple[Span, ...]


class RunLengthFile(Predictions):
    """Sequences of one JSON file.

    Args:
        path: the file.
        found: its sequences by name.
    """

    def __init__(self, path: Path, found: Mapping[str, Sequence]) -> None:
        super().__init__(path)
        self._sequences = dict(found)
        self._parsed: tuple[str, Any] | None = None  # the sequence read last

    @property
    def sequences(self) -> tuple[str, ...]:
        return tuple(self._sequences)

    def frames(self, sequence: str) -> tuple[str, ...]:
        return self._sequence(sequence).frames

    def where(self, sequence: str, frame: str) -> str:
        return f"{self.path}, frame {frame} of {sequence}"

    @abstractmethod
    def _runs(self, entries: list[Any], place: int) -> list[tuple[int, Any]]:
        """Object id and run lengths of what occurs in a frame, the uppermost last."""

    def _labels(self, sequence: str, frame: str) -> Tensor:
        objects, size = self._objects(sequence, frame)
        labels = np.zeros(size[0] * size[1], np.uint8)
        for identity, counts in objects:
            labels[self._columns(counts, size, sequence, frame)] = identity
        return torch.from_numpy(np.ascontiguousarray(labels.reshape(size[1], size[0]).T))

    def _masks(self, sequence: str, frame: str) -> ObjectMasks:
        objects, size = self._objects(sequence, frame)
        objects = sorted(objects, key=lambda pair: pair[0])
        masks = torch.zeros(len(objects), *size, dtype=torch.bool)
        for mask, (_, counts) in zip(masks, objects, strict=True):
            columns = self._columns(counts, size, sequence, frame)
            mask.copy_(torch.from_numpy(columns).reshape(size[1], size[0]).T)
        return ObjectMasks(tuple(identity for identity, _ in objects), masks)

    def _objects(self, sequence: str, frame: str) -> tuple[list[tuple[int, Any]], Size]:
        """Ids and run lengths of a frame, and its size."""
        found = self._sequence(sequence)
        if frame not in found.frames:
            raise self._no_frame(sequence, frame)
        parsed = self._parsed
        if parsed is None or parsed[0] != sequence:
            parsed = (sequence, parse_entries(self.path, found.entries))
            self._parsed = parsed  # as a whole: threads that read ahead share it
        try:
            objects = self._runs(parsed[1], found.frames.index(frame))
            sizes = {tuple(runs["size"]) for _, runs in objects if isinstance(runs, dict) and "size" in runs}
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise ValueError(f"{self.where(sequence, frame)}: {_reason(error)}") from error
        size = found.size
        if size is None:
            raise ValueError(
                f"{self.path} says no size for {sequence}, where no mask is; pass videos=, the annotation "
                "file that lists the videos with their sizes"
            )
        if sizes - {tuple(size)}:
            raise ValueError(
                f"{self.where(sequence, frame)} has masks of {sorted(sizes)}, its video is {tuple(size)} "
                "(height, width)"
            )
        return objects, size

    def _columns(self, runs: Any, size: Size, sequence: str, frame: str) -> np.ndarray:
        counts = runs.get("counts") if isinstance(runs, dict) else runs
        if not isinstance(counts, (str, list)):
            raise ValueError(f"{self.where(sequence, frame)} has no run lengths but {type(counts).__name__}")
        try:
            return decode_columns(counts, size)
        except ValueError as error:
            raise ValueError(f"{self.where(sequence, frame)}: {error}") from error

    def _sequence(self, name: str) -> Sequence:
        if name not in self._sequences:
            raise self._no_sequence(name)
        return self._sequences[name]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_parsed": None}


class TrackFile(RunLengthFile):
    """YouTube-VIS: an entry per object, with run lengths or null for every frame.

    The entries of a video become ids 1, 2, … in the order in which `open_tracks` puts them; where they
    overlap, the first of them lies on top.
    """

    def _runs(self, entries: list[Any], place: int) -> list[tuple[int, Any]]:
        found = [(rank, entry["segmentations"][place]) for rank, entry in enumerate(entries, 1)]
        for _, runs in found:
            if isinstance(runs, list):
                raise ValueError("polygons, expected run lengths; convert them with pycocotools")
        return [pair for pair in reversed(found) if pair[1] is not None]


class BurstFile(RunLengthFile):
    """BURST: an entry per sequence, in it for every annotated frame the tracks with their run lengths.

    Track numbers are the ids; where tracks overlap, the higher number lies on top.
    """

    def _runs(self, entries: list[Any], place: int) -> list[tuple[int, Any]]:
        tracks = entries[0]["segmentations"][place]
        found = sorted((int(number), track["rle"]) for number, track in tracks.items())
        for number, _ in found:
            if not 1 <= number < VOID:
                raise ValueError(f"track {number}, expected tracks numbered 1..{VOID - 1}")
        return found


def open_tracks(path: Path, videos: Path | None) -> TrackFile:
    """Opens YouTube-VIS results (a list) or annotations.

    Args:
        path: the file.
        videos: an annotation file that names the videos and their frames; None: the file itself where it
            lists videos, else sequences are called by their numbers, and frames 00000, 00001, ….

    Returns:
        The predictions; objects of a video in the order of their scores, the best first.

    Raises:
        ValueError: no such file, damaged, a video that is not listed, or more than 254 objects in one.
    """
    listed = videos or (None if is_list(path) else path)
    known = {} if listed is None else _listed_videos(listed)
    entries: dict[int, list[tuple[float, Span, int]]] = {}
    sizes: dict[int, Size] = {}
    for span in entry_spans(path, None if is_list(path) else b"annotations"):
        entry = parse_entries(path, [span])[0]
        try:
            video, length = int(entry["video_id"]), len(entry["segmentations"])
            score = float(entry.get("score", 1.0))
            for runs in entry["segmentations"] if video not in sizes else ():
                if isinstance(runs, dict) and "size" in runs:
                    sizes[video] = (int(runs["size"][0]), int(runs["size"][1]))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(f"{path}, entry at byte {span[0]}: {_reason(error)}") from error
        if known and (video not in known or len(known[video][1].frames) != length):
            expected = f"{len(known[video][1].frames)} frames" if video in known else "no such video"
            raise ValueError(f"{path} has {length} frames of video {video}, {listed} lists {expected}")
        entries.setdefault(video, []).append((-score, span, length))
    found: dict[str, Sequence] = {}
    for video in known or sorted(entries):
        ranked = sorted(entries.get(video, []))
        if len(ranked) >= VOID:
            raise ValueError(
                f"{path} has {len(ranked)} objects in video {video}, expected at most {VOID - 1}; leave out "
                "those of low score"
            )
        spans = tuple(span for _, span, _ in ranked)
        if known:
            name, sequence = known[video]
            found[name] = sequence._replace(entries=spans)
        else:
            frames = tuple(f"{index:05d}" for index in range(ranked[0][2]))
            found[str(video)] = Sequence(frames, sizes.get(video), spans)
    return TrackFile(path, found)


def _listed_videos(path: Path) -> dict[int, tuple[str, Sequence]]:
    """Video number -> name and frames, as annotations of YouTube-VIS list them."""
    found: dict[int, tuple[str, Sequence]] = {}
    for span in entry_spans(path, b"videos"):
        video = parse_entries(path, [span])[0]
        try:
            files = [PurePosixPath(file) for file in video["file_names"]]
            size = (int(video["height"]), int(video["width"]))
            found[int(video["id"])] = files[0].parent.name, Sequence(_stems(files), size, ())
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{path}, video at byte {span[0]}: {_reason(error)}") from error
    _require_one_each(path, [name for name, _ in found.values()])
    return found


def open_burst(path: Path) -> BurstFile:
    """Opens results or annotations of BURST.

    Raises:
        ValueError: damaged, or two sequences of one name.
    """
    found: dict[str, Sequence] = {}
    names: list[str] = []
    for span in entry_spans(path, b"sequences"):
        entry = parse_entries(path, [span])[0]
        try:
            name = str(entry["seq_name"])
            frames = _stems([PurePosixPath(file) for file in entry["annotated_image_paths"]])
            found[name] = Sequence(frames, (int(entry["height"]), int(entry["width"])), (span,))
            length = len(entry["segmentations"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, sequence at byte {span[0]}: {_reason(error)}") from error
        if length != len(frames):
            raise ValueError(f"{path} has {length} segmentations for the {len(frames)} frames of {name}")
        names.append(name)
    _require_one_each(path, names)
    return BurstFile(path, found)


def _stems(files: list[PurePosixPath]) -> tuple[str, ...]:
    stems = tuple(file.stem for file in files)
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(f"two frames are called {twice}")
    return stems


def _require_one_each(path: Path, names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            raise ValueError(f"two sequences of the same name in {path}: {seen[name.casefold()]} and {name}")
        seen[name.casefold()] = name


def is_list(path: Path) -> bool:
    """Whether a JSON file is a list (YouTube-VIS results); else it is an object with named lists."""
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["


def named_lists(path: Path) -> tuple[str, ...]:
    """Names of a JSON object's parts, without loading them."""
    return tuple(name.decode("utf-8", "replace") for name, _ in _walk(path, None) if name is not None)


def entry_spans(path: Path, part: bytes | None) -> Iterator[Span]:
    """Where the entries of a list of objects lie in a JSON file: the file itself, or a part of an object.

    Raises:
        ValueError: no such part, or the file ends within it; names it.
    """
    seen = False
    for name, span in _walk(path, part):
        seen = seen or name == part
        if name == part and span is not None:
            yield span
    if not seen and part is not None:
        raise ValueError(f"{path} has no {part.decode()}, found {', '.join(named_lists(path)) or 'nothing'}")


def _walk(path: Path, part: bytes | None) -> Iterator[tuple[bytes | None, Span | None]]:
    """Announces each part of a JSON file without a span, and yields the spans of the objects in one part."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty, expected JSON")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        inner = 1 if is_list(path) else 2  # brackets around an entry
        depth = start = 0
        current: bytes | None = None
        if inner == 1:
            yield None, None
        for token in _TOKEN.finditer(content):
            kind = token[0]
            if kind in (b"{", b"["):
                if depth == inner and (inner == 1 or current == part):
                    start = token.start()
                depth += 1
            elif kind in (b"}", b"]"):
                depth -= 1
                if depth == inner and (inner == 1 or current == part):
                    yield (None if inner == 1 else current), (start, token.end())
            elif depth == 1 and inner == 2 and content[token.end() : token.end() + 8].lstrip()[:1] == b":":
                current = kind[1:-1]
                yield current, None
        if depth:
            raise ValueError(f"{path} ends within its content: is it truncated?")


def parse_entries(path: Path, spans: list[Span] | tuple[Span, ...]) -> list[Any]:
    """The parsed entries at these places of a file.

    Raises:
        ValueError: no JSON there; names the file.
    """
    found = []
    with path.open("rb") as file:
        for start, end in spans:
            file.seek(start)
            try:
                found.append(json.loads(file.read(end - start)))
            except ValueError as error:
                raise ValueError(f"{path}, entry at byte {start}, is damaged: {error}") from error
    return found


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else f"not as expected: {error}"
