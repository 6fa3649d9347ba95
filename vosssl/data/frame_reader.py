"""Frames of a video by their number, in any order and more than once, with few of them in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from vosssl.clip import Frame
from vosssl.data.io import read_image, write_image
from vosssl.data.sources import Video

KEPT_BYTES = 64 << 20  # of decoded frames
MOST_KEPT = 32  # frames


def open_frames(video: Video, *, folder: Path) -> FrameReader:
    """A reader of any video; what a camera shows is kept in `folder`, so that one can go back."""
    return FrameReader(video) if has_end(video) else LiveReader(video, folder=folder)


def has_end(video: Video) -> bool:
    """Whether a video's length is known; a camera's is not."""
    try:
        len(video)
    except TypeError:
        return False
    return True


class FrameReader:
    """Frames of a stored video.

    Going forward decodes each frame once. A step back decodes the stretch that ends there, so that many steps
    back cost little more than one.

    Args:
        video: a stored one.

    Attributes:
        video: the same.
        live: whether more frames may come than `len` says.
    """

    live = False

    def __init__(self, video: Video) -> None:
        self.video = video
        height, width = video.size
        self._most = max(2, min(MOST_KEPT, KEPT_BYTES // (3 * height * width)))
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        self._coming: Iterator[Frame] | None = None
        self._next = 0  # the frame that `_coming` gives
        self._names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.video)

    def has(self, index: int) -> bool:
        """Whether there is such a frame; of a camera, the next one is waited for."""
        return 0 <= index < len(self)

    def name(self, index: int) -> str:
        """Name of a frame, for the files that are written of it."""
        self._names = self._names or self.video.frame_names
        return self._names[index]

    def require(self, index: int) -> None:
        """Raises a ValueError where there is no such frame, which says what there is."""
        if not 0 <= index < len(self):
            raise ValueError(
                f"frame {index} was asked for; video {self.video.name} has frames 0..{len(self) - 1}"
            )

    def read(self, index: int) -> Frame:
        """A frame; see `clip.Frame`.

        Raises:
            ValueError: no such frame, or one that cannot be decoded; others can be read afterwards.
        """
        self.require(index)
        if index not in self._kept:
            back = bool(self._kept) and index < min(self._kept)
            first = max(0, index - self._most // 2) if back else index
            for number in range(first, index + 1):
                self._keep(number, self._decoded(number))
        return self._kept[index]

    def _decoded(self, index: int) -> Frame:
        if self._coming is None or self._next != index:
            self._coming = self.video.frames_from(index)
        self._next = index + 1
        try:
            return next(self._coming)
        except Exception as error:
            self._coming = None
            if isinstance(error, StopIteration):
                raise ValueError(f"video {self.video.name} ends before frame {index}") from None
            raise

    def _keep(self, index: int, frame: Frame) -> None:
        self._kept[index] = frame
        self._kept.move_to_end(index)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


class LiveReader(FrameReader):
    """Frames of a camera: the next one is there when it is asked for, earlier ones are read from files.

    Args:
        video: has no length.
        folder: gets every frame as a JPEG.
    """

    live = True

    def __init__(self, video: Video, *, folder: Path) -> None:
        super().__init__(video)
        self.folder = folder
        self._stream = iter(video)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def has(self, index: int) -> bool:
        if index == self._count and self.live:
            try:
                frame = next(self._stream)
            except StopIteration:
                self.live = False
                return False
            write_image(self._file(index), frame.image)
            self._keep(index, frame)
            self._count += 1
        return 0 <= index < self._count

    def name(self, index: int) -> str:
        return f"{index:05d}"

    def require(self, index: int) -> None:
        if not 0 <= index < self._count:
            so_far = f"frames 0..{self._count - 1} were read" if self._count else "no frame was read yet"
            raise ValueError(f"frame {index} was asked for; of {self.video.name} {so_far}")

    def _decoded(self, index: int) -> Frame:
        return Frame(self.name(index), read_image(self._file(index)))

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:05d}.jpg"
