"""What lies where: frames and labels of a video on disk, and messages that say what was found instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
}  # frames folder -> labels folder
_LOSSY = (".jpg", ".jpeg", ".webp")  # compression changes ids, so these are never labels


@dataclass
class LabelFiles:
    """The label files of one video.

    Attributes:
        paths: frame name -> file.
        binary: True: 0 and 255 are background and the one object (DAVIS 2016). False: 255 is void. None: as
            False, but the first label map that holds nothing besides 0 and 255 is refused, since it is
            ambiguous.
        on_wrong_size: what to do with labels whose size is not their frame's.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    binary: bool | None = None
    on_wrong_size: Literal["error", "resize"] = "error"
    _trusted: bool = False

    def read(self, frame: str, size: Size) -> Tensor | None:
        """(H, W) uint8 labels of a frame; None when it has none.

        Raises:
            ValueError: an ambiguous, damaged or ill-fitting file; names it.
        """
        path = self.paths.get(frame)
        if path is None:
            return None
        labels = read_labels(path, binary=bool(self.binary), size=size, on_wrong_size=self.on_wrong_size)
        if self.binary is None and not self._trusted:
            if bool((labels == VOID).any()) and bool(((labels == 0) | (labels == VOID)).all()):
                raise ValueError(
                    f"labels {path} hold only 0 and 255: one object (as in DAVIS 2016), or void without any "
                    "object? Pass binary=true for the first, binary=false for the second"
                )
            self._trusted = True
        return labels


def frame_files(folder: Path) -> list[Path]:
    """The images directly in a folder, in the order of the numbers in their names.

    Raises:
        ValueError: none, or two with the same name; says what is there instead.
    """
    found = [entry for entry in folder.iterdir() if _is_image(entry)]
    if not found:
        below = frames_below(folder)
        hint = f"; did you mean {below}?" if below else ""
        raise ValueError(
            f"no frames in {folder}: expected images ({' '.join(IMAGE_SUFFIXES)}), {contents(folder)}{hint}"
        )
    found.sort(key=lambda path: natural_order(path.stem))
    for first, second in pairwise(found):
        if first.stem == second.stem:
            raise ValueError(
                f"two images for one frame in {folder}: {first.name} and {second.name}; keep one"
            )
    return found


def frames_below(folder: Path, *, depth: int = 4) -> Path | None:
    """The first folder of images at most `depth` levels below, for messages about a misplaced path."""
    subfolders = sorted(entry for entry in islice(folder.iterdir(), 1000) if _may_hold_frames(entry))
    for entry in subfolders:
        if any(map(_is_image, islice(entry.iterdir(), 1000))):
            return entry
    if depth == 1:
        return None
    found = (frames_below(entry, depth=depth - 1) for entry in subfolders[:50])
    return next((entry for entry in found if entry), None)


def label_files(path: Path, annotations: str | Path | None = "beside") -> dict[str, Path]:
    """Frame name -> label PNG of a video; empty without labels (see `open_video`).

    Raises:
        FileNotFoundError: a folder of annotations was named and is not there.
    """
    if annotations is None:
        return {}
    folder = _beside(path) if annotations == "beside" else Path(annotations).expanduser()
    if folder is None or (annotations == "beside" and not folder.is_dir()):
        return {}
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of annotations {folder}{neighbours(folder)}")
    found = (entry for entry in folder.iterdir() if _is_image(entry) and entry.suffix.lower() not in _LOSSY)
    return {entry.stem: entry for entry in sorted(found)}


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which frame2 comes before frame10."""
    pieces = re.split(r"(\d+)", name)
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces if piece]


def _beside(path: Path) -> Path | None:
    """The same path with the last folder of frames replaced by that of labels."""
    parts = path.absolute().parts
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] in _BESIDE:
            labels = Path(*parts[:place], _BESIDE[parts[place]], *parts[place + 1 :])
            return labels if path.is_dir() else labels.with_suffix("")
    return None


def _is_image(entry: Path) -> bool:
    return entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")


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
    return (
        f"; {path.parent}: {contents(path.parent)}"
        if path.parent.is_dir()
        else f"; no folder {path.parent} either"
    )
