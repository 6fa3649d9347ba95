"""What lies where: frames and labels of a video on disk, and messages that say what was found instead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.io import IMAGE_SUFFIXES, read_labels
from vosssl.ops.resize import Size

VIDEO_SUFFIXES = (
    ".mp4",
    ".avi",
    ".mov",
    ".mkv",
    ".webm",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".ogv",
    ".ts",
)
_BESIDE = {
    "JPEGImages": "Annotations",
    "images": "masks",
    "frames": "masks",
}  # where labels lie beside frames
_ARCHIVES = (
    ".zip",
    ".tar",
    ".tgz",
    ".tar.gz",
    ".tar.bz2",
    ".tar.xz",
    ".rar",
    ".7z",
    ".z01",
    ".001",
    ".part1",
)
_LOSSY = (".jpg", ".jpeg", ".webp")  # compression changes ids, so these are never labels


@dataclass
class LabelFiles:
    """The label files of one video.

    Attributes:
        folder: where they lie.
        names: frame name -> file name.
        binary: True: 0 and 255 are background and the one object (DAVIS 2016). False: 255 is void. None: as
            False, but the first label map that holds nothing besides 0 and 255 is refused, since it is
            ambiguous.
        on_wrong_size: what to do with labels whose size is not their frame's.
    """

    folder: Path = field(default_factory=Path)
    names: Mapping[str, str] = field(default_factory=dict)
    binary: bool | None = None
    on_wrong_size: Literal["error", "resize"] = "error"
    _trusted: bool = False

    def read(self, frame: str, size: Size) -> Tensor | None:
        """(H, W) uint8 labels of a frame; None when it has none.

        Raises:
            ValueError: an ambiguous, damaged or ill-fitting file; names it.
        """
        name = self.names.get(frame)
        if name is None:
            return None
        path = self.folder / name
        labels = read_labels(path, binary=bool(self.binary), size=size, on_wrong_size=self.on_wrong_size)
        if self.binary is None and not self._trusted:
            if bool((labels == VOID).any()) and bool(((labels == 0) | (labels == VOID)).all()):
                raise ValueError(
                    f"labels {path} hold only 0 and 255: one object (as in DAVIS 2016), or void without any "
                    "object? Pass binary=true (++data.val.binary=true, and ++data.train.binary=true where "
                    "training reads them) for the first, binary=false for the second"
                )
            self._trusted = True
        return labels


def image_names(folder: Path) -> list[str]:
    """File names of the images directly in a folder, in the order of the numbers in them.

    Raises:
        ValueError: none, or two with the same name; says what is there instead.
    """
    found = [name for name in os.listdir(folder) if _is_image(name)]
    if not found:
        below = frames_below(folder)
        hint = f"; did you mean {below}?" if below else ""
        raise ValueError(
            f"no frames in {folder}: expected images ({' '.join(IMAGE_SUFFIXES)}), {contents(folder)}{hint}"
        )
    found.sort(key=None if len({len(name) for name in found}) == 1 else natural_order)
    for first, second in pairwise(found):
        if frame_name(first) == frame_name(second):
            raise ValueError(f"two images for one frame in {folder}: {first} and {second}; keep one")
    return found


def frame_name(file_name: str) -> str:
    """A file name without its suffix."""
    return os.path.splitext(file_name)[0]


def frames_below(folder: Path, *, depth: int = 4) -> Path | None:
    """The first folder of images at most `depth` levels below, for messages about a misplaced path."""
    subfolders = sorted(entry for entry in islice(folder.iterdir(), 1000) if _may_hold_frames(entry))
    for entry in subfolders:
        if holds_images(entry):
            return entry
    if depth == 1:
        return None
    found = (frames_below(entry, depth=depth - 1) for entry in subfolders[:50])
    return next((entry for entry in found if entry), None)


def label_names(folder: Path) -> dict[str, str]:
    """Frame name -> file name of the label maps in a folder; empty where there is no such folder."""
    if not folder.is_dir():
        return {}
    found = (name for name in os.listdir(folder) if _is_image(name) and not name.lower().endswith(_LOSSY))
    return {frame_name(name): name for name in sorted(found)}


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which frame2 comes before frame10."""
    pieces = re.split(r"(\d+)", name)
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces if piece]


def labels_beside(path: Path) -> Path | None:
    """Where DAVIS keeps the labels of a video: the same path, its last folder of frames replaced."""
    parts = path.absolute().parts
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] in _BESIDE:
            labels = Path(*parts[:place], _BESIDE[parts[place]], *parts[place + 1 :])
            return labels if path.is_dir() else labels.with_suffix("")
    return None


def holds_images(folder: Path) -> bool:
    """Whether images lie directly in a folder."""
    return any(map(_is_image, os.listdir(folder)))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _may_hold_frames(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".") and entry.name not in _BESIDE.values()


def contents(folder: Path) -> str:
    """What a folder holds, for messages."""
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in islice(folder.iterdir(), 1000))
    if not entries:
        return "but it is empty"
    return f"found {', '.join(entries[:5])}{' …' if len(entries) > 5 else ''}"


def neighbours(path: Path) -> str:
    """What is beside a missing path, for messages."""
    parent = path.absolute().parent
    return f"; {parent}: {contents(parent)}" if parent.is_dir() else f"; no folder {parent} either"


def near_entries(root: Path) -> Iterator[Path]:
    """What lies in a folder and in the folders of it, as far as is needed for messages."""
    for entry in sorted(islice(root.iterdir(), 10_000)):
        yield entry
        if entry.is_dir() and entry.name != "__MACOSX":
            yield from islice(entry.iterdir(), 1000)


def archives_below(root: Path) -> list[Path]:
    """Archives that lie where they were downloaded, in a folder or one below; shards are none."""
    found = (path for path in near_entries(root) if path.name.lower().endswith(_ARCHIVES))
    return [path for path in found if not _looks_like_shard(path.name) and path.is_file()]


def _looks_like_shard(name: str) -> bool:
    """Whether a tar is one of a numbered series, such as movi_e-train-000012.tar: read as it is."""
    return re.fullmatch(r".+-\d{4,}\.tar", name) is not None
