"""The JSON beside frames: meta.json of YouTube-VOS and its like, and labels of all videos in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vosssl.data.annotations import Annotations
from vosssl.data.check_findings import CheckReport, such_as
from vosssl.data.listing import label_names


def check_meta(image_root: Path, annotations: Path | None, part: str, report: CheckReport) -> None:
    """Compares meta.json beside a part's frames with the folders that are there.

    Args:
        image_root: the folder of frame folders; meta.json lies beside it.
        annotations: the folder of label folders; None leaves the objects' frames unchecked.
        part: for the findings.
        report: gets them.
    """
    path = image_root.parent / "meta.json"
    if not path.is_file():
        if image_root.name == "JPEGImages" and image_root.parent.name in ("train", "valid", "test"):
            message = f"no meta.json in {path.parent}: categories and the frames of objects are unknown"
            report.add("note", "meta-missing", part, message)
        return
    content = _parsed(path, part, report)
    videos = content.get("videos") if isinstance(content, dict) else None
    if content is None:
        return
    if not isinstance(videos, dict):
        report.add("warning", "meta-inconsistent", part, f"{path} holds no `videos`: not used")
        return
    found = {
        entry.name for entry in image_root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    }
    _compare(path, sorted(videos.keys() - found), "names videos that are not there", part, report)
    _compare(path, sorted(found - videos.keys()), "does not name videos that are there", part, report)
    if annotations is not None and annotations.is_dir():
        _compare(
            path, _unlabelled(videos, annotations), "gives objects in frames without labels", part, report
        )


def _unlabelled(videos: dict[str, Any], annotations: Path) -> list[str]:
    """Frames in which meta.json says that an object first appears, and that have no label file."""
    missing = []
    for name, video in videos.items():
        objects = video.get("objects") if isinstance(video, dict) else None
        labels = label_names(annotations / name)
        if not isinstance(objects, dict) or not labels:
            continue
        for entry in objects.values():
            frames = entry.get("frames") if isinstance(entry, dict) else None
            if isinstance(frames, list) and frames and str(frames[0]) not in labels:
                missing.append(f"{name}/{frames[0]}")
    return missing


def _compare(path: Path, names: list[str], what: str, part: str, report: CheckReport) -> None:
    if names:
        message = f"{path} {what} ({such_as(names, len(names))}): it belongs to another copy or release"
        report.add("warning", "meta-inconsistent", part, message, count=len(names))


def labelled_frames(annotations: Annotations, video: str, frames: Sequence[str] | None) -> int:
    """How many frames of a video have labels in a file for all videos.

    Raises:
        ValueError: the file is damaged there.
    """
    names = annotations.of(video, frames).names
    return sum(frame in names for frame in frames) if frames is not None else len(names)


def _parsed(path: Path, part: str, report: CheckReport) -> Any:
    """The content of a JSON file; None, with a finding, where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        report.add("error", "json-damaged", part, f"{path} is truncated or no JSON: {error}; get it again")
        return None
