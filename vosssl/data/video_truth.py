"""The true labels of videos, offered as predictions are: by sequence and frame, without decoding an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from vosssl.data.listing import LabelFiles
from vosssl.data.prediction_set import Predictions
from vosssl.data.sources import FolderVideo
from vosssl.data.video import FirstFrames, Video


class VideoTruth(Predictions):
    """The truth that videos carry, such as those of a dataset.

    Args:
        videos: with labels on some frames; the others are no frames of the truth.

    Raises:
        ValueError: two videos of one name, or a video without any labels.
    """

    def __init__(self, videos: Sequence[Video]) -> None:
        self._videos: dict[str, Video] = {}
        self._frames: dict[str, dict[str, int]] = {}
        for video in videos:
            if video.name in self._videos:
                raise ValueError(f"two videos are called {video.name}; their scores could not be told apart")
            flags = video.labelled
            if flags is None:
                raise ValueError(f"no frame of {video.name} has labels to score against")
            self._videos[video.name] = video
            names = video.frame_names
            self._frames[video.name] = {names[index]: index for index in flags.nonzero()[:, 0].tolist()}
        folders = [folder for video in videos if (folder := _label_folder(video)) is not None]
        self.on_disk = bool(folders) and len(folders) == len(self._videos)
        super().__init__(folders[0].parent if self.on_disk else Path())

    @property
    def sequences(self) -> tuple[str, ...]:
        return tuple(self._videos)

    def frames(self, sequence: str) -> tuple[str, ...]:
        if sequence not in self._frames:
            raise self._no_sequence(sequence)
        return tuple(self._frames[sequence])

    def where(self, sequence: str, frame: str) -> str:
        folder = _label_folder(self._videos[sequence])
        return f"{sequence}, frame {frame}" if folder is None else str(folder / f"{frame}.png")

    def _labels(self, sequence: str, frame: str) -> Tensor:
        if frame not in self._frames.get(sequence, {}):
            raise self._no_frame(sequence, frame)
        labels = self._videos[sequence].read_labels(self._frames[sequence][frame])
        assert labels is not None, "the video said that this frame is labelled"
        return labels


def _label_folder(video: Video) -> Path | None:
    """Where the label files of a video lie, if it has any."""
    if isinstance(video, FirstFrames):
        return _label_folder(video.whole)
    if isinstance(video, FolderVideo) and isinstance(video.labels, LabelFiles):
        return video.labels.folder
    return None
