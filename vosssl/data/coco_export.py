"""Label maps of a video as COCO JSON with run lengths; `coco_json` reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vosssl.data.files import atomic_write
from vosssl.data.rle import encode_rle
from vosssl.ops.masks import object_ids

UNNAMED = "object"


def write_coco(
    path: str | Path,
    frames: Iterable[tuple[str, Tensor]],
    *,
    video: str,
    names: Mapping[int, str] | None = None,
) -> dict[str, int]:
    """Writes one video.

    Args:
        path: the JSON file, replaced at once when it is complete.
        frames: names of frames and their (H, W) uint8 ids; void is left out.
        video: its name; file names are VIDEO/FRAME.jpg.
        names: what an object is called; each name is a category, objects without one are "object".

    Returns:
        How many images, annotations and categories were written.

    Raises:
        ValueError: no frame.

    Source: the format page of cocodataset.org; `track_id` as TAO and CVAT write it, the object's id.
    """
    called = dict(names or {})
    categories: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, labels in frames:
        height, width = labels.shape
        image = len(images) + 1
        images.append(
            {"id": image, "file_name": f"{video}/{name}.jpg", "height": height, "width": width, "frame": name}
        )
        for identity in object_ids(labels):
            mask = labels == identity
            category = categories.setdefault(called.get(identity, UNNAMED), len(categories) + 1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "track_id": identity,
                    "segmentation": {"size": [height, width], "counts": encode_rle(mask)},
                    "area": int(mask.sum()),
                    "bbox": box_of(mask),
                    "iscrowd": 0,
                }
            )
    if not images:
        raise ValueError(f"video {video} has no labelled frame; there is nothing to write to {path}")
    content = {
        "info": {"description": f"masks of {video}"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content))
    return {"images": len(images), "annotations": len(annotations), "categories": len(categories)}


def box_of(mask: Tensor) -> list[int]:
    """[left, top, width, height] in pixels of a mask (H, W) bool that is not empty."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    top, left = int(rows[0]), int(columns[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
