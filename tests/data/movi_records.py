"""Scenes in the feature layout of the MOVi release (kubric, challenges/movi), for tests."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tests.data.records import Values, example, write_records

OBJECTS = 3


class Scene(NamedTuple):
    """What was written."""

    video: np.ndarray  # (T, H, W, 3) uint8
    segmentations: np.ndarray  # (T, H, W) uint8
    forward_flow: np.ndarray  # (T, H, W, 2) uint16, (row, column)
    backward_flow: np.ndarray
    depth: np.ndarray  # (T, H, W) uint16
    normal: np.ndarray  # (T, H, W, 3) uint16
    boxes: list[list[list[float]]]  # per object, per visible frame
    box_frames: list[list[int]]
    visibility: np.ndarray  # (N, T)
    features: dict[str, Values]


def png(image: np.ndarray) -> bytes:
    """(H, W) or (H, W, 3) RGB, uint8 or uint16."""
    stored = image[..., ::-1] if image.ndim == 3 else image
    return cv2.imencode(".png", stored)[1].tobytes()


def make_scene(seed: int, *, frames: int = 5, size: tuple[int, int] = (16, 16)) -> Scene:
    """A scene of random values, all fields that the release has (collisions and camera in short)."""
    generator = np.random.default_rng(seed)
    shape = (frames, *size)
    video = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
    labels = np.zeros(shape, np.uint8)
    boxes: list[list[list[float]]] = []
    box_frames: list[list[int]] = []
    visibility = np.zeros((OBJECTS, frames), np.int64)
    for number in range(OBJECTS - 1):  # the last object is never seen
        boxes.append([])
        box_frames.append([])
        for frame in range(number, frames):  # object 1 enters in frame 1
            top, left = frame % 4 + 5 * number, 2 * number
            labels[frame, top : top + 4, left : left + 6] = number + 1
            edges = np.array([top, left, top + 4, left + 6]) / [size[0], size[1], size[0], size[1]]
            boxes[-1].append(edges.astype(np.float32).tolist())
            box_frames[-1].append(frame)
    boxes.append([])
    box_frames.append([])
    for number in range(OBJECTS):
        visibility[number] = (labels == number + 1).sum((1, 2))
    flows = [generator.integers(0, 65536, (*shape, 2)).astype(np.uint16) for _ in range(2)]
    depth = generator.integers(0, 65536, shape).astype(np.uint16)
    normal = generator.integers(0, 65536, (*shape, 3)).astype(np.uint16)
    features: dict[str, Values] = {
        "background": [b"abandoned_church"],
        "camera/positions": generator.random((frames, 3)).astype(np.float32),
        "camera/sensor_width": np.array([32.0], np.float32),
        "events/collisions/frame": np.array([3, 4]),
        "instances/asset_id": [b"Shoe"] * OBJECTS,
        "instances/bbox_frames/ragged_flat_values": np.array(
            [f for row in box_frames for f in row], np.int64
        ),
        "instances/bbox_frames/ragged_row_lengths_0": np.array([len(row) for row in box_frames]),
        "instances/bboxes/ragged_flat_values": np.array([box for row in boxes for box in row], np.float32),
        "instances/bboxes/ragged_row_lengths_0": np.array([len(row) for row in boxes]),
        "instances/is_dynamic": np.array([0, 1, 0]),
        "instances/visibility": visibility,
        "metadata/backward_flow_range": np.array([-3.5, 8.0], np.float32),
        "metadata/depth_range": np.array([2.0, 30.5], np.float32),
        "metadata/forward_flow_range": np.array([-10.0, 6.25], np.float32),
        "metadata/height": np.array([size[0]]),
        "metadata/num_frames": np.array([frames]),
        "metadata/num_instances": np.array([OBJECTS]),
        "metadata/video_name": [str(4000 + seed).encode()],
        "metadata/width": np.array([size[1]]),
        "video": [png(frame) for frame in video],
        "segmentations": [png(frame) for frame in labels],
        "forward_flow": flows[0].astype(np.int64),
        "backward_flow": flows[1].astype(np.int64),
        "depth": [png(frame) for frame in depth],
        "normal": [png(frame) for frame in normal],
        "object_coordinates": [png(65535 - frame) for frame in normal],
    }
    return Scene(video, labels, *flows, depth, normal, boxes, box_frames, visibility, features)


def write_movi(
    root: Path,
    *,
    variant: str = "movi_e",
    splits: tuple[str, ...] = ("train", "validation"),
    shards: int = 2,
    scenes: int = 2,
    frames: int = 5,
    size: tuple[int, int] = (16, 16),
) -> list[Scene]:
    """A set in the folders of the release; returns the scenes of the first split, in order."""
    folder = root / variant / f"{size[0]}x{size[1]}" / "1.0.0"
    written: list[Scene] = []
    for place, split in enumerate(splits):
        for shard in range(shards):
            made = [
                make_scene(100 * place + scenes * shard + n, frames=frames, size=size) for n in range(scenes)
            ]
            name = f"{variant}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
            write_records(folder / name, [example(scene.features) for scene in made])
            written += made if place == 0 else []
    return written
