"""Label maps of a video as CVAT's XML 1.1 for video, a track of masks for each object; `cvat` reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from torch import Tensor

from vosssl.data.coco_export import UNNAMED, box_of
from vosssl.data.files import atomic_write
from vosssl.data.rle import run_lengths
from vosssl.ops.masks import object_ids


def write_cvat(
    path: str | Path,
    frames: Iterable[tuple[int, Tensor]],
    *,
    video: str,
    length: int,
    names: Mapping[int, str] | None = None,
) -> int:
    """Writes one video.

    Args:
        path: the XML file, replaced at once when it is complete.
        frames: numbers of frames, ascending, and their (H, W) uint8 ids; void is left out.
        video: its name.
        length: frames of the whole video.
        names: labels of objects; those without one are "object".

    Returns:
        The number of masks.

    Raises:
        ValueError: no frame.

    Source: docs.cvat.ai, XML annotation format 1.1: run lengths go row by row through the mask's box. A track
        is `outside` in the frame after its last mask, so that it does not stay.
    """
    called = dict(names or {})
    tracks: dict[int, list[tuple[int, dict[str, str]]]] = {}
    size, count = None, 0
    for number, labels in frames:
        size = labels.shape
        for identity in object_ids(labels):
            tracks.setdefault(identity, []).append((number, _mask(labels == identity)))
            count += 1
    if size is None:
        raise ValueError(f"video {video} has no labelled frame; there is nothing to write to {path}")
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    facts = {
        "name": video,
        "size": length,
        "mode": "interpolation",
        "start_frame": 0,
        "stop_frame": length - 1,
    }
    for key, value in facts.items():
        ElementTree.SubElement(task, key).text = str(value)
    labels_node = ElementTree.SubElement(task, "labels")
    for name in sorted({called.get(identity, UNNAMED) for identity in tracks}):
        label = ElementTree.SubElement(labels_node, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "mask"
    original = ElementTree.SubElement(task, "original_size")
    ElementTree.SubElement(original, "width").text = str(size[1])
    ElementTree.SubElement(original, "height").text = str(size[0])
    for place, identity in enumerate(sorted(tracks)):
        track = ElementTree.SubElement(
            root, "track", id=str(place), label=called.get(identity, UNNAMED), source="semi-auto"
        )
        _add_shapes(track, tracks[identity], length)
    with atomic_write(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
    return count


def _add_shapes(track: ElementTree.Element, shapes: list[tuple[int, dict[str, str]]], length: int) -> None:
    following = [number for number, _ in shapes[1:]] + [length]
    for (number, mask), after in zip(shapes, following, strict=True):
        common = {"keyframe": "1", "occluded": "0", "z_order": "0", **mask}
        ElementTree.SubElement(track, "mask", {"frame": str(number), "outside": "0", **common})
        if number + 1 < after:
            ElementTree.SubElement(track, "mask", {"frame": str(number + 1), "outside": "1", **common})


def _mask(mask: Tensor) -> dict[str, str]:
    left, top, width, height = box_of(mask)
    counts = run_lengths(mask[top : top + height, left : left + width].T)  # columns of the turned: rows
    return {
        "rle": ", ".join(map(str, counts.tolist())),
        "left": str(left),
        "top": str(top),
        "width": str(width),
        "height": str(height),
    }
