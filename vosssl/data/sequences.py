"""Which videos of a dataset to read: those of a split file, of an annotation file, or every folder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from vosssl.data.annotations import listed_in
from vosssl.data.label_sources import ListedVideo
from vosssl.data.listing import (
    archives_below,
    contents,
    frame_name,
    frames_below,
    holds_images,
    image_names,
    natural_order,
    neighbours,
)

_NEAR = 200  # folders that are looked into for a misplaced root
Sequences = dict[str, list[str] | None]  # video -> names of its frames, None for all of them


def given_root(root: str | Path | None) -> Path:
    """The root as a path."""
    if root is None or str(root) == "":
        raise ValueError(
            "this dataset needs a root: pass data.root=FOLDER; its yaml in cfg/data says what it holds"
        )
    return Path(root).expanduser()


def existing_folder(root: Path, below: str, *, argument: str) -> Path:
    """The folder `root/below`, or an explanation of where it may be."""
    folder = root / below
    if folder.is_dir():
        return folder
    if not root.is_dir():
        raise FileNotFoundError(f"no dataset at {root}: pass the folder it was unpacked to{neighbours(root)}")
    message = f"{root} holds no folder {below}, {contents(root)}"
    place = better_root(root, below)
    if place is not None:
        raise FileNotFoundError(f"{message}; {place} does: pass root={place}")
    if argument == "annotations":
        raise FileNotFoundError(
            f"{message}; put the labels there, name their folder, or pass annotations=null for footage "
            "without labels"
        )
    found = frames_below(root)
    if found is None:
        packed = archives_below(root)
        still = f"; {packed[0].name} is still packed: unpack it, or use mode=download" if packed else ""
        raise FileNotFoundError(f"{message}{still}")
    where = found.parent.relative_to(root).as_posix()
    raise FileNotFoundError(
        f"{message}; frames were found in {found}: pass images={where if where != '.' else repr('')}"
    )


def better_root(root: Path, below: str) -> Path | None:
    """Where a folder `below` lies instead: in a folder of root, or above it; None when nowhere near."""
    if not below:
        return None
    inside = (sorted(islice(root.glob(pattern), _NEAR)) for pattern in ("*/", "*/*/"))
    places = chain(root.absolute().parents[:3], *inside)
    return next((place for place in places if (place / below).is_dir()), None)


def chosen_sequences(
    image_root: Path,
    root: Path,
    split_file: str | Path | None,
    sequences: Sequence[str] | None,
    *,
    listed: dict[str, ListedVideo] | None,
    part: Sequence[int | None] | None,
) -> dict[str, tuple[str, Sequence[str] | None]]:
    """The videos to read, name -> folder and frames, in the order of the split file or by name."""
    found = _found_sequences(image_root, root, split_file, listed)
    if part is not None:
        kept = list(found)[slice(*part)]
        if not kept:
            raise ValueError(f"part {list(part)} of {len(found)} videos in {image_root} is empty")
        found = {name: found[name] for name in kept}
    if sequences is not None:
        unknown = sorted(set(sequences) - set(found))
        if unknown:
            raise ValueError(f"no videos {', '.join(unknown[:5])} among the {len(found)} in {image_root}")
        found = {name: found[name] for name in sequences}
    where = split_file if split_file is not None else image_root
    if not found:
        raise ValueError(f"no video folders in {where}: {contents(image_root)}")
    missing = [folder for folder, _ in found.values() if not (image_root / folder).is_dir()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(found)} videos in {where} are not in {image_root} (such as "
            f"{missing[0]}; {contents(image_root)}): a partial dataset, or images names the folder of "
            "another resolution"
        )
    first = image_root / next(iter(found.values()))[0]
    deeper = None if holds_images(first) else frames_below(first)
    if deeper is not None:
        raise ValueError(
            f"{first} is no folder of frames, but holds such folders: pass images="
            f"{deeper.parent.relative_to(root).as_posix()}, and annotations likewise"
        )
    return found


def _found_sequences(
    image_root: Path, root: Path, split_file: str | Path | None, listed: dict[str, ListedVideo] | None
) -> dict[str, tuple[str, Sequence[str] | None]]:
    """All videos that a split file, annotations or else the folders name."""
    if split_file is not None:
        path = root / Path(split_file).expanduser()
        if path.suffix.lower() != ".json":
            return {name: (name, frames) for name, frames in read_split(path).items()}
        if not path.is_file():
            raise FileNotFoundError(f"no split file {path}{neighbours(path)}")
        return {name: (video.folder, video.frames) for name, video in listed_in(path).items()}
    if listed is not None:
        return {name: (video.folder, video.frames) for name, video in listed.items()}
    folders = [entry for entry in image_root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    names = [entry.name for entry in sorted(folders, key=lambda entry: natural_order(entry.name))]
    if not names and any(entry.is_file() for entry in image_root.iterdir()):
        names = ["."]  # the frames of one video lie in the folder itself
    return {name: (name, None) for name in names}


def chosen_frames(folder: Path, frames: Sequence[str]) -> list[str]:
    """File names of those frames of a folder that a split file names, in the folder's order."""
    wanted = set(frames)
    found = [name for name in image_names(folder) if frame_name(name) in wanted]
    if not found:
        raise ValueError(
            f"none of the {len(wanted)} frames that are listed for {folder} is there (such as {frames[0]}; "
            f"{contents(folder)})"
        )
    return found


def read_split(path: Path) -> Sequences:
    """The videos that a split file names.

    Args:
        path: a text file, one video in a line, or `/JPEGImages/480p/dog/00000.jpg /Annotations/…/00000.png`
            per frame, as DAVIS 2016 has it.

    Returns:
        Video -> names of its frames, None for all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty one, or one that names a place outside the dataset.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no split file {path}{neighbours(path)}")
    found: Sequences = {}
    for line in path.read_text(encoding="utf-8-sig").split("\n"):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        image = Path(words[0])
        if image.suffix:  # a frame: its folder is the video
            frames = found.setdefault(image.parent.name, [])
            assert frames is not None
            frames.append(image.stem)
        else:
            found[words[0].strip("/")] = None
    for name in found:
        if ".." in Path(name).parts:
            raise ValueError(f"split file {path} names {name}, which lies outside the dataset; remove it")
    if not found:
        raise ValueError(f"split file {path} names no video")
    return found
