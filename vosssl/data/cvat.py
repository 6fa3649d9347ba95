"""Labels from CVAT's XML 1.1: tracks of a video (CVAT for video), or shapes of images (CVAT for images)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from vosssl.data.label_sources import DrawnLabels, LabelOptions, LabelSet, number_objects, overlay
from vosssl.data.polygons import box_mask, ellipse_mask, polygon_mask
from vosssl.ops.resize import Size

_AREAS = ("box", "polygon", "mask", "ellipse")


class _Shape(NamedTuple):
    """A shape of a track at one frame: what is drawn, with its numbers."""

    frame: int
    kind: str
    numbers: (
        np.ndarray
    )  # box: left, top, right, bottom; polygon: (N, 2); ellipse: x, y, rx, ry; mask: run lengths
    outside: bool
    above: int  # z_order
    degrees: float
    place: tuple[int, int, int, int]  # of a mask: left, top, width, height


class _Plain(ElementTree.TreeBuilder):
    """Builds the tree of a file that defines no entities, which could expand without end."""

    def doctype(self, name: str, *_: object) -> None:
        raise ValueError(f"it has a DOCTYPE ({name}), expected none: CVAT writes no such file")


class CvatLabels(LabelSet):
    """A CVAT file of one video (or of a folder of images); see CvatVideo."""

    def source(self, video: str, frames: Sequence[str] | None) -> CvatVideo:
        return CvatVideo(self.path, frames, video=video, options=self.options)


class CvatVideo(DrawnLabels):
    """The tracks of one video.

    A frame is labelled when a shape is visible in it. Between two keyframes boxes and ellipses move linearly
    and masks stay, as in CVAT; polygons move from corner to corner, corners matched by their place along the
    outline (CVAT also thins out corners that come close to each other, which is left out here). The last
    shape stays to the end unless it is outside. Ids are 1, 2, … in the order of the tracks; tracks of one
    group are one object. In a file for images, an object is a group, else one shape of one image.

    Args:
        path: the file.
        frames: names of the frames in order, which the file numbers from 0; None: those of a video file.
        video: its name.
        options: how labels are understood.

    Raises:
        ValueError: no such file, a damaged one, or one that is not CVAT's.

    Source: docs.cvat.ai, XML annotation format 1.1; TrackManager of cvat-ai/cvat
        (cvat/apps/dataset_manager/annotation.py).
    """

    def __init__(
        self, path: Path, frames: Sequence[str] | None, *, video: str, options: LabelOptions
    ) -> None:
        root = _parsed(path)
        self._own = _original_size(root)
        self._tracks, ends = _tracks(path, root, frames)
        last = max(ends, default=-1) if frames is None else len(frames) - 1
        named = [f"{index:05d}" for index in range(last + 1)] if frames is None else frames
        where = f"{path}, video {video},"
        numbers = number_objects((key for key, _ in self._tracks), where=where)
        self._ids = [numbers[key] for key, _ in self._tracks]
        step = _step(root)
        visible = {
            name: index
            for index, name in enumerate(named)
            if any(_around(shapes, index, step) for _, shapes in self._tracks)
        }
        super().__init__(path, frozenset(visible), video=video, options=options)
        self._index = visible
        self._frame_step = step

    def _labels(self, frame: str, size: Size) -> Tensor:
        own = self._own or size
        index = self._index[frame]
        found = [
            (shape, identity)
            for (_, shapes), identity in zip(self._tracks, self._ids, strict=True)
            if (shape := _at(shapes, index, self._frame_step)) is not None
        ]
        found.sort(key=lambda pair: pair[0].above)  # of equals, the later track lies above
        return overlay(((identity, self._mask(shape, own, frame)) for shape, identity in found), own)

    def _mask(self, shape: _Shape, size: Size, frame: str) -> Tensor:
        try:
            if shape.kind == "polygon":
                return polygon_mask(shape.numbers, size)
            if shape.kind == "mask":
                return _pasted(shape, size)
            one, two, three, four = shape.numbers.tolist()
            draw = box_mask if shape.kind == "box" else ellipse_mask
            return draw(one, two, three, four, size, degrees=shape.degrees)
        except ValueError as error:
            raise ValueError(f"{self.where(frame)}: a {shape.kind}: {error}") from error


def _parsed(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_Plain())).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} is no readable XML: {error}") from error
    if root is None or root.tag != "annotations":
        found = None if root is None else root.tag
        raise ValueError(f"{path} is XML of <{found}>, expected <annotations>, as CVAT exports them")
    return root


def _original_size(root: ElementTree.Element) -> Size | None:
    """(H, W) that the coordinates are in; a file for images has it in every image."""
    size = root.find(".//original_size")
    place = size if size is not None else root.find("image")
    if place is None:
        return None
    read = place.findtext if size is not None else place.get
    width, height = read("width"), read("height")
    return (int(float(height)), int(float(width))) if width and height else None


def _step(root: ElementTree.Element) -> int:
    """Distance of the frames that a task was made of, which it numbers as the video does."""
    words = (root.findtext(".//frame_filter") or "").replace(" ", "")
    return max(1, int(words[5:])) if words.startswith("step=") and words[5:].isdecimal() else 1


def _tracks(
    path: Path, root: ElementTree.Element, frames: Sequence[str] | None
) -> tuple[list[tuple[str, list[_Shape]]], list[int]]:
    """Tracks as (what names the object, shapes in order), and the last frames that the file speaks of."""
    found: list[tuple[str, list[_Shape]]] = []
    ends = []
    try:
        size, start = root.findtext(".//task/size"), root.findtext(".//task/start_frame")
        ends.append(int(start or 0) + int(size or 0) * _step(root) - 1)
        for place, track in enumerate(root.iter("track")):
            shapes = sorted((_shape(item) for item in track if item.tag in _AREAS), key=lambda one: one.frame)
            if shapes:
                found.append((_name(track, f"track {place}"), shapes))
                ends.append(shapes[-1].frame)
        numbers = {name: index for index, name in enumerate(frames or ())}
        for image in root.iter("image"):
            name = PurePosixPath(image.get("name", "")).stem
            frame = numbers.get(name, -1) if frames else int(image.get("id", "-1"))
            ends.append(frame)
            if frame < 0:  # of another video
                continue
            for place, item in enumerate(one for one in image if one.tag in _AREAS):
                shape = _shape(item)._replace(frame=frame)
                gone = shape._replace(frame=frame + 1, outside=True)
                found.append((_name(item, f"image {name} shape {place}"), [shape, gone]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not as CVAT exports it: {error!r}") from error
    return found, ends


def _name(item: ElementTree.Element, otherwise: str) -> str:
    group = item.get("group_id", "0")
    return f"group {group}" if group not in ("", "0") else otherwise


def _shape(item: ElementTree.Element) -> _Shape:
    keys = {
        "box": ("xtl", "ytl", "xbr", "ybr"),
        "ellipse": ("cx", "cy", "rx", "ry"),
    }.get(item.tag, ())
    place = (0, 0, 0, 0)
    if item.tag == "polygon":
        pairs = item.attrib["points"].split(";")
        numbers = np.array([[float(part) for part in pair.split(",")] for pair in pairs])
    elif item.tag == "mask":
        numbers = np.array([int(part) for part in item.attrib["rle"].split(",")], np.int64)
        left, top, width, height = (int(item.attrib[key]) for key in ("left", "top", "width", "height"))
        place = (left, top, width, height)
    else:
        numbers = np.array([float(item.attrib[key]) for key in keys])
    return _Shape(
        frame=int(item.get("frame", "0")),
        kind=item.tag,
        numbers=numbers,
        outside=item.get("outside", "0") == "1",
        above=int(item.get("z_order", "0")),
        degrees=float(item.get("rotation", "0")),
        place=place,
    )


def _around(shapes: list[_Shape], frame: int, step: int) -> tuple[_Shape, _Shape | None] | None:
    """The shapes of a track at or before a frame, and after it; None where the track is not visible."""
    after = bisect_right(shapes, frame, key=lambda shape: shape.frame)
    if after == 0 or shapes[after - 1].outside or (frame - shapes[0].frame) % step:
        return None
    return shapes[after - 1], shapes[after] if after < len(shapes) else None


def _at(shapes: list[_Shape], frame: int, step: int) -> _Shape | None:
    """The shape of a track at a frame, or None where it is not visible."""
    around = _around(shapes, frame, step)
    if around is None:
        return None
    before, following = around
    if following is None or following.outside or before.frame == frame or before.kind == "mask":
        return before
    if following.kind != before.kind:
        return before
    share = (frame - before.frame) / (following.frame - before.frame)
    turn = (following.degrees - before.degrees + 180) % 360 - 180  # the shorter way round
    return before._replace(
        numbers=_between(before.numbers, following.numbers, share), degrees=before.degrees + turn * share
    )


def _between(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """Numbers part of the way from one shape to the next."""
    if before.ndim == 2:
        first, second = _matched_corners(_along(before), _along(after))
        before, after = before[first], after[second]
    return before + (after - before) * share


def _along(corners: np.ndarray) -> np.ndarray:
    """(N,) places of corners (N, 2) along their closed outline, from 0 to below 1."""
    lengths = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
    return (np.cumsum(lengths) - lengths) / max(float(lengths.sum()), 1e-9)


def _matched_corners(first: np.ndarray, second: np.ndarray) -> tuple[list[int], list[int]]:
    """Pairs of corners: each with the nearest of the other outline, in order; none is left out."""
    pairs = {(place, int(np.abs(second - value).argmin())) for place, value in enumerate(first)}
    taken = {pair[1] for pair in pairs}
    pairs |= {
        (int(np.abs(first - value).argmin()), place)
        for place, value in enumerate(second)
        if place not in taken
    }
    ordered = sorted(pairs)
    return [pair[0] for pair in ordered], [pair[1] for pair in ordered]


def _pasted(shape: _Shape, size: Size) -> Tensor:
    """(H, W) bool of run lengths that go row by row through a box."""
    left, top, width, height = shape.place
    counts = shape.numbers
    if counts.sum() != width * height or (counts < 0).any():
        raise ValueError(f"its run lengths add up to {counts.sum()}, expected {width} x {height} pixels")
    piece = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    mask = torch.zeros(size, dtype=torch.bool)
    row, column = max(0, top), max(0, left)
    cut = torch.from_numpy(piece)[row - top :, column - left :][: size[0] - row, : size[1] - column]
    mask[row : row + cut.shape[0], column : column + cut.shape[1]] = cut
    return mask
