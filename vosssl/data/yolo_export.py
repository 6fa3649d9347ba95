"""Label maps of a video as YOLO's segmentation text files: a line `class x y x y …` for each object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from vosssl.data.coco_export import UNNAMED
from vosssl.data.files import atomic_write
from vosssl.data.io import write_image
from vosssl.ops.masks import object_ids


def write_yolo(
    folder: str | Path,
    frames: Iterable[tuple[str, Tensor, Tensor]],
    *,
    names: Mapping[int, str] | None = None,
) -> int:
    """Writes `images/NAME.jpg`, `labels/NAME.txt` and `data.yaml`, which names the classes.

    Args:
        folder: gets them.
        frames: names of frames, (3, H, W) uint8 images, (H, W) uint8 ids; void is left out.
        names: classes of objects; those without one are "object".

    Returns:
        The number of objects over all frames.

    Raises:
        ValueError: no frame.

    Source: docs.ultralytics.com, instance segmentation datasets. A line is one outline: those of more parts
        and of holes hang on the first one by a bridge there and back.
    """
    called, classes = dict(names or {}), dict[str, int]()
    folder, written, count = Path(folder), 0, 0
    for name, image, labels in frames:
        lines = []
        for identity in object_ids(labels):
            number = classes.setdefault(called.get(identity, UNNAMED), len(classes))
            points = outline(labels == identity) / np.array(labels.shape[::-1])
            lines.append(f"{number} " + " ".join(f"{value:.6g}" for value in points.flatten()) + "\n")
        write_image(folder / "images" / f"{name}.jpg", image)
        with atomic_write(folder / "labels" / f"{name}.txt", durable=False) as path:
            path.write_text("".join(lines))
        written, count = written + 1, count + len(lines)
    if not written:
        raise ValueError(f"there is no labelled frame; nothing was written to {folder}")
    rows = "".join(f"  {number}: {json.dumps(name)}\n" for name, number in classes.items())
    with atomic_write(folder / "data.yaml") as path:
        path.write_text(f"path: .\ntrain: images\nval: images\nnames:\n{rows}")
    return count


def outline(mask: Tensor) -> np.ndarray:
    """One closed outline of a mask.

    Args:
        mask: (H, W) bool, not empty.

    Returns:
        (N, 2) float x and y in pixels, N at least 3: middles of the pixels on the border, which OpenCV's
        fillPoly fills to the mask again, but for bridges between parts.
    """
    found, _ = cv2.findContours(mask.byte().numpy(), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = sorted((part[:, 0] for part in found), key=len, reverse=True)  # (n, 2) each
    path = parts[0]
    for part in parts[1:]:
        distances = np.abs(path[:, None] - part[None]).sum(-1)  # (n, m)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        round_trip = np.concatenate([part[there:], part[: there + 1]])
        path = np.concatenate([path[: here + 1], round_trip, path[here:]])
    while len(path) < 3:
        path = np.concatenate([path, path[-1:]])
    return path + 0.5
