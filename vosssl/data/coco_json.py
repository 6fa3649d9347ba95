"""Labels from COCO JSON: `images` and `annotations` with polygons or run lengths, of images or of videos."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.label_sources import (
    DrawnLabels,
    EntryIndex,
    LabelOptions,
    LabelSet,
    number_objects,
    overlay,
    segmentation_mask,
)
from vosssl.data.prediction_json import entry_spans, parse_entries
from vosssl.ops.resize import Size

_TRACK_KEYS = ("track_id", "instance_id", "object_id")  # how programs that export tracks call their number


class _Image(NamedTuple):
    number: int
    folder: str  # "" where file names have none
    name: str
    size: Size


class CocoLabels(LabelSet):
    """A COCO file. What belongs to an image is parsed when the image is read.

    An image belongs to the video that is its folder's name; where file names have no folders, to any video
    with a frame of its name. In a video, images without any annotation are unlabelled: exporters list
    every image, annotated or not.

    Args:
        path: the file.
        options: `ids` says what becomes the id.
    """

    def __init__(self, path: Path, options: LabelOptions) -> None:
        super().__init__(path, options)
        self._images = [_image(path, span) for span in entry_spans(path, b"images")]
        self._entries = EntryIndex(path, "annotations", "image_id")

    def source(self, video: str, frames: Sequence[str] | None) -> CocoVideo:
        found = self._of_video(video)
        single = len(found) == 1
        return CocoVideo(
            self, {image.name: image for image in found if single or image.number in self._entries}, video
        )

    def images(self, video: str) -> CocoVideo:
        """The labels of single images, each numbered by itself; those without objects are labelled too.

        Args:
            video: for messages.
        """
        names = {image.name: image for image in self._images}
        if len(names) < len(self._images):
            raise ValueError(f"{self.path} lists two images of one name in a folder of images")
        return CocoVideo(self, names, video, single=True)

    def _of_video(self, video: str) -> list[_Image]:
        wanted = PurePosixPath(video).name
        here = [image for image in self._images if PurePosixPath(image.folder).name == wanted]
        return here or [image for image in self._images if not image.folder]

    def entries(self, image: _Image) -> list[dict[str, Any]]:
        """The parsed annotations of one image, crowds first, so that they lie beneath the others."""
        found = self.parsed(image.number, self._entries.spans(image.number))
        return sorted(found, key=lambda entry: not entry.get("iscrowd"))


class CocoVideo(DrawnLabels):
    """The labels of one video, or of a folder of images.

    Args:
        labels: the file.
        images: its images by frame name.
        video: name of the video.
        single: images have nothing to do with each other.
    """

    def __init__(
        self, labels: CocoLabels, images: dict[str, _Image], video: str, *, single: bool = False
    ) -> None:
        super().__init__(labels.path, frozenset(images), video=video, options=labels.options)
        self._set = labels
        self._images = images
        self._single = single
        self._ids: dict[Any, int] | None = None  # of the video's tracks

    def _labels(self, frame: str, size: Size) -> Tensor:
        image = self._images[frame]
        entries = self._set.entries(image)
        ids = self._numbers(entries, where=f"{self.folder}, frame {frame} of video {self.video},")
        return overlay(
            (
                (number, segmentation_mask(entry["segmentation"], image.size))
                for number, entry in zip(ids, entries, strict=True)
                if entry.get("segmentation")  # objects with a box alone have no pixels
            ),
            image.size,
        )

    def _numbers(self, entries: list[dict[str, Any]], *, where: str) -> list[int]:
        """The id of each annotation; crowds are void."""
        objects = [entry for entry in entries if not entry.get("iscrowd")]
        if self._set.options.ids == "category":
            names = [entry["category_id"] for entry in objects]
            if any(not 1 <= int(name) < VOID for name in names):
                raise ValueError(f"{where} has categories {sorted(set(names))}, expected 1..{VOID - 1}")
            found = {name: int(name) for name in names}
        elif self._set.options.ids == "auto" and not self._single and self._tracked(objects):
            names = [_track(entry) for entry in objects]
            found = self._track_ids()
        else:
            names = list(range(1, len(objects) + 1))
            found = number_objects(names, where=where)
        numbers = iter(found[name] for name in names)
        return [VOID if entry.get("iscrowd") else next(numbers) for entry in entries]

    def _tracked(self, objects: list[dict[str, Any]]) -> bool:
        """Whether annotations say which object they are of; a video of several frames needs that."""
        tracked = [_track(entry) is not None for entry in objects]
        if all(tracked):
            return bool(tracked)
        if len(self._images) > 1:
            raise ValueError(
                f"{self.folder}: annotations of {len(self._images)} frames of video {self.video} do not say "
                f"which object they are of ({', '.join(_TRACK_KEYS)}); pass ids=category if there is one of "
                "each kind, or ids=instance to number every frame by itself"
            )
        return False

    def _track_ids(self) -> dict[Any, int]:
        """Track -> id, the same in all frames of the video."""
        if self._ids is None:
            every = chain.from_iterable(self._set.entries(image) for image in self._images.values())
            tracks = {_track(entry) for entry in every if not entry.get("iscrowd")}
            ordered = sorted(tracks, key=lambda track: (isinstance(track, str), track))
            self._ids = number_objects(ordered, where=f"{self.folder}, video {self.video},")
        return self._ids


def _track(entry: dict[str, Any]) -> Any:
    """The object of an annotation, where it says so: in itself or among its attributes."""
    attributes = entry.get("attributes")
    for place in (entry, attributes if isinstance(attributes, dict) else {}):
        for key in _TRACK_KEYS:
            if isinstance(place.get(key), (int, str)):
                return place[key]
    return None


def _image(path: Path, span: tuple[int, int]) -> _Image:
    entry = parse_entries(path, [span])[0]
    try:
        file = PurePosixPath(str(entry["file_name"]).replace("\\", "/"))
        folder = "" if file.parent == PurePosixPath(".") else file.parent.as_posix()
        return _Image(int(entry["id"]), folder, file.stem, (int(entry["height"]), int(entry["width"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}, image at byte {span[0]}, has no {error}") from error
