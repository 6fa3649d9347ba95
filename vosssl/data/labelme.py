"""Labels from LabelMe: a JSON file beside or apart from every labelled frame."""

from __future__ import annotations

import binascii
import json
import math
import os
from base64 import b64decode
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vosssl.data.io import decode_labels
from vosssl.data.label_sources import DrawnLabels, LabelOptions, number_objects, overlay
from vosssl.data.listing import frame_name, natural_order
from vosssl.data.polygons import box_mask, ellipse_mask, polygon_mask
from vosssl.ops.resize import Size

_NO_AREA = ("point", "points", "line", "linestrip")


class LabelMeVideo(DrawnLabels):
    """The LabelMe files of one video, named like its frames.

    An object is what has one label and group number; its shapes in a frame belong together. Ids are the
    labels where they are whole numbers 1..254 without groups, else 1, 2, … in the order of labels and groups
    over the whole video. Points and lines have no area and are left out.

    Args:
        folder: where the files lie.
        video: name of the video.
        options: how they are understood.
    """

    def __init__(self, folder: Path, *, video: str, options: LabelOptions) -> None:
        names = {frame_name(name): name for name in os.listdir(folder) if name.lower().endswith(".json")}
        super().__init__(folder, frozenset(names), video=video, options=options)
        self._files = names
        self._ids: dict[Hashable, int] | None = None

    def where(self, frame: str) -> str:
        return str(self.folder / self._files[frame])

    def _labels(self, frame: str, size: Size) -> Tensor:
        content = self._parsed(frame)
        own = (int(content.get("imageHeight") or size[0]), int(content.get("imageWidth") or size[1]))
        ids = self._numbers()
        return overlay(
            (
                (ids[_object(shape)], _mask(shape, own, self.where(frame)))
                for shape in content["shapes"]
                if shape.get("shape_type") not in _NO_AREA
            ),
            own,
        )

    def _numbers(self) -> dict[Hashable, int]:
        """Object -> id, the same in all frames; every file is read once for it."""
        if self._ids is None:
            found = {
                _object(shape)
                for frame in self._files
                for shape in self._parsed(frame)["shapes"]
                if shape.get("shape_type") not in _NO_AREA
            }
            ordered = sorted(found, key=lambda pair: (natural_order(pair[0]), pair[1]))
            where = f"{self.folder}, video {self.video},"
            if all(group < 0 and label.isdecimal() for label, group in ordered):
                numbers = number_objects([int(label) for label, _ in ordered], where=where)
                self._ids = {(label, group): numbers[int(label)] for label, group in ordered}
            else:
                self._ids = number_objects(ordered, where=where)
        return self._ids

    def _parsed(self, frame: str) -> dict[str, Any]:
        path = self.folder / self._files[frame]
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise ValueError(f"{path} has no list of shapes, expected the JSON of LabelMe")
        content.pop("imageData", None)  # the frame itself, written as text
        return content


def _object(shape: dict[str, Any]) -> tuple[str, int]:
    """Label and group of a shape; without a group, -1."""
    group = shape.get("group_id")
    return str(shape["label"]), -1 if group is None else int(group)


def _mask(shape: dict[str, Any], size: Size, where: str) -> Tensor:
    """(H, W) bool mask of one shape."""
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    try:
        if kind == "polygon":
            return polygon_mask(points, size)
        if kind == "rectangle":
            (left, right), (top, bottom) = (sorted(axis) for axis in zip(*points, strict=True))
            return box_mask(left, top, right, bottom, size)
        if kind == "circle":
            (x, y), edge = points
            radius = math.dist((x, y), edge)
            return ellipse_mask(x, y, radius, radius, size)
        if kind == "mask":
            return _pasted(shape, size, where)
    except ValueError as error:
        raise ValueError(f"{where}: the {kind} of {shape['label']}: {error}") from error
    raise ValueError(
        f"{where}: a shape of type {kind!r}, expected polygon, rectangle, circle or mask; draw it as one"
    )


def _pasted(shape: dict[str, Any], size: Size, where: str) -> Tensor:
    """The mask of an image in the file, whose first corner is the first point."""
    (left, top), _ = shape["points"]
    try:
        piece = decode_labels(b64decode(shape["mask"], validate=True), where, binary=True) > 0  # (h, w)
    except binascii.Error as error:
        raise ValueError(f"its mask is damaged: {error}") from error
    mask = torch.zeros(size, dtype=torch.bool)
    row, column = max(0, int(top)), max(0, int(left))
    piece = piece[row - int(top) :, column - int(left) :][: size[0] - row, : size[1] - column]
    mask[row : row + piece.shape[0], column : column + piece.shape[1]] = piece
    return mask
