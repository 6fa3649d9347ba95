"""Predictions on disk: what every kind of them offers."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from vosssl.ops.masks import labels_to_masks, object_ids
from vosssl.ops.resize import Size, resize_labels


class ObjectMasks(NamedTuple):
    """The objects of one frame, each with a mask of its own; they may overlap.

    Attributes:
        ids: N object ids, rising.
        masks: (N, H, W) bool.
    """

    ids: tuple[int, ...]
    masks: Tensor


def object_masks(labels: Tensor) -> ObjectMasks:
    """The objects of an (H, W) label map."""
    ids = object_ids(labels)
    return ObjectMasks(ids, labels_to_masks(labels, ids))


class Predictions(ABC):
    """Label maps of sequences on disk, read one frame at a time, by name.

    It holds names only, so it costs little to send to another process.

    Args:
        path: where they lie.

    Attributes:
        path: where they lie.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences, in order."""

    @abstractmethod
    def frames(self, sequence: str) -> tuple[str, ...]:
        """Names of a sequence's frames without suffix, in order.

        Raises:
            FileNotFoundError: no such sequence.
            ValueError: two files for one frame.
        """

    @abstractmethod
    def where(self, sequence: str, frame: str) -> str:
        """The file, and the place in it, of one frame; for messages."""

    def sources(self, sequence: str) -> Iterator[Path]:
        """The files that a sequence is read from."""
        self.frames(sequence)  # raises where there is no such sequence
        yield self.path

    def object_frames(self, sequence: str) -> Mapping[int, tuple[str, ...]] | None:
        """The frames for which each object has a mask of its own, if only an empty one.

        Args:
            sequence: its name.

        Returns:
            id -> frame names in order; None where frames hold all objects together.
        """
        self.frames(sequence)
        return None

    @abstractmethod
    def _labels(self, sequence: str, frame: str) -> Tensor:
        """(H, W) uint8 ids of a frame at the size it is stored; FileNotFoundError when it is missing."""

    def _masks(self, sequence: str, frame: str) -> ObjectMasks:
        """The objects of a frame at the size it is stored."""
        return object_masks(self._labels(sequence, frame))

    def labels(self, sequence: str, frame: str, *, size: Size | None = None, resize: bool = False) -> Tensor:
        """Reads the label map of one frame. Where objects overlap, one of them gets the pixel.

        Args:
            sequence: its name.
            frame: its name without suffix, compared exactly: 00007 is not 7.
            size: (H, W) that it has to have, that of the truth.
            resize: stretch a map of another size to it, by the nearest pixel.

        Returns:
            (H, W) uint8: 0 background, 1..254 objects.

        Raises:
            FileNotFoundError: no such sequence or frame.
            ValueError: a damaged file, one whose values are no ids, or one of another size; names it.
        """
        labels = self._labels(sequence, frame)
        if size is None or tuple(labels.shape) == tuple(size):
            return labels
        self._require_resize(sequence, frame, labels.shape, size, resize=resize)
        return resize_labels(labels, size)

    def masks(
        self, sequence: str, frame: str, *, size: Size | None = None, resize: bool = False
    ) -> ObjectMasks:
        """Reads the objects of one frame, each whole even where they overlap; see `labels`."""
        found = self._masks(sequence, frame)
        if size is None or tuple(found.masks.shape[1:]) == tuple(size):
            return found
        self._require_resize(sequence, frame, found.masks.shape[1:], size, resize=resize)
        return ObjectMasks(found.ids, resize_labels(found.masks, size))

    def require_frames(
        self, sequence: str, wanted: Iterable[str], *, extra: Literal["ignore", "error"] = "ignore"
    ) -> None:
        """Checks that a sequence has all frames that are wanted, without opening any.

        Args:
            sequence: its name.
            wanted: names of frames, such as those of the truth that are scored.
            extra: what to do about further frames; methods often run on more than what is annotated.

        Raises:
            FileNotFoundError: the sequence, or some of the frames, are missing.
            ValueError: there are further frames.
        """
        wanted = list(wanted)
        here = self.frames(sequence)
        known, asked = set(here), set(wanted)
        missing = [frame for frame in wanted if frame not in known]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(wanted)} frames of {sequence} have no prediction in {self.path}: "
                f"{some(missing)}{self._near_frame(missing[0], here)}"
            )
        further = [frame for frame in here if frame not in asked]
        if further and extra == "error":
            raise ValueError(
                f"{sequence} in {self.path} has {len(further)} frames that are not in the truth: "
                f"{some(further)}; remove them"
            )

    def _require_resize(
        self, sequence: str, frame: str, found: Sequence[int], size: Size, *, resize: bool
    ) -> None:
        if not resize:
            raise ValueError(
                f"prediction {self.where(sequence, frame)} is {found[1]} wide and {found[0]} high, its truth "
                f"is {size[1]} wide and {size[0]} high; write it at the size of the truth, or pass "
                "resize=True to stretch it by the nearest pixel"
            )

    def _no_sequence(self, sequence: str) -> FileNotFoundError:
        close = difflib.get_close_matches(sequence, self.sequences, n=1, cutoff=0.8)
        hint = f"; did you mean {close[0]}?" if close else ""
        return FileNotFoundError(
            f"no sequence {sequence} in predictions {self.path}: it has {some(self.sequences)}{hint}"
        )

    def _no_frame(self, sequence: str, frame: str) -> FileNotFoundError:
        here = self.frames(sequence)
        return FileNotFoundError(
            f"no prediction for frame {frame} of {sequence} in {self.path}{self._near_frame(frame, here)}"
        )

    @staticmethod
    def _near_frame(frame: str, here: tuple[str, ...]) -> str:
        number = frame.lstrip("0")
        same = [name for name in here if name.lstrip("0") == number and name != frame]
        if same:
            return f"; there is {same[0]}: frames are matched by their exact names, rename them"
        return f"; there are {some(here)}" if here else ""


def some(names: Iterable[str], count: int = 4) -> str:
    """The first few names, for messages."""
    names = list(names)
    return ", ".join(names[:count]) + (f" … ({len(names)} in all)" if len(names) > count else "")
