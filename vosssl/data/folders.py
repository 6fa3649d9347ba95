"""Datasets of frame folders (the JPEGImages/Annotations layout) and of video files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from vosssl.data.annotations import Annotations, Kind, masklets_beside, open_source
from vosssl.data.clips import VideoClips
from vosssl.data.headers import MANY, index_of, read_headers
from vosssl.data.label_sources import LabelOptions, LabelSource
from vosssl.data.listing import (
    VIDEO_SUFFIXES,
    contents,
    frame_name,
    image_names,
    labels_beside,
    natural_order,
    neighbours,
)
from vosssl.data.sequences import (
    chosen_frames,
    chosen_sequences,
    existing_folder,
    given_root,
    read_split,
)
from vosssl.data.sources import FileVideo, FolderVideo, Video
from vosssl.data.transforms import Transform
from vosssl.ops.resize import Size

__all__ = ["FolderDataset", "VideoFiles", "read_split"]


class FolderDataset(VideoClips):
    """Videos as folders of frames, in the layout of DAVIS, YouTube-VOS, MOSE, LVOS or one's own footage.

    `<root>/<images>/<video>/<frame>.jpg` and `<root>/<annotations>/<video>/<frame>.png`.

    Args:
        root: folder of the dataset; "~" is the home folder. (None, what yaml has until told, is refused.)
        images: folder of the frame folders, below root; "" where root holds them itself.
        annotations: where the labels are, below root: the folder of the label folders, one file for all
            videos (JSON of YouTube-VIS, BURST or COCO), or a path with `{video}` in it; None: no labels.
        kind: their format, see `vosssl.data.annotations.Kind`; `auto` finds out.
        split_file: text file below root (or anywhere, by its full path) that names the videos, one in a line,
            or an image and its labels in a line (DAVIS 2016), which chooses frames too; or annotations in
            JSON that list videos. None: the videos that a file of annotations lists, else every folder.
        part: (first, last) place of the videos to keep, as Python slices: (-300, None) are the last 300.
        sequences: only these videos.
        only_labelled: leave out frames without labels.
        labels: which frames have to be labelled: "all"; "first": at least the first (YouTube-VOS); "some": at
            least one in the dataset; the others are then unlabelled.
        binary: labels are 0 and 255 (DAVIS 2016), or all objects count as one; see LabelOptions.
        on_wrong_size: see LabelOptions.
        ids: likewise.
        num_frames: see VideoClips, as are stride, clips_per_video, size, transform and frame_cache.
        stride: likewise.
        clips_per_video: likewise.
        size: likewise; it concerns clips, while `videos()` keeps the size on disk.
        transform: likewise.
        frame_cache: likewise.
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
        kind: Kind = "auto",
        split_file: str | Path | None = None,
        part: Sequence[int | None] | None = None,
        sequences: Sequence[str] | None = None,
        only_labelled: bool = False,
        labels: Literal["all", "first", "some"] = "all",
        binary: bool | None = None,
        on_wrong_size: Literal["error", "resize"] = "error",
        ids: Literal["auto", "instance", "category"] = "auto",
        num_frames: int | None = None,
        stride: int | Sequence[int] = 1,
        clips_per_video: int = 1,
        size: Size | int | None = None,
        transform: Transform | None = None,
        frame_cache: int = 0,
        read_ahead: int = 2,
    ) -> None:
        self.root = given_root(root)
        image_root = existing_folder(self.root, images, argument="images")
        options = LabelOptions(binary=binary, on_wrong_size=on_wrong_size, ids=ids)
        source = None if annotations is None else _annotations(self.root, annotations, kind, options)
        listed = None if source is None else source.videos
        chosen = chosen_sequences(image_root, self.root, split_file, sequences, listed=listed, part=part)
        videos: list[Video] = []
        for name, (folder, frames) in chosen.items():
            names = None if frames is None else chosen_frames(image_root / folder, frames)
            video = _folder_video(
                image_root / folder,
                names,
                name=self.root.name if name == "." else name,
                labels=None if source is None else partial(source.of, name),
                read_ahead=read_ahead,
                only_labelled=only_labelled,
            )
            if source is not None:
                _require_labels(video, labels)
            videos.append(video)
        if source is not None and all(video.labelled is None for video in videos):
            raise ValueError(
                f"no frame of {len(videos)} videos has labels in {source.place}; pass annotations=null"
            )
        super().__init__(
            videos,
            num_frames=num_frames,
            stride=stride,
            clips_per_video=clips_per_video,
            size=size,
            transform=transform,
            frame_cache=frame_cache,
        )


class VideoFiles(VideoClips):
    """A folder of video files (or one file).

    A clip out of the middle of a file costs decoding from the key frame before it; for long training,
    extracted frames (FolderDataset) are faster.

    Args:
        root: the folder, searched with its subfolders, or one file.
        folder: search only this one below root.
        annotations: see FolderDataset; `beside`: SA-V's JSON beside each file, or label folders where DAVIS
            keeps them. Frames are named by their number, 00000 first.
        kind: likewise.
        sequences: only these, by name without suffix.
        binary: see LabelOptions.
        on_wrong_size: likewise.
        ids: likewise.
        num_frames: see VideoClips, as are stride, clips_per_video, size, transform and frame_cache.
        stride: likewise.
        clips_per_video: likewise.
        size: likewise.
        transform: likewise.
        frame_cache: likewise.
        read_ahead: frames decoded ahead by a thread while a video is iterated.
        index: a file that keeps what the video files say about themselves, so that they are opened once and
            not at every start; "auto": of 200 files or more, beside downloads (`index_of`); None: no index.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no video in it, or one that cannot be read.
    """

    def __init__(
        self,
        root: str | Path | None,
        *,
        folder: str = "",
        annotations: str | None = None,
        kind: Kind = "auto",
        sequences: Sequence[str] | None = None,
        binary: bool | None = None,
        on_wrong_size: Literal["error", "resize"] = "error",
        ids: Literal["auto", "instance", "category"] = "auto",
        num_frames: int | None = None,
        stride: int | Sequence[int] = 1,
        clips_per_video: int = 1,
        size: Size | int | None = None,
        transform: Transform | None = None,
        frame_cache: int = 0,
        read_ahead: int = 2,
        index: str | Path | None = "auto",
    ) -> None:
        self.root = given_root(root)
        files = _video_files(self.root / folder, sequences)
        options = LabelOptions(binary=binary, on_wrong_size=on_wrong_size, ids=ids)
        shared = None
        if annotations is not None and annotations != "beside":
            above = self.root.parent if self.root.is_file() else self.root
            shared = _annotations(above, annotations, kind, options)
        videos: list[FileVideo] = []
        for path in files:
            labels = None if shared is None else shared.of(path.stem, None)
            if annotations == "beside":
                labels = _labels_beside(path, kind, options)
            videos.append(FileVideo(path, labels=labels, read_ahead=read_ahead))
        if num_frames is not None and num_frames > 1:  # who is long enough has to be known now
            _read_headers(videos, self.root / folder, index)
        if shared is not None and not any(video.labels.names for video in videos):
            raise ValueError(
                f"none of {len(videos)} video files has labels in {shared.place}; pass annotations=null"
            )
        if annotations == "beside" and not any(video.labels.names for video in videos[:1]):
            _require_some_beside(files, kind)
        super().__init__(
            videos,
            num_frames=num_frames,
            stride=stride,
            clips_per_video=clips_per_video,
            size=size,
            transform=transform,
            frame_cache=frame_cache,
        )


def _folder_video(
    folder: Path,
    names: list[str] | None,
    *,
    name: str,
    labels: Callable[[Sequence[str]], LabelSource] | None,
    read_ahead: int,
    only_labelled: bool,
) -> FolderVideo:
    """A video with the labels of its frames, which some formats know by their place only."""
    names = image_names(folder) if names is None else names
    source = None if labels is None else labels([frame_name(one) for one in names])
    if only_labelled and source is not None:
        names = [one for one in names if frame_name(one) in source.names]
        if not names:
            raise ValueError(f"no frame of video {name} has labels in {source.folder}")
    return FolderVideo(folder, names=names, labels=source, name=name, read_ahead=read_ahead)


def _annotations(root: Path, annotations: str, kind: Kind, options: LabelOptions) -> Annotations:
    """The labels of all videos; a folder that is missing is explained."""
    if "{video}" not in annotations and not (root / Path(annotations).expanduser()).is_file():
        existing_folder(root, annotations, argument="annotations")
    return Annotations(root, annotations, kind=kind, options=options)


def _video_files(root: Path, sequences: Sequence[str] | None) -> list[Path]:
    """The video files of a folder, in the order of the numbers in their names."""
    if not root.exists():
        raise FileNotFoundError(f"no folder of videos {root}{neighbours(root)}")
    files = [root] if root.is_file() else sorted(root.rglob("*"))
    files = [
        path for path in files if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")
    ]
    if sequences is not None:
        files = [path for path in files if path.stem in set(sequences)]
    if not files:
        found = contents(root) if root.is_dir() else f"found {root.name}"
        raise ValueError(f"no videos in {root}: expected files like a.mp4 or b.avi, {found}")
    return sorted(files, key=lambda path: natural_order(str(path)))


def _read_headers(videos: Sequence[FileVideo], folder: Path, index: str | Path | None) -> None:
    """Reads the headers of all files at once."""
    many = len(videos) >= MANY
    place = Path(index).expanduser() if index is not None and index != "auto" else None
    if index == "auto" and many:
        place = index_of(folder)
    headers = read_headers([video.path for video in videos], index=place, progress=many)
    for video in videos:
        video.header = headers[video.path]


def _labels_beside(path: Path, kind: Kind, options: LabelOptions) -> LabelSource | None:
    """The labels of a video file that lie beside it."""
    place = masklets_beside(path, kind) or labels_beside(path)
    if place is None or not place.exists():
        return None
    kind = "auto" if kind in ("sav", "sav-auto") else kind
    return open_source(place, kind, video=path.stem, frames=None, options=options)


def _require_some_beside(files: list[Path], kind: Kind) -> None:
    """Raises where no file of a folder has labels beside it."""
    for path in files:
        place = masklets_beside(path, kind) or labels_beside(path)
        if place is not None and place.exists():
            return
    raise ValueError(
        f"no labels beside {len(files)} video files such as {files[0]}: expected "
        f"{files[0].stem}_manual.json; pass annotations=null to do without"
    )


def _require_labels(video: FolderVideo, which: Literal["all", "first", "some"]) -> None:
    """Raises where labels that have to be there are not."""
    names = {"all": video.frame_names, "first": video.frame_names[:1], "some": ()}[which]
    missing = [name for name in names if name not in video.labels.names]
    if missing:
        folder = video.labels.folder
        found = "no such folder" if not folder.is_file() else f"it has {len(video.labels.names)}"
        found = contents(folder) if folder.is_dir() else found
        raise ValueError(
            f"{len(missing)} of {len(video)} frames of video {video.name} have no labels in {folder} (such "
            f"as {missing[0]}; {found}); pass labels=first or labels=some where that is meant, "
            "annotations=null to do without"
        )
