"""Where the labels of a video may come from, whatever program wrote them, and what all such readers share.

Two rules hold for every format: where objects overlap, the later one lies above the earlier; and a video has
at most 254 objects, since labels are 8 bits with 0 for background and 255 for void.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.label_fit import fit_labels
from vosssl.data.polygons import polygons_mask
from vosssl.data.prediction_json import Span, entry_spans, parse_entries
from vosssl.data.prediction_set import Predictions
from vosssl.data.rle import decode_rle
from vosssl.ops.resize import Size

MOST_OBJECTS = VOID - 1
_KEPT = 4  # parsed videos that a set of labels remembers


class LabelSource(Protocol):
    """The labels of one video.

    Attributes:
        names: names of the frames that have labels.
        folder: where they lie, a folder or a file; for messages.
    """

    @property
    def names(self) -> Collection[str]: ...

    @property
    def folder(self) -> Path: ...

    def read(self, frame: str, size: Size) -> Tensor | None:
        """(H, W) uint8 labels of a frame at the size of the frame; None when it has none."""


@dataclass(frozen=True)
class LabelOptions:
    """How labels are understood.

    Attributes:
        binary: True: whatever is an object is object 1 (and a PNG's 255 too, as in DAVIS 2016). False: a
            PNG's 255 is void. None: as False, but a PNG that holds nothing besides 0 and 255 is refused.
        on_wrong_size: what to do with labels whose size is not their frame's.
        ids: of COCO annotations: `instance`: 1, 2, … in the order of the file, for each image anew;
            `category`: the category's; `auto`: the track's where annotations name one, else `instance`.
    """

    binary: bool | None = None
    on_wrong_size: Literal["error", "resize"] = "error"
    ids: Literal["auto", "instance", "category"] = "auto"


class ListedVideo(NamedTuple):
    """A video as an annotation file lists it.

    Attributes:
        folder: of its frames, below the folder of all videos.
        frames: names of its frames without suffix, in order.
    """

    folder: str
    frames: tuple[str, ...]


class LabelSet(ABC):
    """The labels of many videos.

    Args:
        path: the file or folder that holds them.
        options: how they are understood.
    """

    def __init__(self, path: Path, options: LabelOptions) -> None:
        self.path = path
        self.options = options
        self._recent: dict[Hashable, Any] = {}

    @property
    def videos(self) -> dict[str, ListedVideo] | None:
        """The videos by name, in the order of the file; None where it lists none."""
        return None

    @abstractmethod
    def source(self, video: str, frames: Sequence[str] | None) -> LabelSource:
        """The labels of one video.

        Args:
            video: its name.
            frames: names of its frames in order; None: those of a video file, 00000, 00001, ….

        Raises:
            ValueError: labels that cannot be read; names the file.
        """

    def parsed(self, key: Hashable, spans: Sequence[Span]) -> list[Any]:
        """The entries of a JSON file at these places; those asked for last are remembered by their key."""
        found: list[Any] | None = self._recent.get(key)
        if found is None:
            found = parse_entries(self.path, list(spans))
            # exchanged as a whole: threads that read ahead share it
            self._recent = dict([*self._recent.items(), (key, found)][-_KEPT:])
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": {}}


class DrawnLabels(ABC):
    """The labels of one video, drawn when they are asked for.

    Args:
        path: where they lie.
        names: of the frames that have labels.
        video: the video's name, for messages.
        options: how they are understood.
    """

    def __init__(self, path: Path, names: Collection[str], *, video: str, options: LabelOptions) -> None:
        self.folder = path
        self.video = video
        self.options = options
        self._names = names

    @property
    def names(self) -> Collection[str]:
        """Names of the frames that have labels."""
        return self._names

    @abstractmethod
    def _labels(self, frame: str, size: Size) -> Tensor:
        """(H, W) uint8 labels of a frame that has some, at their own size; `size` is that of the frame."""

    def where(self, frame: str) -> str:
        """The place of a frame's labels, for messages."""
        return f"{self.folder}, frame {frame} of video {self.video}"

    def read(self, frame: str, size: Size) -> Tensor | None:
        """See LabelSource.

        Raises:
            ValueError: damaged labels, or labels of another size than their frame; names the file.
        """
        if frame not in self.names:
            return None
        try:
            labels = self._labels(frame, size)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"labels of {self.where(frame)} are not as expected: {reason}") from error
        except ValueError as error:
            if str(self.folder) in str(error):
                raise
            raise ValueError(f"labels of {self.where(frame)}: {error}") from error
        if self.options.binary:
            labels = torch.where(labels == VOID, labels, labels.clamp(max=1))
        return fit_labels(labels, size, where=self.where(frame), on_wrong_size=self.options.on_wrong_size)


class SequenceLabels(DrawnLabels):
    """One sequence of opened predictions or annotations, such as BURST's tracks or SA-V's object folders.

    Args:
        opened: the sequences.
        sequence: its name in them.
        options: how they are understood.
    """

    def __init__(self, opened: Predictions, sequence: str, *, options: LabelOptions) -> None:
        super().__init__(opened.path, frozenset(opened.frames(sequence)), video=sequence, options=options)
        self.opened = opened

    def where(self, frame: str) -> str:
        return self.opened.where(self.video, frame)

    def _labels(self, frame: str, size: Size) -> Tensor:
        return self.opened.labels(self.video, frame)


def overlay(masks: Iterable[tuple[int, Tensor]], size: Size) -> Tensor:
    """(H, W) uint8 labels of masks (H, W) with their ids: the later of two that overlap lies above."""
    labels = torch.zeros(size, dtype=torch.uint8)
    for identity, mask in masks:
        labels.masked_fill_(mask, identity)
    return labels


def number_objects(objects: Iterable[Hashable], *, where: str) -> dict[Hashable, int]:
    """Ids of the objects of a video.

    Args:
        objects: what names them, in order. Names that are whole numbers 1..254 are the ids themselves;
            otherwise ids are 1, 2, … in this order.
        where: the file and video, for the message.

    Raises:
        ValueError: more than 254 objects.
    """
    found = list(dict.fromkeys(objects))
    if len(found) > MOST_OBJECTS:
        raise ValueError(
            f"{where} has {len(found)} objects, expected at most {MOST_OBJECTS}, since labels are 8 bits; "
            "leave some out, or cut the video into shorter ones"
        )
    if all(isinstance(name, int) and 1 <= name <= MOST_OBJECTS for name in found):
        return {name: name for name in found if isinstance(name, int)}
    return {name: identity for identity, name in enumerate(found, 1)}


def segmentation_mask(segmentation: Any, size: Size) -> Tensor:
    """The mask of a `segmentation` of COCO or YouTube-VIS.

    Args:
        segmentation: run lengths, compressed or not, with or without their size; or polygons, whose union it
            is, drawn as pycocotools does.
        size: (H, W) of the image.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: none of these, or run lengths of another size.
    """
    if isinstance(segmentation, list):
        return polygons_mask(segmentation, size)
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else segmentation
    if not isinstance(counts, (str, list)):
        raise ValueError(f"a segmentation is {type(segmentation).__name__}, expected run lengths or polygons")
    stored = segmentation.get("size", size) if isinstance(segmentation, dict) else size
    if [int(side) for side in stored] != [int(side) for side in size]:
        raise ValueError(f"a mask is {list(stored)}, its image {list(size)} (height, width)")
    return decode_rle(counts, size)


class EntryIndex:
    """Where the entries of a list in a JSON file lie, by a whole number that each of them holds.

    It keeps three numbers an entry, so that a file of gigabytes costs megabytes.

    Args:
        path: the file.
        part: name of the list.
        key: name of the number, such as `image_id`.

    Raises:
        ValueError: no such list, an entry without the number, or a damaged file; names it.
    """

    def __init__(self, path: Path, part: str, key: str) -> None:
        rows = array("q")  # of 64 bits each; lists of tuples would take ten times as much
        for span, text in _entry_texts(path, part.encode()):
            rows.extend((_number_in(path, span, text, key), *span))
        table = np.frombuffer(rows, np.int64).reshape(-1, 3) if rows else np.empty((0, 3), np.int64)
        self._table = table[np.argsort(table[:, 0], kind="stable")]  # (E, 3): number, start, end

    def spans(self, number: int) -> list[Span]:
        """The places of the entries with a number, in the order of the file."""
        first, last = np.searchsorted(self._table[:, 0], [number, number + 1])
        return [(int(start), int(end)) for start, end in self._table[first:last, 1:]]

    def __contains__(self, number: int) -> bool:
        return bool(self.spans(number))


def _entry_texts(path: Path, part: bytes) -> Iterable[tuple[Span, bytes]]:
    with path.open("rb") as file:
        for span in entry_spans(path, part):
            file.seek(span[0])
            yield span, file.read(span[1] - span[0])


def _number_in(path: Path, span: Span, text: bytes, key: str) -> int:
    """The number of an entry, found without parsing the run lengths around it."""
    place = text.find(b'"' + key.encode() + b'"')
    digits = text[place + len(key) + 2 :].lstrip(b" \t\r\n:")[:20] if place >= 0 else b""
    number = digits.split(b",")[0].split(b"}")[0].strip().strip(b'"')
    if not number.lstrip(b"-").isdigit():
        raise ValueError(f"{path}, entry at byte {span[0]}, has no number {key}")
    return int(number)
