"""The parts of a dataset as a release or a yaml describes them, and their videos as folders on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vosssl.data.annotations import listed_in
from vosssl.data.check_files import JUNK
from vosssl.data.folders import read_split
from vosssl.data.listing import frames_below, holds_images, natural_order, near_entries


@dataclass(frozen=True, eq=False)
class PartSpec:
    """What a part should be.

    Attributes:
        name: train, val and the like.
        images: folder of the frame folders, below root.
        annotations: folder (or JSON file) of the labels; None where there are none.
        split_file: names the videos; None for every folder.
        labels: all, first, some or none: the frames that have to be labelled.
        binary: labels are 0 and 255; None where that is not said.
        videos: how many there are in the release; None where unknown.
        frames: likewise.
        objects: likewise, counted video by video.
        fps: frames per second of the frames in the release.
        more: what else the release says of the part.
    """

    name: str
    images: str = "JPEGImages"
    annotations: str | None = None
    split_file: str | None = None
    labels: str = "all"
    binary: bool | None = None
    videos: int | None = None
    frames: int | None = None
    objects: int | None = None
    fps: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PartSpec:
        """From one entry of `release.expect`; keys that are not known are kept in `more`."""
        known = {key: values[key] for key in cls.__dataclass_fields__ if key in values and key != "more"}
        known["name"] = str(values.get("part", values.get("name", "all")))
        if known.get("images") is None:
            known["images"] = ""
        if values.get("labels") is None:
            known["labels"] = "none" if known.get("annotations") is None else "all"
        if "binary" not in values and values.get("ids") is not None:
            known["binary"] = True if values["ids"] in ("binary", "0/255") else None
        more = {key: value for key, value in values.items() if key not in known and key != "part"}
        return cls(**known, more=more)

    def expected(self) -> dict[str, int]:
        """The numbers that the release states."""
        stated = {"videos": self.videos, "frames": self.frames, "objects": self.objects}
        return {name: int(value) for name, value in stated.items() if value is not None}


@dataclass(frozen=True)
class VideoFolders:
    """The videos of a part on disk.

    Attributes:
        chosen: video -> names of its frames, None for all; only those that are there.
        missing: videos of the split file that are not.
        unlisted: video folders that the split file does not name.
        empty: video folders without anything in them.
        deeper: a folder of frames further down, where the videos hold folders instead of frames.
        names: folder -> name of the video, where an annotation file gives it another name.
    """

    chosen: dict[str, list[str] | None]
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    deeper: Path | None = None
    names: dict[str, str] = field(default_factory=dict)


def video_folders(image_root: Path, split: Path | None) -> VideoFolders:
    """Lists the videos below a folder, as FolderDataset would choose them.

    Args:
        image_root: the folder of frame folders.
        split: the split file; None for every folder.

    Raises:
        FileNotFoundError, ValueError: as `read_split`.
    """
    names: dict[str, str] = {}
    listed: dict[str, list[str] | None] | None = None
    if split is not None and split.suffix.lower() == ".json":
        videos = listed_in(split)
        listed = {video.folder: list(video.frames) for video in videos.values()}
        names = {video.folder: name for name, video in videos.items()}
    elif split is not None:
        listed = read_split(split)
    folders = sorted(_folders(image_root), key=natural_order)
    if listed is None:
        chosen: dict[str, list[str] | None] = dict.fromkeys(folders)
        if not chosen and holds_images(image_root):
            return VideoFolders({".": None})
        missing: list[str] = []
    else:
        chosen = {name: frames for name, frames in listed.items() if (image_root / name).is_dir()}
        missing = [name for name in listed if name not in chosen]
    deeper = None
    if chosen and not holds_images(first := image_root / next(iter(chosen))):
        deeper = frames_below(first)
    empty = [name for name in chosen if next(os.scandir(image_root / name), None) is None]
    unlisted = [] if listed is None or names else [name for name in folders if name not in listed]
    return VideoFolders(chosen, missing, unlisted, empty, deeper, names)


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".") and entry.name not in JUNK
        ]


def same_folder_in_other_case(root: Path, below: str) -> Path | None:
    """`jpegimages/480P` where `JPEGImages/480p` was expected: what another system would have found."""
    place = root
    for word in Path(below).parts:
        found = next((path for path in place.glob("*/") if path.name.casefold() == word.casefold()), None)
        if found is None:
            return None
        place = found
    return place


def junk_below(root: Path) -> list[Path]:
    """What macOS and Windows leave in archives, in root or one folder below."""
    return [path for path in near_entries(root) if path.name.startswith(JUNK)]
