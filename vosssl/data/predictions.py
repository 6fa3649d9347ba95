"""Opens predictions of any program: a folder of label images per sequence, an image per object, …"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from vosssl.data.io import embedded_palette
from vosssl.data.listing import contents, frames_below, natural_order, neighbours
from vosssl.data.palette import davis_palette
from vosssl.data.prediction_folders import (
    LabelFolders,
    ObjectFolders,
    is_label_file,
    label_files,
    object_numbers,
)
from vosssl.data.prediction_json import is_list, named_lists, open_burst, open_tracks
from vosssl.data.prediction_npz import NpzFiles
from vosssl.data.prediction_set import ObjectMasks, Predictions

__all__ = ["Kind", "ObjectMasks", "Predictions", "open_predictions"]

Kind = Literal["auto", "labels", "binary", "colours", "objects", "npz", "coco", "burst"]
_ROOTS = ("Annotations/480p", "Annotations", "Annotations_6fps")  # below what may be passed
_DEPTH = 3  # folders between the one passed and its sequences, at most


def open_predictions(
    path: str | Path,
    *,
    kind: Kind = "auto",
    palette: Tensor | str | Path | None = None,
    first_object: int | None = None,
    videos: str | Path | None = None,
) -> Predictions:
    """Opens predictions; nothing is decoded before it is asked for.

    Args:
        path: a folder with a folder per sequence (`Annotations` above them may be left out) or an NPZ file
            per sequence, or a JSON file.
        kind: `labels`: one image a frame, palette indices of 1 to 8 bits or grey values are the ids.
            `binary`: one image a frame, 0 and 255: what is above 0 is object 1; never guessed, since 255 is
            void elsewhere. `colours`: one image a frame whose colours stand for ids. `objects`: a folder per
            object with binary images (SA-V). `npz`: see NpzFiles. `coco`: run lengths of YouTube-VIS;
            `burst`: of BURST. `auto`: what is found there; `labels`, and `colours` for images in RGB.
        palette: (N, 3), colours of ids 0..N-1; or a palette PNG, or a folder of them such as the truth, whose
            colours are taken; None: those of DAVIS. Where there is neither, `palette.inferred_palette` learns
            them from a first frame.
        first_object: for `objects`, the folder number that becomes id 1; None: 0 where any sequence has a
            folder 0 (as SA-V has), else 1.
        videos: for results of YouTube-VIS, the annotation file that lists the videos with their frames;
            without it they are called by their numbers.

    Returns:
        The predictions. A sequence's name is that of its folder, whatever lies above it.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no label images there, two sequences of one name, or an unknown kind; says what was found.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind of predictions {kind!r}, expected one of {', '.join(get_args(Kind))}")
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"no predictions {root}{neighbours(root)}")
    if not root.is_dir():
        return _open_file(root, kind, None if videos is None else Path(videos).expanduser())
    root = _below(root)
    if kind == "npz" or (kind == "auto" and any(root.glob("*.npz"))):
        return _open_npz(root)
    if kind in ("coco", "burst"):
        raise ValueError(f"predictions {root} are a folder, expected a JSON file for kind {kind!r}")
    return _open_folders(root, kind, palette=_palette(palette), first_object=first_object)


def _open_folders(root: Path, kind: Kind, *, palette: Tensor, first_object: int | None) -> Predictions:
    found = dict(_sequences(root, _DEPTH))
    _require_some(root, found)
    per_object = [name for name, is_objects in found.items() if is_objects]
    if kind == "objects" or (kind == "auto" and per_object):
        if len(per_object) < len(found):
            other = next(name for name, is_objects in found.items() if not is_objects)
            raise ValueError(
                f"sequence {root / other} has no folder per object, expected numbers such as 000 with the "
                "images of one object each"
            )
        folders = _by_name(root, per_object)
        return ObjectFolders(root, folders, first_object=_first(root, folders, first_object))
    if per_object:
        raise ValueError(
            f"sequence {root / per_object[0]} has a folder per object, expected its label images; "
            "pass kind='objects'"
        )
    how = kind if kind in ("binary", "colours", "labels") else "auto"
    return LabelFolders(root, _by_name(root, list(found)), kind=how, palette=palette)


def _open_file(path: Path, kind: Kind, videos: Path | None) -> Predictions:
    if path.suffix.lower() == ".npz" and kind in ("auto", "npz"):
        return NpzFiles(path.parent, {path.stem: path.name})
    if path.suffix.lower() != ".json" or kind not in ("auto", "coco", "burst"):
        raise ValueError(
            f"predictions {path} are a file, expected a folder with a folder per sequence, an NPZ file or a "
            "JSON file of run lengths; unpack archives first"
        )
    if videos is not None and not videos.is_file():
        raise FileNotFoundError(f"no annotation file {videos}{neighbours(videos)}")
    burst = kind == "burst" or (kind == "auto" and not is_list(path) and "sequences" in named_lists(path))
    opened = open_burst(path) if burst else open_tracks(path, videos)
    if not opened.sequences:
        raise ValueError(f"no predictions in {path}: it lists no objects and no videos")
    return opened


def _open_npz(root: Path) -> NpzFiles:
    files = sorted((path.name for path in root.glob("*.npz")), key=natural_order)
    if not files:
        raise ValueError(f"no NPZ files in {root}, {contents(root)}")
    mixed = next((name for name in _subfolders(root) if _holds_labels(root / name)), None)
    if mixed:
        raise ValueError(
            f"{root} holds NPZ files and the images of {mixed}; expected one kind, move the other"
        )
    return NpzFiles(root, {Path(file).stem: file for file in _by_name(root, files).values()})


def _below(root: Path) -> Path:
    """The folder of the sequences, where the one above `Annotations` was passed."""
    return next((root / name for name in _ROOTS if (root / name).is_dir()), root)


def _sequences(root: Path, depth: int, above: str = "") -> Iterator[tuple[str, bool]]:
    """Folders of sequences relative to the root, each with whether it has a folder per object."""
    for name in _subfolders(root / above):
        relative = f"{above}/{name}" if above else name
        if _holds_labels(root / relative):
            yield relative, False
        elif any(
            _holds_labels(root / relative / number) for number in object_numbers(root / relative).values()
        ):
            yield relative, True
        elif depth > 1:
            yield from _sequences(root, depth - 1, relative)


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return sorted(names, key=natural_order)


def _holds_labels(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_label_file(entry.name) for entry in entries)


def _require_some(root: Path, found: dict[str, bool]) -> None:
    if not found:
        inside = _holds_labels(root)
        hint = f"; its images are one sequence: pass {root.absolute().parent}" if inside else ""
        lossy = None if inside else frames_below(root)
        if lossy:
            hint = f"; the images in {lossy} are of a format whose compression changes ids, write PNGs"
        raise ValueError(
            f"no predictions in {root}: expected a folder of label PNGs per sequence, {contents(root)}{hint}"
        )


def _by_name(root: Path, folders: list[str]) -> dict[str, str]:
    """Sequence name -> folder; names that differ in nothing but case would be one on other systems."""
    names: dict[str, str] = {}
    seen: dict[str, str] = {}
    for folder in folders:
        name = folder.rpartition("/")[2]
        other = seen.setdefault(name.casefold(), folder)
        if other != folder:
            raise ValueError(
                f"two sequences of the same name in {root}: {other} and {folder}; keep one, or pass the "
                "folder above one of them"
            )
        names[name] = folder
    return names


def _first(root: Path, folders: dict[str, str], wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    return 0 if any(0 in object_numbers(root / folder) for folder in folders.values()) else 1


def _palette(palette: Tensor | str | Path | None) -> Tensor:
    """(N, 3) colours of ids."""
    if palette is None:
        return davis_palette()
    if isinstance(palette, Tensor):
        if palette.ndim != 2 or palette.shape[1] != 3:
            raise ValueError(f"palette is {tuple(palette.shape)}, expected (N, 3): the colour of each id")
        return palette
    path = Path(palette).expanduser()
    if not path.is_dir():
        return embedded_palette(path)
    below = (name for name, _ in _sequences(_below(path), _DEPTH))
    first = next((_below(path) / name for name in below), path)
    files = label_files(first)
    if not files:
        raise ValueError(f"no palette PNGs in {path}, {contents(path)}")
    return embedded_palette(first / next(iter(files.values())))
