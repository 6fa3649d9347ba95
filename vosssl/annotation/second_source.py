"""Masks of a second, independent segmenter, and where they differ from those that were tracked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from vosssl.data.io import read_labels, write_labels
from vosssl.ops.masks import masks_to_labels, object_ids
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.segmenter import VideoSegmenter
from vosssl.propagation.tracking_steps import show


class SecondSource:
    """Follows the accepted masks with another segmenter; it never sees what the first one found.

    Args:
        work: the session.
        segmenter: makes the other segmenter, when it is first needed.
    """

    def __init__(self, work: ClickAndTrack, segmenter: Callable[[], VideoSegmenter]) -> None:
        self.work = work
        self.folder = work.folder / "second" / work.video.name
        self._make = segmenter
        self._segmenter: VideoSegmenter | None = None
        self._seen: dict[int, tuple[tuple[int, int], dict[int, float]]] = {}

    def run(self) -> Iterator[int]:
        """Segments the video forwards from the first accepted masks, then what lies before an object's first.

        Yields:
            How many steps are done.

        Raises:
            ValueError: nothing was accepted yet.
        """
        prompted = self.work.prompted_frames
        if not prompted:
            raise ValueError("nothing was accepted yet; there is nothing to compare with")
        first, done = self._first_frames(), 0
        for frame in range(prompted[0], len(self.work.frames)):
            self._write(frame, self._step(frame, begin=frame == prompted[0]))
            yield (done := done + 1)
        for frame in range(max(first.values()), -1, -1):
            labels = self._step(frame, begin=frame == max(first.values()))
            earlier = [key for key, start in first.items() if start > frame]
            behind = self.read(frame) if frame >= prompted[0] else None
            if (
                behind is not None
            ):  # an object before its first mask; where both see one, the forward pass counts
                found = torch.where(torch.isin(labels, torch.tensor(earlier, dtype=torch.uint8)), labels, 0)
                labels = torch.where(behind == 0, found.to(torch.uint8), behind)
            self._write(frame, labels)
            yield (done := done + 1)

    @property
    def length(self) -> int:
        """Steps of `run`; 0 when nothing was accepted."""
        first = self._first_frames()
        return len(self.work.frames) - min(first.values()) + max(first.values()) + 1 if first else 0

    def read(self, frame: int) -> Tensor | None:
        """(H, W) uint8 ids that the second source found, or None."""
        path = self._file(frame)
        return read_labels(path) if path.is_file() else None

    def disagreement(self, frame: int) -> dict[int, float]:
        """By object, 1 - intersection over union of the two sources' masks; empty: there is no second one."""
        own, other = self.work.label_file(frame), self._file(frame)
        if not own.is_file() or not other.is_file():
            return {}
        stamp = (own.stat().st_mtime_ns, other.stat().st_mtime_ns)
        if frame not in self._seen or self._seen[frame][0] != stamp:
            labels, found = self.work.labels(frame), self.read(frame)
            assert labels is not None and found is not None
            self._seen[frame] = (stamp, differences(labels, found))
        return {key: value for key, value in self._seen[frame][1].items() if key in self.work.objects}

    def _first_frames(self) -> dict[int, int]:
        """By object, the first frame that a person spoke about."""
        return {key: frame for frame in reversed(self.work.prompted_frames) for key in self.work.said(frame)}

    def _step(self, frame: int, *, begin: bool) -> Tensor:
        if self._segmenter is None:
            segmenter = self._make()
            if "masks" not in getattr(segmenter, "prompt_kinds", ()):
                raise ValueError(
                    f"{type(segmenter).__name__} follows no masks, so it cannot check them; choose another "
                    "annotate.second"
                )
            self._segmenter = segmenter
        if begin:
            self._segmenter.reset()
        with torch.inference_mode():
            show(self._segmenter, self.work.frames.read(frame).image, self.work.said(frame))
            return masks_to_labels(self._segmenter.probabilities, self._segmenter.object_ids).cpu()

    def _write(self, frame: int, labels: Tensor) -> None:
        write_labels(self._file(frame), labels)

    def _file(self, frame: int) -> Path:
        return self.folder / f"{self.work.frames.name(frame)}.png"


def differences(first: Tensor, second: Tensor) -> dict[int, float]:
    """By object, 1 - intersection over union of its masks in two label maps (H, W) uint8."""
    found = {}
    for identity in sorted(set(object_ids(first)) | set(object_ids(second))):
        one, other = first == identity, second == identity
        union = int((one | other).sum())
        found[identity] = round(1 - int((one & other).sum()) / union, 4)
    return found
