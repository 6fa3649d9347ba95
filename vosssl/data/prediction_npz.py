"""Predictions as one NPZ file per sequence, read frame by frame."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.prediction_set import ObjectMasks, Predictions

_NAMES = ("frames", "frame_names", "names")
_LARGEST = 1 << 31  # bytes of one frame


class _Stored(NamedTuple):
    """An array inside an NPZ file: its member, shape, type, and where its values begin."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int


class _Reader:
    """An open NPZ file: going on to the next frame inflates that frame only, going back starts anew."""

    def __init__(self, sequence: str, path: Path) -> None:
        self.sequence = sequence
        self.path = path
        self.process = os.getpid()  # a forked process must not share the position in the file
        self.frames, self.stored = _inspect(path)
        self._archive = zipfile.ZipFile(path)
        self._member = self._archive.open(self.stored.member)

    def read(self, start: int, length: int) -> bytes:
        self._member.seek(start)
        return self._member.read(length)


class NpzFiles(Predictions):
    """An NPZ file per sequence.

    It holds `labels` (T, H, W) ids, or `masks` (T, N, H, W), of which mask n is object n + 1 and the last one
    lies on top; and `frames` (T,), the names, without which they are 00000, 00001, ….

    Args:
        path: the folder.
        files: sequence name -> file name.
    """

    def __init__(self, path: Path, files: Mapping[str, str]) -> None:
        super().__init__(path)
        self._files = dict(files)
        self._open: _Reader | None = None  # of the sequence read last

    @property
    def sequences(self) -> tuple[str, ...]:
        return tuple(self._files)

    def frames(self, sequence: str) -> tuple[str, ...]:
        return self._reader(sequence).frames

    def sources(self, sequence: str) -> Iterator[Path]:
        if sequence not in self._files:
            raise self._no_sequence(sequence)
        yield self.path / self._files[sequence]

    def where(self, sequence: str, frame: str) -> str:
        return f"{self.path / self._files[sequence]}, frame {frame}"

    def _labels(self, sequence: str, frame: str) -> Tensor:
        values = self._frame(sequence, frame)
        if values.ndim == 2:
            return torch.from_numpy(values.astype(np.uint8))
        labels = np.zeros(values.shape[1:], np.uint8)
        for place, mask in enumerate(values, 1):
            labels[mask != 0] = place
        return torch.from_numpy(labels)

    def _masks(self, sequence: str, frame: str) -> ObjectMasks:
        values = self._frame(sequence, frame)
        if values.ndim == 2:
            return super()._masks(sequence, frame)
        masks = torch.from_numpy(values != 0)
        return ObjectMasks(tuple(range(1, len(masks) + 1)), masks)

    def _frame(self, sequence: str, frame: str) -> np.ndarray:
        """(H, W) ids or (N, H, W) masks."""
        reader = self._reader(sequence)
        if frame not in reader.frames:
            raise self._no_frame(sequence, frame)
        shape, dtype = reader.stored.shape[1:], reader.stored.dtype
        length = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if length > _LARGEST:
            raise ValueError(f"{reader.path} declares frames of {length} bytes, expected at most {_LARGEST}")
        try:
            content = reader.read(reader.stored.offset + reader.frames.index(frame) * length, length)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self.where(sequence, frame)} is truncated or damaged: {error}") from error
        if len(content) < length:
            raise ValueError(f"{self.where(sequence, frame)} is truncated: {len(content)} of {length} bytes")
        values = np.frombuffer(content, dtype).reshape(shape)
        limit = VOID if values.ndim == 2 else 2  # masks are 0 and 1
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < limit:
            raise ValueError(
                f"{self.where(sequence, frame)} holds values from {values.min()} to {values.max()}, expected "
                f"0..{limit - 1}"
            )
        return values

    def _reader(self, sequence: str) -> _Reader:
        """The open file of a sequence; only that of the sequence read last is kept, for this process."""
        if self._open is None or self._open.sequence != sequence or self._open.process != os.getpid():
            if sequence not in self._files:
                raise self._no_sequence(sequence)
            path = self.path / self._files[sequence]
            try:
                self._open = _Reader(sequence, path)
            except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"{path} is truncated, or no NPZ file: {error}") from error
        return self._open

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}


def _inspect(path: Path) -> tuple[tuple[str, ...], _Stored]:
    with zipfile.ZipFile(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist()]
        kind = next((name for name in ("labels", "masks") if name in members), None)
        if kind is None:
            raise ValueError(
                f"{path} holds {', '.join(members) or 'nothing'}, expected labels (T, H, W) or masks "
                "(T, N, H, W), and frames (T,)"
            )
        stored = _header(path, archive, f"{kind}.npy")
        if len(stored.shape) != (3 if kind == "labels" else 4) or stored.dtype.kind not in "bui":
            expected = (
                "labels (T, H, W) of whole numbers" if kind == "labels" else "masks (T, N, H, W) of bool"
            )
            raise ValueError(f"{kind} of {path} are {stored.shape} {stored.dtype}, expected {expected}")
        if kind == "masks" and stored.shape[1] >= VOID:
            raise ValueError(f"{path} has {stored.shape[1]} masks a frame, expected at most {VOID - 1}")
        listed = next((name for name in _NAMES if name in members), None)
        if listed is None:
            return tuple(f"{index:05d}" for index in range(stored.shape[0])), stored
        names = _names(path, archive, f"{listed}.npy")
    if len(names) != stored.shape[0] or len(set(names)) < len(names):
        raise ValueError(
            f"{path} has {len(set(names))} different names of frames for {stored.shape[0]} frames, expected "
            "one each"
        )
    return names, stored


def _header(path: Path, archive: zipfile.ZipFile, member: str) -> _Stored:
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
            shape, fortran, dtype = (read or np.lib.format.read_array_header_2_0)(file)
        except ValueError as error:
            raise ValueError(f"{member} of {path} is no array: {error}") from error
        if fortran and sum(side > 1 for side in shape) > 1:
            raise ValueError(f"{member} of {path} is stored in Fortran order; write np.ascontiguousarray(…)")
        return _Stored(member, shape, dtype, file.tell())


def _names(path: Path, archive: zipfile.ZipFile, member: str) -> tuple[str, ...]:
    """Names of frames without suffix; an array of objects could run code and is not opened."""
    stored = _header(path, archive, member)
    if stored.dtype.kind not in "US" or len(stored.shape) != 1:
        raise ValueError(
            f"{member} of {path} is {stored.shape} {stored.dtype}, expected the T names of frames as text"
        )
    with archive.open(member) as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    names = [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
    return tuple(Path(name).stem for name in names)
