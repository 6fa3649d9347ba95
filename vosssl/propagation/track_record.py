"""What a person said about the objects of a video, and how far they were tracked; as files, too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vosssl.data.files import atomic_write
from vosssl.data.io import read_labels, write_labels
from vosssl.ops.masks import labels_to_masks
from vosssl.ops.resize import Size

Masks = Mapping[int, Tensor]  # (H, W) bool by object, without overlap; an empty one: the object is not there


class Reached(NamedTuple):
    """Where a segmenter stands.

    Attributes:
        frame: that it saw last.
        step: 1 forward, -1 towards the beginning.
        followed: objects that the pass follows.
        changing: those whose masks may change in frames that have labels.
        fresh: those that were said of the frame after the segmenter saw it.
    """

    frame: int
    step: int
    followed: frozenset[int]
    changing: frozenset[int]
    fresh: tuple[int, ...] = ()


@dataclass(frozen=True)
class Record:
    """All of a session that is not label files; replaced as a whole, never changed.

    Attributes:
        objects: ids, in order of arrival.
        next_identity: of the next new object; ids of removed objects are not used again.
        said: accepted masks, by frame.
        confidence: of objects, by frame.
        reached: where the segmenter stands; None: it has to start anew.
    """

    objects: tuple[int, ...] = ()
    next_identity: int = 1
    said: Mapping[int, Masks] = field(default_factory=dict)
    confidence: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    reached: Reached | None = None


def labels_of(masks: Masks, size: Size) -> Tensor:
    """(H, W) uint8 ids of masks (H, W) bool by id."""
    labels = torch.zeros(size, dtype=torch.uint8)
    for identity, mask in masks.items():
        labels[mask] = identity
    return labels


def masks_of(labels: Tensor, ids: Sequence[int]) -> Masks:
    """(H, W) bool by object, of a label map (H, W) uint8."""
    return dict(zip(ids, labels_to_masks(labels, ids), strict=True))


def save_record(record: Record, folder: Path, *, video: str, size: Size, before: Record | None) -> None:
    """Writes `session.json` and the accepted masks, so that they can be read again.

    Args:
        record: what to write.
        folder: gets them.
        video: name of the video.
        size: (H, W) of its frames.
        before: what was written last; masks that are the same are not written again.
    """
    for frame, masks in record.said.items():
        if before is None or before.said.get(frame) is not masks:
            write_labels(_mask_file(folder, frame), labels_of(masks, size))
    for frame in set(before.said if before else ()) - set(record.said):
        _mask_file(folder, frame).unlink(missing_ok=True)
    content = {
        "video": video,
        "size": list(size),
        "objects": record.objects,
        "next_identity": record.next_identity,
        "said": {frame: sorted(masks) for frame, masks in record.said.items()},
        "confidence": record.confidence,
    }
    with atomic_write(folder / "session.json") as path:
        path.write_text(json.dumps(content))


def load_record(folder: Path, *, video: str, size: Size) -> Record:
    """What `save_record` wrote.

    Raises:
        ValueError: a folder of another video, or damaged files.
    """
    path = folder / "session.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        height, width = content["size"]
        theirs = (str(content["video"]), (int(height), int(width)))
        _require_same(theirs, (video, (size[0], size[1])), folder)
        said = {}
        for frame, ids in content["said"].items():
            said[int(frame)] = masks_of(read_labels(_mask_file(folder, int(frame)), size=size), ids)
        record = Record(
            objects=tuple(map(int, content["objects"])),
            next_identity=int(content["next_identity"]),
            said=said,
            confidence={
                int(frame): {int(identity): float(value) for identity, value in values.items()}
                for frame, values in content["confidence"].items()
            },
        )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); move it away to begin anew") from error
    return record


def _require_same(theirs: tuple[str, Size], ours: tuple[str, Size], folder: Path) -> None:
    if theirs != ours:
        (name, size), (own, own_size) = theirs, ours
        raise ValueError(
            f"{folder} holds a session about {name} of {size[0]} x {size[1]}, not about {own} of "
            f"{own_size[0]} x {own_size[1]}; choose another folder"
        )


def _mask_file(folder: Path, frame: int) -> Path:
    return folder / "said" / f"{frame:06d}.png"
