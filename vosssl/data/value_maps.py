"""Labels from images whose values are no ids yet: panoptic maps (VIPSeg), colours or greys (FBMS-59).

Their ids are given by the order of the values that occur in a video, so that an object keeps its id: all its
label files are read once, when the first is asked for.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.label_sources import DrawnLabels, LabelOptions, number_objects
from vosssl.data.listing import frame_name, label_names
from vosssl.ops.resize import Size

_STUFF = 124  # the last class of VIPSeg; values above are class * 100 + instance
_NO_OBJECT = 200  # "ceiling", which is stuff, with an instance number: a slip in some maps, read as void
_DARK = {"marple2": 102, "marple7": 12}  # grey values up to which FBMS-59's videos show background, of 255
_DARK_ELSEWHERE = 25
_NUMBER = re.compile(r"(\d+)\D*$")


class ValueMaps(DrawnLabels):
    """Label files of one video whose values become ids in rising order.

    Args:
        folder: where they lie.
        files: frame name -> file name.
        video: its name.
        options: how they are understood.
    """

    def __init__(self, folder: Path, files: Mapping[str, str], *, video: str, options: LabelOptions) -> None:
        super().__init__(folder, frozenset(files), video=video, options=options)
        self._files = dict(files)
        self._values: np.ndarray | None = None  # (N,), the value of id 1, 2, …

    def where(self, frame: str) -> str:
        return str(self.folder / self._files[frame])

    @abstractmethod
    def _read(self, frame: str) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) int64 values, 0 where no object is, and (H, W) bool where the truth is void."""

    def _labels(self, frame: str, size: Size) -> Tensor:
        if self._values is None:
            seen = np.unique(np.concatenate([np.unique(self._read(name)[0]) for name in self._files]))
            seen = seen[seen > 0]
            number_objects(range(len(seen)), where=f"{self.folder}, video {self.video},")
            self._values = seen
        values, void = self._read(frame)
        labels = np.where(values > 0, np.searchsorted(self._values, values) + 1, 0)
        labels[void] = VOID
        return torch.from_numpy(labels.astype(np.uint8))


class PanopticMaps(ValueMaps):
    """VIPSeg: 16-bit PNGs; 0 is void, up to 124 a class of stuff, above that class * 100 + instance.

    Args:
        folder: where they lie.
        video: its name.
        options: how they are understood.
        regions: `things`: they are the objects, stuff is background; `all`: stuff is objects too.

    Source: README of VIPSeg-Dataset/VIPSeg-Dataset.
    """

    def __init__(
        self,
        folder: Path,
        *,
        video: str,
        options: LabelOptions,
        regions: Literal["things", "all"] = "things",
    ) -> None:
        super().__init__(folder, label_names(folder), video=video, options=options)
        self.regions = regions

    def _read(self, frame: str) -> tuple[np.ndarray, np.ndarray]:
        values = _pixels(self.folder / self._files[frame])
        if values.ndim != 2:
            raise ValueError(
                f"{self.where(frame)} is in colour, expected a 16-bit grey PNG of panoptic values"
            )
        void = (values == 0) | (values == _NO_OBJECT)
        if self.regions == "things":
            values = np.where(values > _STUFF, values, 0)
        return np.where(void, 0, values), void


class ColourMaps(ValueMaps):
    """FBMS-59: sparse label images, grey on black (pgm, png) or coloured on white (ppm).

    A label file belongs to the frame of its name, without `_gt`; where there is none, to the frame whose name
    ends in the same number. Where a folder has both kinds, the coloured ones count. Grey values up to 25 of
    255 (102 in marple2, 12 in marple7) are background, as in the readers that published numbers come from.

    Args:
        folder: where they lie.
        frames: names of the video's frames.
        video: its name.
        options: how they are understood.

    Source: the layout that charigyang/motiongrouping (tools/FBMS_clean.py, commit e7d955e) reads.
    """

    def __init__(self, folder: Path, frames: tuple[str, ...], *, video: str, options: LabelOptions) -> None:
        super().__init__(folder, _colour_files(folder, frames), video=video, options=options)
        self._dark = _DARK.get(video.rpartition("/")[2], _DARK_ELSEWHERE)

    def _read(self, frame: str) -> tuple[np.ndarray, np.ndarray]:
        pixels = _pixels(self.folder / self._files[frame])
        on_white = self._files[frame].lower().endswith(".ppm")
        grey = pixels if pixels.ndim == 2 else pixels[..., :3].astype(np.float64) @ (0.114, 0.587, 0.299)
        values = pixels
        if pixels.ndim == 3:
            values = pixels[..., :3].astype(np.int64) @ (1, 256, 65536)  # BGR -> one number
        background = grey <= self._dark
        if on_white:
            background |= grey > 252
        return np.where(background, 0, values).astype(np.int64), np.zeros(values.shape, bool)


def _colour_files(folder: Path, frames: tuple[str, ...]) -> dict[str, str]:
    """Frame name -> label file."""
    if not folder.is_dir():
        return {}
    names = sorted(name for name in os.listdir(folder) if "PROB" not in name and not name.startswith("."))
    coloured = [name for name in names if name.lower().endswith(".ppm")]
    found = coloured or [name for name in names if name.lower().endswith((".pgm", ".png"))]
    known, numbered = set(frames), {}
    for frame in frames:
        match = _NUMBER.search(frame)
        if match:
            numbered[int(match[1])] = frame
    files = {}
    for name in found:
        stem = frame_name(name).removesuffix("_gt")
        match = _NUMBER.search(stem)
        by_number = numbered.get(int(match[1])) if match else None
        owner = stem if stem in known else by_number
        if owner is None:
            raise ValueError(f"label file {folder / name} belongs to no frame, frames are like {frames[0]}")
        files[owner] = name
    return files


def _pixels(path: Path) -> np.ndarray:
    """(H, W) or (H, W, 3) BGR, at the depth of the file."""
    encoded = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    if pixels is None:
        raise ValueError(f"label file {path} ({encoded.size} bytes) is truncated or damaged; get it again")
    return np.asarray(pixels)
