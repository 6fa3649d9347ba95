"""Labels from JSON of tracks: YouTube-VIS and OVIS, BURST, and the masklets of SA-V."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.label_sources import (
    MOST_OBJECTS,
    DrawnLabels,
    EntryIndex,
    LabelOptions,
    LabelSet,
    ListedVideo,
    SequenceLabels,
    number_objects,
    overlay,
    segmentation_mask,
)
from vosssl.data.prediction_json import entry_spans, open_burst, parse_entries
from vosssl.data.prediction_set import some
from vosssl.ops.resize import Size

SAV_STEP = 4  # frames of the video, at 24 per second, from one of its masks to the next, at 6 per second


class TrackLabels(LabelSet):
    """YouTube-VIS or OVIS annotations: an entry per object with a mask or null for every frame of its video.

    Ids are 1, 2, … in the order of the entries of a video. Crowds are void where no object is.
    """

    def __init__(self, path: Path, options: LabelOptions) -> None:
        super().__init__(path, options)
        self._videos = listed_videos(path)
        self._entries = EntryIndex(path, "annotations", "video_id")

    @property
    def videos(self) -> dict[str, ListedVideo]:
        return {name: video for name, (_, _, video) in self._videos.items()}

    def source(self, video: str, frames: Sequence[str] | None) -> TrackVideo:
        number, size, listed = _find(self._videos, video, self.path)
        # a video file's frames are named by their place, the file's list has names of its own
        names = (
            listed.frames if frames is not None else [f"{place:05d}" for place in range(len(listed.frames))]
        )
        return TrackVideo(self, number, size, {name: place for place, name in enumerate(names)}, video)

    def entries(self, number: int) -> list[dict[str, Any]]:
        """The parsed entries of one video, in the order of the file."""
        return self.parsed(number, self._entries.spans(number))


class TrackVideo(DrawnLabels):
    """One video of a TrackLabels file.

    Args:
        labels: the file.
        number: of the video in it.
        size: (H, W) of its masks.
        places: frame name -> index into the masks.
        video: its name.
    """

    def __init__(
        self, labels: TrackLabels, number: int, size: Size, places: dict[str, int], video: str
    ) -> None:
        super().__init__(labels.path, frozenset(places), video=video, options=labels.options)
        self._set = labels
        self._number = number
        self._size = size
        self._places = places

    def _labels(self, frame: str, size: Size) -> Tensor:
        entries = self._set.entries(self._number)
        objects = [entry for entry in entries if not entry.get("iscrowd")]
        number_objects(range(1, len(objects) + 1), where=f"{self.folder}, video {self.video},")
        crowds = [(VOID, entry) for entry in entries if entry.get("iscrowd")]
        place = self._places[frame]
        return overlay(
            (
                (identity, segmentation_mask(entry["segmentations"][place], self._size))
                for identity, entry in [*crowds, *enumerate(objects, 1)]
                if entry["segmentations"][place]
            ),
            self._size,
        )


class BurstLabels(LabelSet):
    """BURST annotations; track numbers are the ids, and the higher number lies above."""

    def __init__(self, path: Path, options: LabelOptions) -> None:
        super().__init__(path, options)
        self._opened = open_burst(path)

    @property
    def videos(self) -> dict[str, ListedVideo]:
        found = {}
        for span in entry_spans(self.path, b"sequences"):
            entry = parse_entries(self.path, [span])[0]
            name = str(entry["seq_name"])
            folder = f"{entry['dataset']}/{name}" if entry.get("dataset") else name
            images = entry.get("all_image_paths") or entry["annotated_image_paths"]
            found[name] = ListedVideo(folder, tuple(PurePosixPath(image).stem for image in images))
        return found

    def source(self, video: str, frames: Sequence[str] | None) -> SequenceLabels:
        if video not in self._opened.sequences:
            raise _unknown(video, self._opened.sequences, self.path)
        return SequenceLabels(self._opened, video, options=self.options)


class MaskletLabels(LabelSet):
    """The masklets of one SA-V video: every fourth frame, a mask per object; ids are 1, 2, … in their order.

    Frames are named by their number, 00000 first.
    """

    def source(self, video: str, frames: Sequence[str] | None) -> MaskletVideo:
        return MaskletVideo(self, video)


class MaskletVideo(DrawnLabels):
    """See MaskletLabels; the file is indexed when a name or label is first asked for."""

    def __init__(self, labels: MaskletLabels, video: str) -> None:
        super().__init__(labels.path, (), video=video, options=labels.options)
        self._set = labels
        self._spans: dict[str, tuple[int, int]] | None = None

    def _index(self) -> dict[str, tuple[int, int]]:
        if self._spans is None:
            spans = entry_spans(self.folder, b"masklet")
            self._spans = {f"{SAV_STEP * place:05d}": span for place, span in enumerate(spans)}
        return self._spans

    @property
    def names(self) -> Collection[str]:
        return self._index().keys()

    def _labels(self, frame: str, size: Size) -> Tensor:
        masks = self._set.parsed(frame, [self._index()[frame]])[0]
        if len(masks) > MOST_OBJECTS:
            number_objects(range(len(masks)), where=f"{self.folder}, video {self.video},")
        stored = next((mask["size"] for mask in masks if mask), size)
        own = (int(stored[0]), int(stored[1]))
        return overlay(
            ((identity, segmentation_mask(mask, own)) for identity, mask in enumerate(masks, 1) if mask), own
        )


def listed_videos(path: Path) -> dict[str, tuple[int, Size, ListedVideo]]:
    """The videos of YouTube-VIS annotations: name -> number, (H, W) and frames, in the order of the file.

    Raises:
        ValueError: no such list, an entry that lacks something, or two videos of one name; names the file.
    """
    found: dict[str, tuple[int, Size, ListedVideo]] = {}
    for span in entry_spans(path, b"videos"):
        entry = parse_entries(path, [span])[0]
        try:
            files = [PurePosixPath(file) for file in entry["file_names"]]
            folder = files[0].parent.as_posix()
            size = (int(entry["height"]), int(entry["width"]))
            video = ListedVideo(folder, tuple(file.stem for file in files))
            number = int(entry["id"])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"{path}, video at byte {span[0]}, lacks {error}") from error
        if folder in found:
            raise ValueError(f"{path} lists two videos in the folder {folder}")
        found[folder] = (number, size, video)
    return found


def _find(
    videos: dict[str, tuple[int, Size, ListedVideo]], video: str, path: Path
) -> tuple[int, Size, ListedVideo]:
    """A video by its name; where the file lists one only, that one."""
    if video in videos:
        return videos[video]
    if len(videos) == 1:
        return next(iter(videos.values()))
    raise _unknown(video, tuple(videos), path)


def _unknown(video: str, known: Sequence[str], path: Path) -> ValueError:
    return ValueError(f"{path} lists no video {video}, it has {some(known)}")
