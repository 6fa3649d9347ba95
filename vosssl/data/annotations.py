"""Opens the labels of videos, whatever format they are in, and finds out which it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from vosssl.data.coco_json import CocoLabels
from vosssl.data.cvat import CvatLabels
from vosssl.data.label_sources import LabelOptions, LabelSet, LabelSource, ListedVideo, SequenceLabels
from vosssl.data.labelme import LabelMeVideo
from vosssl.data.listing import LabelFiles, label_names, neighbours
from vosssl.data.prediction_folders import ObjectFolders, object_numbers
from vosssl.data.prediction_json import is_list, named_lists
from vosssl.data.track_json import BurstLabels, MaskletLabels, TrackLabels, listed_videos
from vosssl.data.value_maps import ColourMaps, PanopticMaps

Kind = Literal[
    "auto",
    "png",
    "objects",
    "labelme",
    "panoptic",
    "panoptic-all",
    "fbms",
    "coco",
    "tracks",
    "burst",
    "sav",
    "sav-auto",
    "cvat",
]
"""png: an image a frame whose values are ids. objects: a folder per object with binary images (SA-V,
SegTrack v2). labelme: a JSON file a frame. panoptic: VIPSeg (things; -all: stuff too). fbms: FBMS-59. coco:
COCO JSON. tracks: YouTube-VIS and OVIS JSON. burst: BURST JSON. sav: masklets of SA-V (-auto: the automatic
ones). cvat: CVAT XML."""

_FILES: dict[str, type[LabelSet]] = {
    "coco": CocoLabels,
    "tracks": TrackLabels,
    "burst": BurstLabels,
    "sav": MaskletLabels,
    "sav-auto": MaskletLabels,
    "cvat": CvatLabels,
}
_PARTS: dict[str, Kind] = {"videos": "tracks", "sequences": "burst", "masklet": "sav", "images": "coco"}
_SUFFIXES = (".json", ".xml")


class Annotations:
    """The labels of a set of videos: one file for all, or a file or folder for each.

    Args:
        root: folder of the dataset.
        place: below it (or anywhere, by its full path): a file for all videos; a folder with a file or folder
            per video; or a path with `{video}` in it, such as `Testset/{video}/GroundTruth`.
        kind: the format; `auto` finds out.
        options: how labels are understood.

    Attributes:
        place: the whole path, for messages.

    Raises:
        FileNotFoundError: nothing there; says what is there instead.
        ValueError: an unknown kind, or a file of no format that is known.
    """

    def __init__(
        self, root: Path, place: str | Path, *, kind: Kind = "auto", options: LabelOptions | None = None
    ) -> None:
        _require_kind(kind)
        self.options = options or LabelOptions()
        self.kind: Kind = kind
        self.place = str(root / Path(place).expanduser())
        self._per_video = "{video}" in self.place
        self.path = Path(self.place.partition("{video}")[0]) if self._per_video else Path(self.place)
        if not self.path.exists():
            raise FileNotFoundError(f"no annotations {self.path}{neighbours(self.path)}")
        self._shared = open_file(self.path, kind, self.options) if self.path.is_file() else None
        self._first: int | None = None

    @property
    def videos(self) -> dict[str, ListedVideo] | None:
        """The videos that one file for all lists, by name; None where nothing lists any."""
        return None if self._shared is None else self._shared.videos

    def of(self, video: str, frames: Sequence[str] | None) -> LabelSource:
        """The labels of one video; see `LabelSet.source`."""
        if self._shared is not None:
            return self._shared.source(video, frames)
        path = Path(self.place.replace("{video}", video)) if self._per_video else self.path / video
        if not path.exists():  # a folder holds files, too, such as Annotations/dog.xml
            path = next((file for file in _with_suffixes(path) if file.is_file()), path)
        return open_source(
            path, self.kind, video=video, frames=frames, options=self.options, first_object=self._first_object
        )

    def _first_object(self) -> int:
        """Number of the object folder that is id 1: 0 where any video has a folder 0, as SA-V has."""
        if self._first is None:
            folders = [] if self._per_video else _folders(self.path)
            self._first = 0 if any(0 in object_numbers(folder) for folder in folders) else 1
        return self._first


def open_source(
    path: Path,
    kind: Kind,
    *,
    video: str,
    frames: Sequence[str] | None,
    options: LabelOptions,
    first_object: Callable[[], int] | None = None,
) -> LabelSource:
    """The labels of one video in a folder or file of its own.

    Args:
        path: the folder or file; one that does not exist holds no labels.
        kind: the format; `auto` finds out.
        video: the video's name.
        frames: names of its frames in order; None: those of a video file.
        options: how labels are understood.
        first_object: for `objects`, gives the folder number that is id 1; None: 0 where there is a folder 0.

    Raises:
        ValueError: labels of no format that is known, or not of that kind; names them.
    """
    _require_kind(kind)
    if path.is_file():
        return open_file(path, kind, options).source(video, frames)
    names = label_names(path) if kind in ("auto", "png") else {}
    if kind == "auto":
        kind = _kind_of_folder(path) if not names and path.is_dir() else "png"
    if kind in _FILES:
        raise ValueError(f"labels {path} of video {video} are no file, expected one for kind {kind!r}")
    if kind == "labelme" and path.is_dir():
        return LabelMeVideo(path, video=video, options=options)
    if kind == "objects":
        return _object_source(path, video=video, options=options, first_object=first_object)
    if kind in ("panoptic", "panoptic-all"):
        regions: Literal["things", "all"] = "things" if kind == "panoptic" else "all"
        return PanopticMaps(path, video=video, options=options, regions=regions)
    if kind == "fbms":
        return ColourMaps(path, tuple(frames or ()), video=video, options=options)
    return LabelFiles(path, names, binary=options.binary, on_wrong_size=options.on_wrong_size)


def open_file(path: Path, kind: Kind, options: LabelOptions) -> LabelSet:
    """The labels in one file.

    Raises:
        ValueError: a format that is not known, or not a file's.
    """
    if kind == "auto":
        kind = _kind_of_file(path)
    if kind not in _FILES:
        raise ValueError(
            f"annotations {path} are a file, expected a folder for kind {kind!r}; kinds of files are "
            + ", ".join(_FILES)
        )
    return _FILES[kind](path, options)


def listed_in(path: Path) -> dict[str, ListedVideo]:
    """The videos that a JSON file of annotations lists, by name in the order of the file.

    Raises:
        ValueError: a file that lists none.
    """
    kind = _kind_of_file(path)
    if kind == "tracks":
        return {name: video for name, (_, _, video) in listed_videos(path).items()}
    videos = open_file(path, kind, LabelOptions()).videos
    if not videos:
        raise ValueError(f"{path} lists no videos; expected annotations of YouTube-VIS or BURST")
    return videos


def masklets_beside(path: Path, kind: Kind) -> Path | None:
    """The JSON file of SA-V's masklets beside a video file, if there is one."""
    found = path.with_name(f"{path.stem}_{'auto' if kind == 'sav-auto' else 'manual'}.json")
    return found if found.is_file() else None


def _object_source(
    path: Path, *, video: str, options: LabelOptions, first_object: Callable[[], int] | None
) -> LabelSource:
    numbers = object_numbers(path) if path.is_dir() else {}
    if not numbers:  # SegTrack v2 has no folder for the object of a video with one
        return LabelFiles(path, label_names(path), binary=True, on_wrong_size=options.on_wrong_size)
    first = (0 if 0 in numbers else 1) if first_object is None else first_object()
    opened = ObjectFolders(path.parent, {path.name: path.name}, first_object=first)
    return SequenceLabels(opened, path.name, options=options)


def _kind_of_folder(folder: Path) -> Kind:
    """What the labels of one video are, by what lies in their folder, which holds no images itself."""
    if any(label_names(folder / name) for name in object_numbers(folder).values()):
        return "objects"
    return "labelme" if any(name.lower().endswith(".json") for name in os.listdir(folder)) else "png"


def _kind_of_file(path: Path) -> Kind:
    """What format a file has, by its suffix and the names in it."""
    if path.suffix.lower() == ".xml":
        return "cvat"
    if path.suffix.lower() != ".json":
        raise ValueError(f"annotations {path} are no folder, and no {' or '.join(_SUFFIXES)} file")
    if is_list(path):
        raise ValueError(
            f"annotations {path} are a list of results, expected annotations, which name their videos or "
            "images"
        )
    parts = named_lists(path)
    for part, kind in _PARTS.items():
        if part in parts:
            return kind
    raise ValueError(
        f"annotations {path} hold {', '.join(parts) or 'nothing'}, expected one of {', '.join(_PARTS)}: JSON "
        "of YouTube-VIS, BURST, SA-V or COCO; LabelMe's files are read from their folder"
    )


def _require_kind(kind: str) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"kind of labels {kind!r}, expected one of {', '.join(get_args(Kind))}")


def _folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []


def _with_suffixes(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
