"""Clips drawn from videos of any kind: what a network trains on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from vosssl.clip import Clip
from vosssl.data.sampling import Draw, as_draw, generator_of, mixed_seed
from vosssl.data.sources import FileVideo, FolderVideo, Video, fitted_size
from vosssl.data.transforms import Transform, planned
from vosssl.data.views import whole
from vosssl.ops.resize import Size

log = logging.getLogger(__name__)


class VideoClips:
    """Clips drawn from videos: for training a clip dataset, for evaluation the videos themselves.

    A draw's index chooses the video, its seed the stride, the first frame (every place in the video is
    equally likely) and what the transform does.

    Args:
        videos: what to draw from.
        num_frames: T, frames of a clip; None: whole videos.
        stride: distance between its frames, or (least, largest), drawn anew for every clip; where a video is
            too short for the largest it is drawn from those that fit. Videos too short for the least are left
            out.
        clips_per_video: draws of one video in an epoch.
        size: what frames are resized to as they are decoded (exact, or the shorter side); smaller is faster.
        transform: applied to every clip.
        frame_cache: bytes of decoded frames that a process may keep, see `shared_frame_cache`; 0 keeps none.

    Raises:
        ValueError: no video is long enough.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        *,
        num_frames: int | None = None,
        stride: int | Sequence[int] = 1,
        clips_per_video: int = 1,
        size: Size | int | None = None,
        transform: Transform | None = None,
        frame_cache: int = 0,
    ) -> None:
        least, largest = (stride, stride) if isinstance(stride, int) else (stride[0], stride[1])
        if (num_frames is not None and num_frames < 1) or not 1 <= least <= largest or clips_per_video < 1:
            raise ValueError(
                f"clips of {num_frames} frames at stride {stride}, {clips_per_video} a video, were asked "
                "for; expected 1 or more of each, and a stride or (least, largest)"
            )
        self._videos = list(videos)
        for video in self._videos:
            video.frame_cache = frame_cache or video.frame_cache
        self._clip_size = size
        self.num_frames = num_frames
        self.stride = (least, largest)
        self.clips_per_video = clips_per_video
        self.transform = transform
        self._drawn = self._videos
        if num_frames is not None and num_frames > 1:
            self._drawn = [
                video for video in self._videos if video.promised_length > (num_frames - 1) * least
            ]
            self._explain_short(num_frames, least)

    def _explain_short(self, num_frames: int, stride: int) -> None:
        if len(self._drawn) == len(self._videos):
            return
        needed = (num_frames - 1) * stride + 1
        short = next(video for video in self._videos if video.promised_length < needed)
        message = (
            f"{len(self._videos) - len(self._drawn)} of {len(self._videos)} videos are shorter than the "
            f"{needed} frames that {num_frames} frames at stride {stride} need (such as {short.name}, "
            f"{short.promised_length} frames)"
        )
        if not self._drawn:
            raise ValueError(f"{message}; take fewer frames or a smaller stride")
        log.warning("%s and are left out of training", message)

    def videos(self) -> list[Video]:
        """All videos, to be iterated frame by frame."""
        return list(self._videos)

    def __len__(self) -> int:
        return len(self._drawn) * self.clips_per_video

    def __getitem__(self, draw: Draw | int) -> Clip:
        index, seed, _ = as_draw(draw)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        video = self._drawn[index // self.clips_per_video]
        frames = self.frames_of(video, seed=mixed_seed(seed, index))
        generator = generator_of(mixed_seed(seed, index, 1))
        start = whole(
            video.native_size,
            video.size if self._clip_size is None else fitted_size(video.native_size, self._clip_size),
        )
        view, rest = planned(self.transform, start, generator)  # a crop is decided before anything is decoded
        clip = video.clip(frames, view=view)
        return clip if rest is None else rest(clip, generator)

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def frames_of(self, video: Video, *, seed: int) -> range:
        """Which frames of a video a seed draws."""
        if self.num_frames is None:
            return range(len(video))
        generator = generator_of(seed)
        spans = max(1, self.num_frames - 1)
        least, largest = self.stride[0], min(self.stride[1], max(1, (len(video) - 1) // spans))
        stride = least + int(torch.randint(largest - least + 1, (), generator=generator))
        start = int(torch.randint(len(video) - (self.num_frames - 1) * stride, (), generator=generator))
        return range(start, start + (self.num_frames - 1) * stride + 1, stride)

    def fingerprint(self) -> str:
        """A hash that changes when the clips may: other videos, frames, file sizes or times, or arguments."""
        settings = (self.num_frames, self.stride, self.clips_per_video, self._clip_size)
        return videos_fingerprint(self._drawn, (*settings, described(self.transform)))


def videos_fingerprint(videos: Sequence[Video], settings: object) -> str:
    """A hash of what is drawn from and how.

    Args:
        videos: the videos; names, lengths, sizes, and size and time of their first and last file count.
        settings: anything whose repr tells how they are drawn from.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for video in videos:
        digest.update(f"{video.name} {video.promised_length} {video.size}".encode())
        for path in _ends(video):
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _ends(video: Video) -> list[Path]:
    """The files that stand for a video in the fingerprint."""
    if isinstance(video, FileVideo):
        return [video.path]
    return (
        [video.folder / name for name in (video.names[0], video.names[-1])]
        if isinstance(video, FolderVideo)
        else []
    )


def described(transform: object) -> object:
    """What a transform is made of, for the fingerprint."""
    if isinstance(transform, list | tuple):
        return [described(item) for item in transform]
    if hasattr(transform, "__dict__"):
        parts = {key: described(value) for key, value in sorted(vars(transform).items())}
        return type(transform).__qualname__, parts
    return repr(transform)
