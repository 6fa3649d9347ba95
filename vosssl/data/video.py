"""Opens anything that has frames as a video, and pieces of it as clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from torch import Tensor

from vosssl.clip import Clip, Frame
from vosssl.data.annotations import Kind, masklets_beside, open_source
from vosssl.data.io import IMAGE_SUFFIXES
from vosssl.data.label_sources import LabelOptions
from vosssl.data.listing import frame_name, image_names, labels_beside, neighbours
from vosssl.data.sources import CameraVideo, ClipVideo, FileVideo, FolderVideo, Video, fitted_size
from vosssl.data.views import View
from vosssl.ops.resize import Size

__all__ = ["FirstFrames", "Video", "clip_video", "fitted_size", "load_clip", "open_video"]


def clip_video(clip: Clip) -> Video:
    """A clip in memory as a video, for evaluation."""
    return ClipVideo(clip)


class FirstFrames(Video):
    """The beginning of another video, decoded as lazily.

    Args:
        video: the whole one.
        frames: how many frames to keep, at most.

    Attributes:
        whole: the other video.

    Raises:
        ValueError: fewer than one frame.
    """

    def __init__(self, video: Video, frames: int) -> None:
        if frames < 1:
            raise ValueError(f"the first {frames} frames of {video.name} were asked for, expected 1 or more")
        super().__init__(video.name, read_ahead=video.read_ahead)
        self.whole = video
        self._length = min(frames, len(video))

    @property
    def native_size(self) -> Size:
        return self.whole.size

    @property
    def frame_names(self) -> tuple[str, ...]:
        return self.whole.frame_names[: self._length]

    @property
    def labelled(self) -> Tensor | None:
        flags = self.whole.labelled
        return None if flags is None or not bool(flags[: self._length].any()) else flags[: self._length]

    def __len__(self) -> int:
        return self._length

    def read_labels(self, index: int) -> Tensor | None:
        return self.whole.read_labels(index)

    def _decode(self, indices: Iterable[int] | None, size: Size) -> Iterator[Frame]:
        return self.whole._decode(range(self._length) if indices is None else indices, size)

    def _decode_view(self, indices: Iterable[int] | None, view: View) -> Iterator[Frame]:
        return self.whole._decode_view(range(self._length) if indices is None else indices, view)


def open_video(
    source: str | Path | int,
    *,
    annotations: str | Path | Literal["beside"] | None = "beside",
    kind: Kind = "auto",
    binary: bool | None = None,
    on_wrong_size: Literal["error", "resize"] = "error",
    ids: Literal["auto", "instance", "category"] = "auto",
    size: Size | int | None = None,
    read_ahead: int = 2,
) -> Video:
    """Opens anything that has frames.

    Args:
        source: a video file, a folder of images, a DAVIS sequence folder (`JPEGImages/480p/dog`), or the
            number of a camera.
        annotations: its labels: a folder of PNGs named like the frames, of a folder per object, or of LabelMe
            JSON; a JSON file of COCO, YouTube-VIS, BURST or SA-V; an XML file of CVAT. "beside" looks where
            DAVIS keeps them, the same path with `Annotations` for `JPEGImages` (or `masks` for `images` or
            `frames`), and for SA-V's `_manual.json` beside a video file. None: no labels.
        kind: their format, see `vosssl.data.annotations.Kind`; `auto` finds out.
        binary: see LabelOptions.
        on_wrong_size: see LabelOptions.
        ids: see LabelOptions.
        size: see Video.
        read_ahead: see Video; a camera is never read ahead.

    Returns:
        The video.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no frames in it, or labels that belong to none of them; says what was found.
    """
    if isinstance(source, int) or (str(source).isdigit() and not Path(source).exists()):
        return CameraVideo(int(str(source)), size=size)
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"no video {path}: expected a video file, a folder of frames or a camera number"
            + neighbours(path)
        )
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{path} is a single image; pass the folder of its frames, {path.parent}")
    place = _label_place(path, annotations, kind)
    options = LabelOptions(binary=binary, on_wrong_size=on_wrong_size, ids=ids)
    files = image_names(path) if path.is_dir() else None
    frames = None if files is None else [frame_name(file) for file in files]
    name = path.name if path.is_dir() else path.stem
    labels = None if place is None else open_source(place, kind, video=name, frames=frames, options=options)
    video: Video
    if files is not None:
        video = FolderVideo(path, names=files, labels=labels, size=size, read_ahead=read_ahead)
    else:
        video = FileVideo(path, labels=labels, size=size, read_ahead=read_ahead)
    if labels is not None and labels.names and video.labelled is None:
        theirs, ours = next(iter(labels.names)), video.frame_names[0]
        raise ValueError(
            f"no label file belongs to a frame of {path}: labels like {theirs}, frames like {ours}"
        )
    return video


def _label_place(path: Path, annotations: str | Path | None, kind: Kind) -> Path | None:
    """The folder or file of a video's labels, as `open_video` describes it."""
    if annotations is None:
        return None
    if annotations == "beside":
        place = masklets_beside(path, kind) if path.is_file() else None
        return place or labels_beside(path)
    place = Path(annotations).expanduser()
    if not place.exists():
        raise FileNotFoundError(f"no folder of annotations {place}{neighbours(place)}")
    return place


def load_clip(
    path: str | Path,
    *,
    start: int = 0,
    frames: int | None = None,
    stride: int = 1,
    size: Size | int | None = None,
    annotations: str | Path | None = "beside",
    kind: Kind = "auto",
    binary: bool | None = None,
    on_wrong_size: Literal["error", "resize"] = "error",
    ids: Literal["auto", "instance", "category"] = "auto",
) -> Clip:
    """Reads a piece of a video into memory.

    Args:
        path: a video file, a folder of frames, or a DAVIS sequence folder.
        start: index of the first frame.
        frames: how many; None: to the end.
        stride: distance between them.
        size: see Video.
        annotations: its labels, see `open_video`.
        kind: likewise.
        binary: see LabelOptions.
        on_wrong_size: see LabelOptions.
        ids: see LabelOptions.

    Returns:
        The clip.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: nothing readable there, or not so many frames.
    """
    if stride < 1 or start < 0 or (frames is not None and frames < 1):
        raise ValueError(
            f"load_clip got start {start}, frames {frames}, stride {stride}, expected 0, 1, 1 or more"
        )
    video = open_video(
        path, annotations=annotations, kind=kind, binary=binary, on_wrong_size=on_wrong_size, ids=ids
    )
    indices = range(start, len(video), stride)
    if frames is not None:
        indices = range(start, start + frames * stride, stride)
    return video.clip(indices, size=size)
