"""The kinds of videos: frame folders, video files, cameras and clips in memory, behind one interface."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vosssl.clip import VOID, Clip, Frame
from vosssl.data.frame_cache import shared_frame_cache
from vosssl.data.headers import Header, read_header
from vosssl.data.io import image_size, read_pixels
from vosssl.data.label_sources import LabelSource
from vosssl.data.listing import LabelFiles, frame_name, image_names
from vosssl.data.readahead import read_ahead as iterate_ahead
from vosssl.data.video_io import Timeline, VideoReader
from vosssl.data.views import View, reduction, seen_image, seen_labels, seen_pixels, whole
from vosssl.ops.resize import Size, resize_image, resize_labels, shorter_side

CLIP_LIMIT = 4 << 30  # bytes of frames that one clip may hold; more is a mistake that would fill the memory


class Video(ABC):
    """A sequence of frames, decoded while it is iterated: memory does not grow with its length.

    Args:
        name: name of the video.
        size: what frames and labels are resized to: None keeps them, (height, width) is exact, a number is
            the length of the shorter side (never enlarged).
        read_ahead: frames that a thread decodes ahead while iterating; 0 decodes when asked.

    Attributes:
        frame_cache: bytes of decoded frames that this process may keep for clips, see `shared_frame_cache`; 0
            keeps none. Iteration keeps none either way.
    """

    frame_cache: int = 0

    def __init__(self, name: str, *, size: Size | int | None = None, read_ahead: int = 0) -> None:
        self.name = name
        self._identity = uuid.uuid4().hex  # the same in worker processes, unlike id()
        self.read_ahead = read_ahead
        self._wanted = size

    @property
    @abstractmethod
    def native_size(self) -> Size:
        """(H, W) of the frames as they are stored."""

    @property
    def size(self) -> Size:
        """(H, W) of the frames that this video yields."""
        return fitted_size(self.native_size, self._wanted)

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Names of all frames, in order."""
        return tuple(f"{index:05d}" for index in range(len(self)))

    @property
    def labelled(self) -> Tensor | None:
        """(T,) bool, which frames carry labels; None when none does."""
        return None

    @property
    def promised_length(self) -> int:
        """Number of frames, exact or, where counting is slow, as the file's header says."""
        return len(self)

    def read_labels(self, index: int) -> Tensor | None:
        """(H, W) uint8 labels of one frame, or None; where they lie in files of their own, nothing else is
        read."""
        clip = self.clip([index])
        return clip.labels[0] if clip.labels is not None else None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _decode(self, indices: Iterable[int] | None, size: Size) -> Iterator[Frame]:
        """The frames of these indices (None: all, in order), at a size."""

    def _decode_view(self, indices: Iterable[int] | None, view: View) -> Iterator[Frame]:
        """What a view shows of these frames; sources that can do so decode no more than that."""
        for frame in self._decode(indices, self.native_size):
            yield _seen(frame, view)

    def _cached(self, indices: Sequence[int], view: View) -> Iterator[Frame]:
        """As `_decode_view`, from the cache where it can; whole frames are kept, windows cut from them."""
        cache = shared_frame_cache(self.frame_cache)
        kept = whole(self.native_size, view.size if view == whole(self.native_size, view.size) else None)
        keys: dict[int, Hashable] = {index: (self._identity, index, kept.size) for index in indices}
        found = {index: cache.get(key) for index, key in keys.items()}
        missing = self._decode_view([index for index in keys if found[index] is None], kept)
        for index in indices:
            frame = found[index]
            if frame is None:
                frame = found[index] = _channels_last(next(missing))
                cache.put(keys[index], frame)
            yield frame if kept == view else _seen(frame, view)

    def __iter__(self) -> Iterator[Frame]:
        return iterate_ahead(self._decode(None, self.size), depth=self.read_ahead)

    def frames_from(self, index: int) -> Iterator[Frame]:
        """The frames of a stored video from this one on, decoded when they are asked for."""
        return self._decode(range(index, len(self)), self.size)

    def clip(
        self, indices: Sequence[int], *, size: Size | int | None = None, view: View | None = None
    ) -> Clip:
        """Some of the frames, together in memory.

        Args:
            indices: T frame indices in any order; negative ones count from the end.
            size: as for the constructor; None: the size of this video. JPEGs are decoded at a reduced scale
                where that still is not smaller, which is faster and differs slightly from decoding in full.
            view: the window of the stored frames that is wanted, and its size, instead of `size`; with a
                reduced scale its borders move to whole pixels of that scale, in frames and labels alike.

        Returns:
            The clip; frames without labels are void (255) in its labels, and marked in `labelled`.

        Raises:
            ValueError: an index outside the video, no index, or frames that would fill the memory.
        """
        length = len(self)
        wanted = [index + length if index < 0 else index for index in indices]
        if not wanted:
            raise ValueError(
                f"no frame of video {self.name} was asked for, expected indices in 0..{length - 1}"
            )
        if min(wanted) < 0 or max(wanted) >= length:
            raise ValueError(
                f"video {self.name} has frames 0..{length - 1}, asked for {min(wanted)}..{max(wanted)}; "
                "choose fewer frames, a smaller stride or another start"
            )
        if view is None:
            view = whole(self.native_size, self.size if size is None else fitted_size(self.native_size, size))
        height, width = view.size
        needed = len(wanted) * 3 * height * width
        if needed > CLIP_LIMIT:
            raise ValueError(
                f"a clip of {len(wanted)} frames of {height} x {width} takes {needed / 1e9:.1f} GB of "
                "memory; take fewer frames, a stride or a smaller size, or iterate the video, which keeps "
                "one frame at a time"
            )
        frames = torch.empty(len(wanted), 3, height, width, dtype=torch.uint8)
        labels = torch.full((len(wanted), height, width), VOID, dtype=torch.uint8)
        labelled = torch.zeros(len(wanted), dtype=torch.bool)
        names = []
        decode = self._cached if self.frame_cache else self._decode_view
        for row, frame in enumerate(decode(wanted, view)):
            frames[row] = frame.image
            names.append(frame.name)
            if frame.labels is not None:
                labels[row], labelled[row] = frame.labels, True
        any_labels = bool(labelled.any())
        return Clip(
            name=self.name,
            frames=frames,
            labels=labels if any_labels else None,
            labelled=labelled if any_labels else None,
            frame_names=tuple(names),
        )


def fitted_size(native: Size, wanted: Size | int | None) -> Size:
    """(H, W) that frames get: None keeps their own, a number limits the shorter side, a pair is exact."""
    if wanted is None:
        return native
    return shorter_side(native, wanted) if isinstance(wanted, int) else (int(wanted[0]), int(wanted[1]))


class FolderVideo(Video):
    """Images of one folder, in the order of the numbers in their names.

    Args:
        folder: the folder.
        names: file names of the frames, in order; None: all images in the folder.
        labels: their labels, from whatever file.
        name: name of the video; None: the folder's.
        size: see Video.
        read_ahead: see Video.

    Raises:
        ValueError: no frames.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        names: Sequence[str] | None = None,
        labels: LabelSource | None = None,
        name: str | None = None,
        size: Size | int | None = None,
        read_ahead: int = 0,
    ) -> None:
        self.folder = Path(folder)
        super().__init__(self.folder.name if name is None else name, size=size, read_ahead=read_ahead)
        self.names = tuple(image_names(self.folder) if names is None else names)
        if not self.names:
            raise ValueError(
                f"no frame of video {self.name} was chosen from {self.folder}; check the split file"
            )
        self.labels: LabelSource = LabelFiles() if labels is None else labels
        self._native: Size | None = None

    @property
    def native_size(self) -> Size:
        if self._native is None:
            self._native = image_size(self.folder / self.names[0])
        return self._native

    @property
    def frame_names(self) -> tuple[str, ...]:
        return tuple(map(frame_name, self.names))

    @property
    def labelled(self) -> Tensor | None:
        flags = torch.tensor([name in self.labels.names for name in self.frame_names])
        return flags if bool(flags.any()) else None

    def read_labels(self, index: int) -> Tensor | None:
        labels = self.labels.read(self.frame_names[index], self.native_size)
        return None if labels is None else resize_labels(labels, self.size)

    def __len__(self) -> int:
        return len(self.names)

    def _decode(self, indices: Iterable[int] | None, size: Size) -> Iterator[Frame]:
        return self._decode_view(indices, whole(self.native_size, size))

    def _decode_view(self, indices: Iterable[int] | None, view: View) -> Iterator[Frame]:
        native = self.native_size
        jpeg = self.names[0].lower().endswith((".jpg", ".jpeg"))  # only these decode faster when reduced
        reduce = reduction(view) if jpeg else 1
        view = view.aligned(reduce, native)
        expected = (-(-native[0] // reduce), -(-native[1] // reduce))
        for index in range(len(self)) if indices is None else indices:
            path = self.folder / self.names[index]
            pixels = read_pixels(path, reduce=reduce)
            if tuple(pixels.shape[:2]) != expected:
                height, width = image_size(path)
                raise ValueError(
                    f"frame {path} is {width} wide and {height} high, the first frame of video {self.name} "
                    f"is {native[1]} wide and {native[0]} high; frames of one video must have one size: "
                    "re-export them, or move those of another size to a folder of their own"
                )
            image = seen_pixels(pixels, view, reduced=reduce)
            labels = self.labels.read(path.stem, native)
            yield Frame(path.stem, image, None if labels is None else seen_labels(labels, view))


class FileVideo(Video):
    """A video file, decoded in order; frames are named by their number, 00000 first.

    Args:
        path: the file.
        labels: labels by frame name.
        name: name of the video; None: the file's without suffix.
        size: see Video.
        read_ahead: see Video.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        labels: LabelSource | None = None,
        name: str | None = None,
        size: Size | int | None = None,
        read_ahead: int = 0,
    ) -> None:
        self.path = Path(path)
        super().__init__(self.path.stem if name is None else name, size=size, read_ahead=read_ahead)
        self.labels: LabelSource = LabelFiles() if labels is None else labels
        self._header: Header | None = None
        self._count: int | None = None
        self._timeline: Timeline | None = None

    @property
    def header(self) -> Header:
        """What the file says about itself; read when first needed, since sets have many files."""
        if self._header is None:
            self._header = read_header(self.path)
        return self._header

    @header.setter
    def header(self, header: Header) -> None:
        self._header = header

    @property
    def native_size(self) -> Size:
        return self.header.size

    @property
    def fps(self) -> float:
        """Frames per second; 0 when the file does not say."""
        return self.header.fps

    @property
    def promised_length(self) -> int:
        return self.header.frame_count

    @property
    def labelled(self) -> Tensor | None:
        flags = torch.tensor([name in self.labels.names for name in self.frame_names])
        return flags if bool(flags.any()) else None

    def read_labels(self, index: int) -> Tensor | None:
        labels = self.labels.read(self.frame_names[index], self.native_size)
        return None if labels is None else resize_labels(labels, self.size)

    def __len__(self) -> int:
        if self._count is None:
            with VideoReader(self.path) as reader:
                self._count = reader.count_frames(self.header.frame_count)
                self._timeline = reader.timeline
        return self._count

    def _decode(self, indices: Iterable[int] | None, size: Size) -> Iterator[Frame]:
        return self._decode_view(indices, whole(self.native_size, size))

    def _decode_view(self, indices: Iterable[int] | None, view: View) -> Iterator[Frame]:
        with VideoReader(self.path, timeline=self._timeline) as reader:
            if indices is None:
                while (pixels := reader.read_pixels()) is not None:
                    yield self._frame(reader.position - 1, pixels, view)
                return
            for index in indices:
                reader.seek(index)
                decoded = reader.read_pixels()
                if decoded is None:
                    raise ValueError(f"video {self.path} ends before frame {index}: is it truncated?")
                yield self._frame(index, decoded, view)

    def _frame(self, index: int, pixels: Tensor, view: View) -> Frame:
        native = self.native_size
        if tuple(pixels.shape[:2]) != native:
            raise ValueError(
                f"frame {index} of video {self.path} is {tuple(pixels.shape[:2])}, its first frame "
                f"{native}; videos that change their size have to be re-encoded"
            )
        name = f"{index:05d}"
        labels = self.labels.read(name, native)
        return Frame(name, seen_pixels(pixels, view), None if labels is None else seen_labels(labels, view))


class CameraVideo(Video):
    """A live camera: it can be iterated, has no length, and every iteration goes on from now.

    Args:
        index: number of the camera, 0 for the first.
        size: see Video.
    """

    def __init__(self, index: int, *, size: Size | int | None = None) -> None:
        super().__init__(f"camera{index}", size=size)
        self.index = index
        with VideoReader(index) as reader:
            self._native = reader.size
            self.fps = reader.fps

    @property
    def native_size(self) -> Size:
        return self._native

    def __len__(self) -> int:
        raise TypeError(f"{self.name} is live and has no length; iterate it and stop when you have enough")

    def _decode(self, indices: Iterable[int] | None, size: Size) -> Iterator[Frame]:
        with VideoReader(self.index) as reader:
            for index, image in enumerate(reader):
                yield _fitted(Frame(f"{index:05d}", image), size)


class ClipVideo(Video):
    """A clip in memory, seen as a video.

    Args:
        clip: the clip; float frames in [0, 1] become uint8.
        size: see Video.
    """

    def __init__(self, clip: Clip, *, size: Size | int | None = None) -> None:
        super().__init__(clip.name, size=size)
        self._clip = clip

    @property
    def native_size(self) -> Size:
        height, width = self._clip.frames.shape[2:]
        return height, width

    @property
    def frame_names(self) -> tuple[str, ...]:
        return self._clip.frame_names or super().frame_names

    @property
    def labelled(self) -> Tensor | None:
        if self._clip.labels is None:
            return None
        flags = self._clip.labelled
        return torch.ones(len(self), dtype=torch.bool) if flags is None else flags

    def __len__(self) -> int:
        return len(self._clip)

    def _decode(self, indices: Iterable[int] | None, size: Size) -> Iterator[Frame]:
        names, labelled, labels = self.frame_names, self.labelled, self._clip.labels
        for index in range(len(self)) if indices is None else indices:
            image = self._clip.frames[index]
            if image.is_floating_point():
                image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
            known = labels is not None and labelled is not None and bool(labelled[index])
            yield _fitted(
                Frame(names[index], image, labels[index] if known and labels is not None else None), size
            )


def _fitted(frame: Frame, size: Size) -> Frame:
    """The frame at a size; its labels by the nearest pixel."""
    labels = None if frame.labels is None else resize_labels(frame.labels, size)
    return Frame(frame.name, resize_image(frame.image, size), labels)


def _seen(frame: Frame, view: View) -> Frame:
    """What a view shows of a frame and its labels."""
    labels = None if frame.labels is None else seen_labels(frame.labels, view)
    return Frame(frame.name, seen_image(frame.image, view), labels)


def _channels_last(frame: Frame) -> Frame:
    """The frame in the layout in which windows of it are resized fastest."""
    image = frame.image[None].contiguous(memory_format=torch.channels_last)[0]  # (3, H, W)
    return frame._replace(image=image)
