"""Video files and cameras to frames and back: the only file that knows video codecs.

Frames are (3, H, W) uint8 RGB everywhere.
"""

from __future__ import annotations

import errno
import logging
import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from vosssl.data.files import atomic_write
from vosssl.data.io import rgb_planes

log = logging.getLogger(__name__)

_RAW_PACKETS = -1  # OpenCV's pixel format that hands out packets as they are stored
_SEEK_DECODES = 48  # frames; about two seconds, the usual distance between key frames
_CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80", ".mkv": "mp4v"}


class Timeline(NamedTuple):
    """When each frame of a file is shown, from which a frame that a jump arrived at is known by its time.

    Attributes:
        per_ms: frames per millisecond where they follow evenly.
        times: milliseconds of every frame where they do not; None where they do. Empty: times do not tell.
    """

    per_ms: float
    times: tuple[float, ...] | None = None

    def frame_at(self, ms: float, first_ms: float) -> int | None:
        """The frame that is shown at a time; None where no frame is."""
        if self.times is None:
            place = (ms - first_ms) * self.per_ms
            return round(place) if abs(place - round(place)) < 0.4 and place > -0.4 else None
        found = bisect_left(self.times, ms - _SAME_TIME)
        near = found < len(self.times) and abs(self.times[found] - ms) < _SAME_TIME
        return found if near else None

    def number(self, index: int) -> int:
        """The number that OpenCV gives to a frame: it counts as if frames followed evenly."""
        if self.times is None:
            return index
        return int((self.times[min(index, len(self.times) - 1)] - self.times[0]) * self.per_ms)


_SAME_TIME = 0.05  # milliseconds


def read_timeline(path: str | Path) -> Timeline:
    """The times of a file's frames: from its packets where they are even, else by decoding all of it."""
    packets = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, _RAW_PACKETS])
    times = sorted(_times(packets))  # packets come in the order of decoding
    per_ms = packets.get(cv2.CAP_PROP_FPS) / 1000
    packets.release()
    if times and all(round((time - times[0]) * per_ms) == index for index, time in enumerate(times)):
        return Timeline(per_ms)
    frames = cv2.VideoCapture(str(path))
    times = list(_times(frames))
    per_ms = frames.get(cv2.CAP_PROP_FPS) / 1000
    frames.release()
    rises = all(after - before > 2 * _SAME_TIME for before, after in pairwise(times))
    return Timeline(per_ms, tuple(times) if rises and per_ms > 0 else ())


def _times(capture: cv2.VideoCapture) -> Iterator[float]:
    while capture.grab():
        yield capture.get(cv2.CAP_PROP_POS_MSEC)


class _Silence:
    """How many threads want OpenCV to be silent: its log level is one for all."""

    depth = 0
    level = 0
    lock = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV logs nothing; files may be opened in several threads at once."""
    with _Silence.lock:
        if _Silence.depth == 0:
            _Silence.level = cv2.utils.logging.getLogLevel()
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _Silence.depth += 1
    try:
        yield
    finally:
        with _Silence.lock:
            _Silence.depth -= 1
            if _Silence.depth == 0:
                cv2.utils.logging.setLogLevel(_Silence.level)


class VideoReader:
    """Frames of a video file or a camera, decoded one at a time.

    Args:
        source: path of a video file, or the number of a camera.
        timeline: of this file, where it is known from an earlier reader; else it is read when a seek first
            jumps.

    Attributes:
        size: (H, W) in pixels.
        fps: frames per second as the file says; 0 when it does not say.
        frame_count: frames as the file's header says (decoding may find fewer); None for a camera.
        position: index of the frame that `read` returns next.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no frame can be decoded; names the file or camera.
    """

    def __init__(self, source: str | Path | int, *, timeline: Timeline | None = None) -> None:
        self.source = source
        self._timeline = timeline
        self.is_camera = isinstance(source, int)
        self._open()
        height, width = self._ahead.shape[:2] if self._ahead is not None else (0, 0)
        self.size = (int(height), int(width))
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = None if self.is_camera else max(count, 1)

    def _open(self) -> None:
        """Opens from the start; the first frame is decoded at once: only that shows that it is readable."""
        if not isinstance(self.source, int) and not Path(self.source).is_file():
            raise FileNotFoundError(f"no video file {self.source}")
        with _quiet():  # the error below says it all
            self._capture = cv2.VideoCapture(
                self.source if isinstance(self.source, int) else str(self.source)
            )
            ok, first = self._capture.read()
        self._ahead: np.ndarray | None = first if ok else None
        if not ok:
            self._capture.release()
            what = "camera" if self.is_camera else "video file"
            hint = (
                "is it connected and not in use?" if self.is_camera else "truncated, or a codec OpenCV lacks?"
            )
            raise ValueError(f"no frame can be read from {what} {self.source}: {hint}")
        self.position = 0
        self._first_ms = float(self._capture.get(cv2.CAP_PROP_POS_MSEC))

    @property
    def timeline(self) -> Timeline:
        """When the frames of this file are shown, see `read_timeline`."""
        if self._timeline is None:
            self._timeline = Timeline(0, ()) if isinstance(self.source, int) else read_timeline(self.source)
        return self._timeline

    def read(self) -> Tensor | None:
        """The next frame, (3, H, W) uint8 RGB, or None at the end."""
        pixels = self.read_pixels()
        return None if pixels is None else rgb_planes(pixels)

    def read_pixels(self) -> Tensor | None:
        """The next frame in the layout of the decoder, (H, W, 3) uint8 BGR, or None at the end."""
        ok, pixels = (True, self._ahead) if self._ahead is not None else self._capture.read()
        self._ahead = None
        if not ok or pixels is None:
            return None
        self.position += 1
        return torch.from_numpy(pixels)

    def skip(self) -> bool:
        """Passes over one frame without converting it; False at the end."""
        ok = self._ahead is not None or self._capture.grab()
        self._ahead = None
        self.position += int(ok)
        return ok

    def seek(self, index: int) -> None:
        """Makes `read` return frame `index` next, the one that decoding from the start finds there.

        Near ahead it decodes on. Further it jumps to a key frame before, looks up by its time which frame
        it arrived at, and decodes on from there; where that cannot be told it decodes from the start, which
        is slow but exact.

        Raises:
            ValueError: a camera, or an index past the end.
        """
        if self.is_camera:
            raise ValueError(f"camera {self.source} cannot seek; iterate it")
        if not self.position <= index < self.position + _SEEK_DECODES and not self._jump(index):
            self._capture.release()
            self._open()
        while self.position < index:
            if not self.skip():
                raise ValueError(
                    f"video {self.source} ends after {self.position} frames, asked for frame {index}"
                )

    def _jump(self, index: int) -> bool:
        """Arrives at a frame that is known to be `index` or shortly before it; False where none was."""
        timeline = self.timeline
        if timeline.times == () or index < _SEEK_DECODES:
            return False
        number, back = timeline.number(index), 0
        while number > back:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, number - back)
            ok, pixels = self._capture.read()
            found = (
                timeline.frame_at(self._capture.get(cv2.CAP_PROP_POS_MSEC), self._first_ms) if ok else None
            )
            if found is not None and found <= index:
                self._ahead, self.position = pixels, found
                return True
            back = max(2 * back, _SEEK_DECODES)
        return False

    def count_frames(self, promised: int) -> int:
        """Frames that can be decoded: `promised` when the video ends there, else counted one by one."""
        try:
            self.seek(promised - 1)
            if self.skip() and not self.skip():
                return promised
        except ValueError:  # it ends before
            pass
        with VideoReader(self.source) as counter:
            while counter.skip():
                pass
            log.warning(
                "video %s: %d frames can be decoded, promised were %d",
                self.source,
                counter.position,
                promised,
            )
            return counter.position

    def __iter__(self) -> Iterator[Tensor]:
        while (frame := self.read()) is not None:
            yield frame

    def close(self) -> None:
        """Lets go of the file or camera."""
        self._capture.release()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VideoWriter:
    """Writes frames to a video file, atomically: it appears when the writer closes without an error.

    Args:
        path: .mp4, .webm, .avi or .mkv.
        fps: frames per second.

    Raises:
        ValueError: an unknown suffix, frames of changing size, or an encoder that OpenCV lacks.
    """

    def __init__(self, path: str | Path, *, fps: float = 25.0) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in _CODECS:
            raise ValueError(f"cannot write video {path}, expected a name ending in {', '.join(_CODECS)}")
        self.fps = fps if fps > 0 else 25.0
        self._size: tuple[int, int] | None = None
        self._pending = atomic_write(self.path, durable=False)
        self._writer: cv2.VideoWriter | None = None
        self._written = 0

    def __enter__(self) -> VideoWriter:
        self._temporary = self._pending.__enter__()
        return self

    def write(self, frame: Tensor) -> None:
        """Appends a frame, (3, H, W) uint8 RGB."""
        height, width = frame.shape[1:]
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._temporary), codec, self.fps, (width, height))
            self._size = (height, width)
            if not self._writer.isOpened():
                raise ValueError(f"OpenCV has no encoder for {self.path.suffix} files; write .avi instead")
        if self._size != (height, width):
            raise ValueError(
                f"frame for {self.path} is {(height, width)}, the frames before it were {self._size}"
            )
        pixels = frame.flip(0).permute(1, 2, 0).contiguous()  # (3, H, W) RGB -> (H, W, 3) BGR
        self._writer.write(pixels.cpu().numpy())
        self._written += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        if error is None:
            try:
                self._require_whole()
            except (OSError, ValueError) as problem:
                self._pending.__exit__(type(problem), problem, problem.__traceback__)
                raise
        self._pending.__exit__(kind, error, traceback)

    def _require_whole(self) -> None:
        """OpenCV does not say when writing failed (a full disk): the file is opened, its length read."""
        if self._writer is None:
            raise ValueError(f"no frame was written to {self.path}")
        try:
            with VideoReader(self._temporary) as reader:
                found = reader.frame_count or 0
        except ValueError:
            found = 0
        if found < 0.9 * self._written:  # headers of some formats count by duration
            raise OSError(errno.EIO, f"{self.path}: only {found} of {self._written} frames could be written")
