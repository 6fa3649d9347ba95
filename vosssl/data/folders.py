"""Datasets of frame folders (the JPEGImages/Annotations layout) and of video files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from vosssl.data.clips import VideoClips
from vosssl.data.listing import (
    VIDEO_SUFFIXES,
    LabelFiles,
    contents,
    frame_name,
    frames_below,
    holds_images,
    image_names,
    label_names,
    natural_order,
    neighbours,
)
from vosssl.data.sources import FileVideo, FolderVideo, Video
from vosssl.data.transforms import Transform
from vosssl.ops.resize import Size

Sequences = dict[str, list[str] | None]  # video -> names of its frames, None for all of them


class FolderDataset(VideoClips):
    """Videos as folders of frames, in the layout of DAVIS, YouTube-VOS, MOSE, LVOS or one's own footage.

    `<root>/<images>/<video>/<frame>.jpg` and `<root>/<annotations>/<video>/<frame>.png`.

    Args:
        root: folder of the dataset; "~" is the home folder. (None, what yaml has until told, is refused.)
        images: folder of the frame folders, below root; "" where root holds them itself.
        annotations: folder of the label folders, below root; None: without labels.
        split_file: text file below root (or anywhere, by its full path) that names the videos, one in a line,
            or an image and its labels in a line (DAVIS 2016), which chooses frames too; None: every folder.
        sequences: only these videos.
        labels: which frames have to be labelled: "all"; "first": at least the first (YouTube-VOS); "some": at
            least one in the dataset; the others are then unlabelled.
        binary: labels are 0 and 255 (DAVIS 2016), see LabelFiles.
        on_wrong_size: see LabelFiles.
        num_frames: see VideoClips, as are stride, clips_per_video, size, and transform.
        stride: likewise.
        clips_per_video: likewise.
        size: likewise; it concerns clips, while `videos()` keeps the size on disk.
        transform: likewise.
        read_ahead: frames decoded ahead by a thread while a video is iterated.

    Raises:
        FileNotFoundError: no such root, folder or split file; says what is there and what may have been
            meant.
        ValueError: an empty folder, a video of the split that is not there, labels that are missing.
    """

    def __init__(
        self,
        root: str | Path | None,
        *,
        images: str = "JPEGImages",
        annotations: str | None = "Annotations",
        split_file: str | Path | None = None,
        sequences: Sequence[str] | None = None,
        labels: Literal["all", "first", "some"] = "all",
        binary: bool | None = None,
        on_wrong_size: Literal["error", "resize"] = "error",
        num_frames: int | None = None,
        stride: int | Sequence[int] = 1,
        clips_per_video: int = 1,
        size: Size | int | None = None,
        transform: Transform | None = None,
        read_ahead: int = 2,
    ) -> None:
        self.root = _given(root)
        image_root = _existing(self.root, images, argument="images")
        label_root = (
            None if annotations is None else _existing(self.root, annotations, argument="annotations")
        )
        videos: list[Video] = []
        for name, frames in _chosen_sequences(image_root, self.root, split_file, sequences).items():
            files = LabelFiles(binary=binary, on_wrong_size=on_wrong_size)
            if label_root is not None:
                files = replace(files, folder=label_root / name, names=label_names(label_root / name))
            video = FolderVideo(
                image_root / name,
                names=None if frames is None else _chosen_frames(image_root / name, frames),
                labels=files,
                name=self.root.name if name == "." else name,
                read_ahead=read_ahead,
            )
            if label_root is not None:
                _require_labels(video, labels)
            videos.append(video)
        if label_root is not None and all(video.labelled is None for video in videos):
            raise ValueError(
                f"no frame of {len(videos)} videos has labels in {label_root}; pass annotations=null"
            )
        super().__init__(
            videos,
            num_frames=num_frames,
            stride=stride,
            clips_per_video=clips_per_video,
            size=size,
            transform=transform,
        )


class VideoFiles(VideoClips):
    """A folder of video files (or one file), without labels.

    A clip out of the middle of a file costs decoding from the key frame before it; for long training,
    extracted frames (FolderDataset) are faster.

    Args:
        root: the folder, searched with its subfolders, or one file.
        sequences: only these, by name without suffix.
        num_frames: see VideoClips, as are stride, clips_per_video, size, and transform.
        stride: likewise.
        clips_per_video: likewise.
        size: likewise.
        transform: likewise.
        read_ahead: frames decoded ahead by a thread while a video is iterated.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no video in it, or one that cannot be read.
    """

    def __init__(
        self,
        root: str | Path | None,
        *,
        sequences: Sequence[str] | None = None,
        num_frames: int | None = None,
        stride: int | Sequence[int] = 1,
        clips_per_video: int = 1,
        size: Size | int | None = None,
        transform: Transform | None = None,
        read_ahead: int = 2,
    ) -> None:
        self.root = _given(root)
        if not self.root.exists():
            raise FileNotFoundError(f"no folder of videos {self.root}{neighbours(self.root)}")
        files = [self.root] if self.root.is_file() else sorted(self.root.rglob("*"))
        files = [
            path for path in files if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")
        ]
        if sequences is not None:
            files = [path for path in files if path.stem in set(sequences)]
        if not files:
            found = contents(self.root) if self.root.is_dir() else f"found {self.root.name}"
            raise ValueError(f"no videos in {self.root}: expected files like a.mp4 or b.avi, {found}")
        files.sort(key=lambda path: natural_order(str(path)))
        super().__init__(
            [FileVideo(path, read_ahead=read_ahead) for path in files],
            num_frames=num_frames,
            stride=stride,
            clips_per_video=clips_per_video,
            size=size,
            transform=transform,
        )


def _given(root: str | Path | None) -> Path:
    """The root as a path."""
    if root is None or str(root) == "":
        raise ValueError(
            "this dataset needs a root: pass data.root=FOLDER; its yaml in cfg/data says what it holds"
        )
    return Path(root).expanduser()


def _existing(root: Path, below: str, *, argument: str) -> Path:
    """The folder `root/below`, or an explanation of where it may be."""
    folder = root / below
    if folder.is_dir():
        return folder
    if not root.is_dir():
        raise FileNotFoundError(f"no dataset at {root}: pass the folder it was unpacked to{neighbours(root)}")
    message = f"{root} holds no folder {below}, {contents(root)}"
    parents = root.absolute().parents
    for place in (*parents[:2], *sorted(root.glob("*/")), *sorted(root.glob("*/*/"))):
        if (place / below).is_dir():
            raise FileNotFoundError(f"{message}; {place} does: pass root={place}")
    if argument == "annotations":
        raise FileNotFoundError(f"{message}; pass annotations=null for footage without labels")
    found = frames_below(root)
    if found is None:
        raise FileNotFoundError(message)
    where = found.parent.relative_to(root).as_posix()
    raise FileNotFoundError(
        f"{message}; frames were found in {found}: pass images={where if where != '.' else repr('')}"
    )


def _chosen_sequences(
    image_root: Path, root: Path, split_file: str | Path | None, sequences: Sequence[str] | None
) -> Sequences:
    """The videos to read, in the order of the split file or by name."""
    if split_file is None:
        folders = [
            entry for entry in image_root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        ]
        found: Sequences = {
            entry.name: None for entry in sorted(folders, key=lambda entry: natural_order(entry.name))
        }
    else:
        found = read_split(root / Path(split_file).expanduser())
    if sequences is not None:
        unknown = sorted(set(sequences) - set(found))
        if unknown:
            raise ValueError(f"no videos {', '.join(unknown[:5])} among the {len(found)} in {image_root}")
        found = {name: found[name] for name in sequences}
    if not found and split_file is None and any(entry.is_file() for entry in image_root.iterdir()):
        found = {".": None}  # the frames of one video lie in the folder itself
    if not found:
        where = split_file if split_file is not None else image_root
        raise ValueError(f"no video folders in {where}: {contents(image_root)}")
    missing = [name for name in found if not (image_root / name).is_dir()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(found)} videos in {split_file} are not in {image_root} (such as "
            f"{missing[0]}; {contents(image_root)}): a partial dataset, or images names the folder of "
            "another resolution"
        )
    first = image_root / next(iter(found))
    deeper = None if holds_images(first) else frames_below(first)
    if deeper is not None:
        raise ValueError(
            f"{first} is no folder of frames, but holds such folders: pass images="
            f"{deeper.parent.relative_to(root).as_posix()}, and annotations likewise"
        )
    return found


def _chosen_frames(folder: Path, frames: Sequence[str]) -> list[str]:
    """File names of those frames of a folder that a split file names, in the folder's order."""
    wanted = set(frames)
    return [name for name in image_names(folder) if frame_name(name) in wanted]


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


def _require_labels(video: FolderVideo, which: Literal["all", "first", "some"]) -> None:
    """Raises where labels that have to be there are not."""
    names = {"all": video.frame_names, "first": video.frame_names[:1], "some": ()}[which]
    missing = [name for name in names if name not in video.labels.names]
    if missing:
        folder = video.labels.folder
        found = contents(folder) if folder.is_dir() else "no such folder"
        raise ValueError(
            f"{len(missing)} of {len(video)} frames of video {video.name} have no labels in {folder} (such "
            f"as {missing[0]}; {found}); pass labels=first or labels=some where that is meant, "
            "annotations=null to do without"
        )
