"""One scene of MOVi: a TFRecord of which only what is asked for is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vosssl.clip import Clip, Frame
from vosssl.data.io import decode_planes
from vosssl.data.sources import Video
from vosssl.data.tf_example import (
    Feature,
    Kind,
    Span,
    bytes_spans,
    bytes_values,
    decode_varints,
    example_features,
    float_values,
    int64_spans,
    int64_values,
    varint_offsets,
)
from vosssl.data.tfrecord import Payload, TFRecordFile
from vosssl.data.views import View, seen_flow, whole
from vosssl.ops.resize import Size, resize_image, resize_labels

_LARGEST = 65535.0  # what a range's end is stored as

_STORED: dict[str, tuple[int, type]] = {  # channels and type of the fields that are lists of PNGs
    "video": (3, np.uint8),
    "segmentations": (1, np.uint8),
    "depth": (1, np.uint16),
    "normal": (3, np.uint16),
    "object_coordinates": (3, np.uint16),
}
_KINDS: tuple[Kind, ...] = ("bytes", "float", "int64")
_READ = (  # of the fifty fields of a record those that can be asked for
    *_STORED,
    "forward_flow",
    "backward_flow",
    "metadata/video_name",
    "metadata/depth_range",
    "metadata/forward_flow_range",
    "metadata/backward_flow_range",
    "instances/visibility",
    "instances/bboxes/ragged_flat_values",
    "instances/bboxes/ragged_row_lengths_0",
    "instances/bbox_frames/ragged_flat_values",
)


class MoviInstances(NamedTuple):
    """What is known about the N objects of a scene; object n has id n + 1 in the labels.

    Attributes:
        boxes: (N, T, 4) float32, top, left, bottom, right as fractions of the image; NaN where not visible.
        visibility: (N, T) int64, visible pixels in each frame as it was rendered, whatever the stored size.
    """

    boxes: Tensor
    visibility: Tensor


class MoviVideo(Video):
    """One scene of MOVi: a record of a shard, of which only what is asked for is decoded.

    Args:
        file: the shard.
        number: of the record in it.
        name: name of the video.
        native_size: (H, W) of its frames.
        length: number of its frames.
        labels: read `segmentations`: 0 background, object n of the scene is n + 1.
        flow: clips carry `forward_flow`.
        size: see Video.
        read_ahead: see Video.

    Source: Greff et al., "Kubric: A scalable dataset generator", CVPR 2022; google-research/kubric,
        challenges/movi; flow is stored as (row, column) and becomes (x, y) here.
    """

    def __init__(
        self,
        file: TFRecordFile,
        number: int,
        *,
        name: str,
        native_size: Size,
        length: int,
        labels: bool = True,
        flow: bool = False,
        size: Size | int | None = None,
        read_ahead: int = 0,
    ) -> None:
        super().__init__(name, size=size, read_ahead=read_ahead)
        self.file = file
        self.number = number
        self.with_labels = labels
        self.with_flow = flow
        self._native = native_size
        self._length = length
        # kept after the first visit, compactly since sets have ten thousand scenes, so that later visits read
        # only the bytes they need
        self._features: np.ndarray | None = None  # (len(_READ), 3) kind or -1, start, stop
        self._frames: dict[str, np.ndarray] = {}  # feature -> (T, 2) spans of its frames

    @property
    def native_size(self) -> Size:
        return self._native

    @property
    def labelled(self) -> Tensor | None:
        return torch.ones(len(self), dtype=torch.bool) if self.with_labels else None

    @property
    def scene(self) -> str:
        """Name of the scene in the release (`metadata/video_name`), the same at every resolution."""
        with self.file.visit(self.number) as payload:
            return bytes_values(payload, self._feature(payload, "metadata/video_name"))[0].decode()

    def __len__(self) -> int:
        return self._length

    def clip(
        self, indices: Sequence[int], *, size: Size | int | None = None, view: View | None = None
    ) -> Clip:
        """See Video; with `flow`, that of each frame to the next frame of the video, whatever the stride."""
        clip = super().clip(indices, size=size, view=view)
        if not self.with_flow:
            return clip
        height, width = clip.frames.shape[2:]
        view = whole(self._native, (height, width)) if view is None else view
        return replace(clip, flow=seen_flow(self.flow(indices), view))  # nearest: no mean of two motions

    def read_labels(self, index: int) -> Tensor | None:
        if not self.with_labels:
            return None
        with self.file.visit(self.number) as payload:
            return resize_labels(self._labels(payload, index), self.size)

    def flow(self, indices: Sequence[int] | None = None, *, backward: bool = False) -> Tensor:
        """Optical flow of some frames (None: all) at the stored size.

        Args:
            indices: T frames.
            backward: flow to the previous frame instead of the next.

        Returns:
            (T, 2, H, W) float32, (x, y) in pixels; stored in steps of 1/65535 of its range.
        """
        name = "backward_flow" if backward else "forward_flow"
        height, width = self._native
        wanted = self._wanted_frames(indices)
        with self.file.visit(self.number) as payload:
            least, largest = self._range(payload, name)
            spans = self._integer_frames(payload, name)
            stored = np.stack([decode_varints(payload, Span(*map(int, spans[index]))) for index in wanted])
        stored = stored.reshape(len(wanted), height, width, 2)[..., ::-1]  # (row, column) -> (x, y)
        flow = stored.transpose(0, 3, 1, 2) / np.float32(_LARGEST) * (largest - least) + least
        return torch.from_numpy(np.ascontiguousarray(flow, np.float32))

    def depth(self, indices: Sequence[int] | None = None) -> Tensor:
        """(T, H, W) float32 distance of each pixel from the camera's centre, in metres."""
        wanted = self._wanted_frames(indices)
        with self.file.visit(self.number) as payload:
            least, largest = self._range(payload, "depth")
            stored = np.concatenate([self._image(payload, "depth", index) for index in wanted])
        return torch.from_numpy(stored / np.float32(_LARGEST) * (largest - least) + least)

    def normals(self, indices: Sequence[int] | None = None) -> Tensor:
        """(T, 3, H, W) float32 normals of the surfaces in world coordinates, in [-1, 1]."""
        return self._unit_values("normal", indices) * 2 - 1

    def object_coordinates(self, indices: Sequence[int] | None = None) -> Tensor:
        """(T, 3, H, W) float32 position of each pixel in its object's bounding box, in [0, 1]."""
        return self._unit_values("object_coordinates", indices)

    def instances(self) -> MoviInstances:
        """Boxes and visibility of the objects.

        Raises:
            ValueError: a record without them, or with lists that do not fit each other.
        """
        with self.file.visit(self.number) as payload:
            visibility = self._integers(payload, "instances/visibility").reshape(-1, len(self))
            lengths = self._integers(payload, "instances/bboxes/ragged_row_lengths_0")
            frames = self._integers(payload, "instances/bbox_frames/ragged_flat_values")
            feature = self._found(payload, "instances/bboxes/ragged_flat_values")
            flat = np.zeros(0, np.float32) if feature is None else float_values(payload, feature)
            if (
                len(lengths) != len(visibility)
                or lengths.sum() != len(frames)
                or flat.size != 4 * len(frames)
                or (len(frames) and not 0 <= frames.min() <= frames.max() < len(self))
            ):
                raise payload.place.error(
                    f"{len(visibility)} objects with {flat.size // 4} boxes in {len(frames)} frames do not "
                    f"fit lists of {int(lengths.sum())}"
                )
        boxes = np.full((len(visibility), len(self), 4), np.nan, np.float32)
        boxes[np.repeat(np.arange(len(lengths)), lengths), frames] = flat.reshape(-1, 4)
        return MoviInstances(torch.from_numpy(boxes), torch.from_numpy(visibility))

    def _decode(self, indices: Iterable[int] | None, size: Size) -> Iterator[Frame]:
        with self.file.visit(self.number) as payload:
            for index in range(len(self)) if indices is None else indices:
                image = torch.from_numpy(self._image(payload, "video", index))
                labels = resize_labels(self._labels(payload, index), size) if self.with_labels else None
                yield Frame(f"{index:05d}", resize_image(image, size), labels)

    def _labels(self, payload: Payload, index: int) -> Tensor:
        return torch.from_numpy(self._image(payload, "segmentations", index)[0])  # (1, H, W) -> (H, W)

    def _unit_values(self, name: str, indices: Sequence[int] | None) -> Tensor:
        with self.file.visit(self.number) as payload:
            stored = [self._image(payload, name, index) for index in self._wanted_frames(indices)]
        return torch.from_numpy(np.stack(stored) / np.float32(_LARGEST))

    def _wanted_frames(self, indices: Sequence[int] | None) -> list[int]:
        wanted = range(len(self)) if indices is None else [i + len(self) if i < 0 else i for i in indices]
        if not wanted or min(wanted) < 0 or max(wanted) >= len(self):
            raise ValueError(f"video {self.name} has frames 0..{len(self) - 1}, asked for {list(wanted)[:5]}")
        return list(wanted)

    def _image(self, payload: Payload, name: str, index: int) -> np.ndarray:
        """(C, H, W), frame `index` of a list of PNGs."""
        if name not in self._frames:
            spans = bytes_spans(payload, self._feature(payload, name))
            self._frames[name] = self._all_frames(payload, name, spans)
        start, stop = map(int, self._frames[name][index])
        try:
            image = decode_planes(payload.read(start, stop), f"frame {index} of {name}")
        except ValueError as error:
            raise payload.place.error(str(error), at=start) from error
        channels, values = _STORED[name]
        if image.shape != (channels, *self._native) or image.dtype != values:
            raise payload.place.error(
                f"frame {index} of {name} is {image.shape} {image.dtype}, expected "
                f"{(channels, *self._native)} {np.dtype(values)} as in the first record of the set",
                at=start,
            )
        return image

    def _integer_frames(self, payload: Payload, name: str) -> np.ndarray:
        """(T, 2) spans of the frames of a list of integers, (H, W, 2) each."""
        if name not in self._frames:
            runs = int64_spans(payload, self._feature(payload, name))
            if len(runs) != 1:
                raise payload.place.error(f"{name} is stored in {len(runs)} runs of integers, expected 1")
            span = Span(*map(int, runs[0]))
            offsets = varint_offsets(payload, span, every=2 * self._native[0] * self._native[1])
            if offsets[-1] != span.stop:
                raise payload.place.error(f"{name} does not hold whole frames of {self._native}")
            self._frames[name] = self._all_frames(payload, name, np.stack([offsets[:-1], offsets[1:]], 1))
        return self._frames[name]

    def _all_frames(self, payload: Payload, name: str, spans: np.ndarray) -> np.ndarray:
        if len(spans) != len(self):
            raise payload.place.error(f"{name} has {len(spans)} frames, expected {len(self)}")
        return spans

    def _range(self, payload: Payload, name: str) -> tuple[np.float32, np.float32]:
        values = float_values(payload, self._feature(payload, f"metadata/{name}_range"))
        if len(values) != 2:
            raise payload.place.error(f"metadata/{name}_range holds {len(values)} numbers, expected 2")
        return values[0], values[1]

    def _integers(self, payload: Payload, name: str) -> np.ndarray:
        feature = self._found(payload, name)  # an empty list may be left out
        return np.zeros(0, np.int64) if feature is None else int64_values(payload, feature)

    def _feature(self, payload: Payload, name: str) -> Feature:
        feature = self._found(payload, name)
        if feature is None:
            there = ", ".join(sorted(example_features(payload))[:8])
            raise payload.place.error(f"holds no feature {name}, expected a record of MOVi; it has {there}")
        return feature

    def _found(self, payload: Payload, name: str) -> Feature | None:
        if self._features is None:
            found = example_features(payload)
            self._features = np.full((len(_READ), 3), -1, np.int64)
            for row, known in enumerate(_READ):
                if known in found:
                    self._features[row] = (_KINDS.index(found[known].kind), *found[known].span)
        kind, start, stop = map(int, self._features[_READ.index(name)])
        return None if kind < 0 else Feature(name, _KINDS[kind], Span(start, stop))
