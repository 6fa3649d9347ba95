"""Predictions that are folders of images: one image a frame, or one a frame and object."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.io import IMAGE_SUFFIXES, read_colour_labels, read_labels
from vosssl.data.listing import frame_name, natural_order
from vosssl.data.prediction_set import ObjectMasks, Predictions

LABEL_SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".jpg", ".jpeg", ".webp"))
_REMEMBERED = 256  # sequences whose file names are kept


class LabelFolders(Predictions):
    """A folder of label images per sequence, one image a frame.

    Args:
        path: the folder of the sequences.
        folders: sequence name -> its folder, relative to `path`.
        kind: what pixels mean: `labels`: ids; `binary`: above 0 is object 1; `colours`: colours of ids;
            `auto`: ids, or colours where the image is RGB.
        palette: (N, 3) colours of ids 0..N-1.
    """

    def __init__(
        self,
        path: Path,
        folders: Mapping[str, str],
        *,
        kind: Literal["auto", "labels", "binary", "colours"] = "auto",
        palette: Tensor,
    ) -> None:
        super().__init__(path)
        self.kind = kind
        self.palette = palette
        self._folders = dict(folders)
        self._files: dict[str, dict[str, str]] = {}

    @property
    def sequences(self) -> tuple[str, ...]:
        return tuple(self._folders)

    def frames(self, sequence: str) -> tuple[str, ...]:
        return tuple(self._names(sequence))

    @property
    def folders(self) -> Mapping[str, str]:
        """Sequence name -> its folder, relative to `path`."""
        return MappingProxyType(self._folders)

    def file(self, sequence: str, frame: str) -> Path:
        """The image of one frame.

        Raises:
            FileNotFoundError: no such sequence or frame.
        """
        name = self._names(sequence).get(frame)
        if name is None:
            raise self._no_frame(sequence, frame)
        return self.path / f"{self._folders[sequence]}/{name}"

    def sources(self, sequence: str) -> Iterator[Path]:
        return (self.file(sequence, frame) for frame in self.frames(sequence))

    def where(self, sequence: str, frame: str) -> str:
        return str(self.file(sequence, frame))

    def _labels(self, sequence: str, frame: str) -> Tensor:
        path = self.file(sequence, frame)
        if self.kind == "binary":
            return read_labels(path, binary=True)
        if self.kind == "colours":
            return read_colour_labels(path, self.palette)
        labels = read_labels(path, palette=self.palette if self.kind == "auto" else None)
        require_ids(labels, path)
        return labels

    def _names(self, sequence: str) -> dict[str, str]:
        """Frame name -> file name, in order."""
        if sequence not in self._files:
            if sequence not in self._folders:
                raise self._no_sequence(sequence)
            if len(self._files) >= _REMEMBERED:
                self._files.clear()
            self._files[sequence] = label_files(self.path / self._folders[sequence])
        return self._files[sequence]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}


class ObjectFolders(Predictions):
    """A folder per sequence, in it a folder per object, in it one binary image a frame (SA-V).

    An object without an image for a frame that others have is absent there. In a label map the object with
    the higher number lies above the others; `masks` keeps them whole.

    Args:
        path: the folder of the sequences.
        folders: sequence name -> its folder, relative to `path`.
        first_object: number that becomes id 1.
    """

    def __init__(self, path: Path, folders: Mapping[str, str], *, first_object: int) -> None:
        super().__init__(path)
        self.first_object = first_object
        self._folders = dict(folders)
        self._files: dict[str, dict[str, dict[int, str]]] = {}

    @property
    def sequences(self) -> tuple[str, ...]:
        return tuple(self._folders)

    def frames(self, sequence: str) -> tuple[str, ...]:
        return tuple(self._names(sequence))

    def where(self, sequence: str, frame: str) -> str:
        return str(self.path / self._folders[sequence] / "*" / frame)

    def sources(self, sequence: str) -> Iterator[Path]:
        files = self._names(sequence)
        return (self.path / self._folders[sequence] / name for one in files.values() for name in one.values())

    def object_frames(self, sequence: str) -> Mapping[int, tuple[str, ...]]:
        found: dict[int, list[str]] = {}
        for frame, files in self._names(sequence).items():
            for identity in files:
                found.setdefault(identity, []).append(frame)
        return {identity: tuple(found[identity]) for identity in sorted(found)}

    def _labels(self, sequence: str, frame: str) -> Tensor:
        ids, masks = self._masks(sequence, frame)
        labels = torch.zeros(masks.shape[1:], dtype=torch.uint8)
        for identity, mask in zip(ids, masks, strict=True):
            labels[mask] = identity
        return labels

    def _masks(self, sequence: str, frame: str) -> ObjectMasks:
        files = self._names(sequence).get(frame)
        if files is None:
            raise self._no_frame(sequence, frame)
        folder = self.path / self._folders[sequence]
        masks = [read_labels(folder / name, binary=True) for name in files.values()]
        for name, mask in zip(files.values(), masks, strict=True):
            if mask.shape != masks[0].shape:
                raise ValueError(
                    f"masks of frame {frame} of {sequence} differ in size: {folder / name} is "
                    f"{tuple(mask.shape)}, others are {tuple(masks[0].shape)} (H, W)"
                )
        return ObjectMasks(tuple(files), torch.stack(masks).bool())

    def _names(self, sequence: str) -> dict[str, dict[int, str]]:
        """Frame name -> object id -> file name below the sequence's folder."""
        if sequence in self._files:
            return self._files[sequence]
        if sequence not in self._folders:
            raise self._no_sequence(sequence)
        if len(self._files) >= _REMEMBERED:
            self._files.clear()
        folder = self.path / self._folders[sequence]
        found: dict[str, dict[int, str]] = {}
        for number, name in sorted(object_numbers(folder).items()):
            identity = number + 1 - self.first_object
            if not 1 <= identity < VOID:
                raise ValueError(
                    f"object folder {folder / name} is id {identity}, expected 1..{VOID - 1} with "
                    f"{self.first_object} as the first object"
                )
            for frame, file in label_files(folder / name).items():
                found.setdefault(frame, {})[identity] = f"{name}/{file}"
        self._files[sequence] = {frame: found[frame] for frame in sorted(found, key=natural_order)}
        return self._files[sequence]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}


def require_ids(labels: Tensor, where: str | Path) -> None:
    """Refuses a label map that holds 255.

    Raises:
        ValueError: 255 is void in a truth and no object in a prediction.
    """
    if labels.numel() and int(labels.numpy().max()) == VOID:  # four times faster than Tensor.max
        raise ValueError(
            f"prediction {where} holds the value 255, expected object ids up to {VOID - 1}: if 0 and 255 are "
            "background and the one object, pass kind='binary'; 255 as void belongs to the truth (are truth "
            "and predictions swapped?)"
        )


def label_files(folder: Path) -> dict[str, str]:
    """Frame name -> file name of the label images of a folder, in the order of the numbers in them.

    Raises:
        ValueError: two files for one frame, or JPEGs.
    """
    found = [name for name in os.listdir(folder) if is_label_file(name)]
    found.sort(key=None if len({len(name) for name in found}) == 1 else natural_order)
    names = {frame_name(name): name for name in found}
    if len(names) < len(found):
        for first, second in pairwise(sorted(found)):
            if frame_name(first) == frame_name(second):
                raise ValueError(f"two files for one frame in {folder}: {first} and {second}; keep one")
    return names


def is_label_file(name: str) -> bool:
    """Whether a file name is that of an image without loss, so that it can hold ids."""
    return name.lower().endswith(LABEL_SUFFIXES) and not name.startswith(".")


def object_numbers(folder: Path) -> dict[int, str]:
    """Number -> name of the object folders in a sequence's folder; empty when there are none.

    Raises:
        ValueError: two folders with the same number.
    """
    found: dict[int, str] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.isdecimal() and entry.is_dir():
                if int(entry.name) in found:
                    raise ValueError(
                        f"two folders for object {int(entry.name)} in {folder}: {found[int(entry.name)]} and "
                        f"{entry.name}; keep one"
                    )
                found[int(entry.name)] = entry.name
    return found
