"""Datasets of single images in one folder, such as COCO, as videos of one frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vosssl.data.clips import VideoClips
from vosssl.data.coco_json import CocoLabels
from vosssl.data.label_sources import LabelOptions, LabelSource
from vosssl.data.listing import LabelFiles, frame_name, image_names, label_names
from vosssl.data.sequences import existing_folder, given_root
from vosssl.data.sources import FolderVideo, Video
from vosssl.data.transforms import Transform
from vosssl.ops.resize import Size


class ImageDataset(VideoClips):
    """The images of one folder, each a video of one frame that is called like it.

    Args:
        root: folder of the dataset; "~" is the home folder.
        images: folder of the images, below root; "" where root holds them itself.
        annotations: COCO JSON or a folder of label PNGs named like the images, below root; None: no labels.
        binary: see LabelOptions.
        on_wrong_size: likewise.
        ids: likewise; `auto` is `instance` here, since images have no tracks.
        num_frames: see VideoClips, as are clips_per_video, size, transform and frame_cache.
        clips_per_video: likewise.
        size: likewise.
        transform: likewise.
        frame_cache: likewise.

    Raises:
        FileNotFoundError: no such root, folder or file; says what is there.
        ValueError: no images, or images without labels though some were asked for.
    """

    def __init__(
        self,
        root: str | Path | None,
        *,
        images: str = "",
        annotations: str | None = None,
        binary: bool | None = None,
        on_wrong_size: Literal["error", "resize"] = "error",
        ids: Literal["auto", "instance", "category"] = "auto",
        num_frames: int | None = None,
        clips_per_video: int = 1,
        size: Size | int | None = None,
        transform: Transform | None = None,
        frame_cache: int = 0,
    ) -> None:
        self.root = given_root(root)
        folder = existing_folder(self.root, images, argument="images")
        names = image_names(folder)
        options = LabelOptions(binary=binary, on_wrong_size=on_wrong_size, ids=ids)
        labels = None if annotations is None else _labels(self.root, annotations, options)
        if labels is not None:
            _require_labels(names, labels, folder)
        videos: list[Video] = [
            FolderVideo(folder, names=[name], name=frame_name(name), labels=labels) for name in names
        ]
        super().__init__(
            videos,
            num_frames=num_frames,
            clips_per_video=clips_per_video,
            size=size,
            transform=transform,
            frame_cache=frame_cache,
        )


def _labels(root: Path, annotations: str, options: LabelOptions) -> LabelSource:
    place = root / Path(annotations).expanduser()
    if place.is_file():
        return CocoLabels(place, options).images(place.stem)
    existing_folder(root, annotations, argument="annotations")
    return LabelFiles(place, label_names(place), binary=options.binary, on_wrong_size=options.on_wrong_size)


def _require_labels(names: Sequence[str], labels: LabelSource, folder: Path) -> None:
    missing = [name for name in names if frame_name(name) not in labels.names]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(names)} images in {folder} have no labels in {labels.folder} (such as "
            f"{missing[0]}); are these the labels of another part? Pass annotations=null to do without"
        )
