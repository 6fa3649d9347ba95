"""Videos in tar shards of .npy files, as VideoSAUR and SlotContrast write and read them (webdataset)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vosssl.clip import Frame
from vosssl.data.clips import VideoClips
from vosssl.data.listing import contents, natural_order, neighbours
from vosssl.data.sources import Video
from vosssl.data.tar_index import Member, StoredArray, expand_braces, index_tar, stored_array
from vosssl.data.tfrecord import file_states
from vosssl.data.transforms import Transform
from vosssl.ops.resize import Size, resize_image, resize_labels

_VIDEO, _LABELS, _FLOW = "video.npy", "segmentations.npy", "forward_flow.npy"
_OBJECTS = 254  # ids that labels have


class ShardVideo(Video):
    """A video that lies in a tar as arrays; only the frames that are asked for are read.

    Args:
        name: name of the video.
        video: (T, H, W, 3) uint8.
        segmentations: (T, H, W, 1) ids of objects, 0 background; or (T, H, W, N) masks, one object each, not
            0 where it is visible (YouTube-VIS has the category there): object n gets id n + 1, and where
            masks overlap the later one lies above. A single mask is read as ids too, which names its one
            object after the category. None: no labels.
        stored_flow: (T, H, W, 2), see `raw_flow`.
        size: see Video.
        read_ahead: see Video.
    """

    def __init__(
        self,
        name: str,
        *,
        video: StoredArray,
        segmentations: StoredArray | None = None,
        stored_flow: StoredArray | None = None,
        size: Size | int | None = None,
        read_ahead: int = 0,
    ) -> None:
        super().__init__(name, size=size, read_ahead=read_ahead)
        self.video = _expected(video, channels=3)
        self.segmentations = None if segmentations is None else _expected(segmentations, like=video)
        self.stored_flow = None if stored_flow is None else _expected(stored_flow, like=video, channels=2)

    @property
    def native_size(self) -> Size:
        return self.video.shape[1], self.video.shape[2]

    @property
    def labelled(self) -> Tensor | None:
        return None if self.segmentations is None else torch.ones(len(self), dtype=torch.bool)

    def __len__(self) -> int:
        return self.video.shape[0]

    def read_labels(self, index: int) -> Tensor | None:
        if self.segmentations is None:
            return None
        with self.video.member.path.open("rb") as file:
            rows = self.segmentations.rows([index], file=file)
        return resize_labels(self._ids(rows[0]), self.size)

    def raw_flow(self, indices: Sequence[int]) -> Tensor | None:
        """(T, H, W, 2) float32 forward flow as stored, None without.

        VideoSAUR's script keeps the integers 0..65535 of MOVi's release, in (row, column), but not the range
        that they span: pixels cannot be had from them. Read the release (data=movi_e) for flow.
        """
        if self.stored_flow is None:
            return None
        with self.video.member.path.open("rb") as file:
            return torch.from_numpy(self.stored_flow.rows(indices, file=file).astype(np.float32))

    def _decode(self, indices: Iterable[int] | None, size: Size) -> Iterator[Frame]:
        with self.video.member.path.open("rb") as file:
            for index in range(len(self)) if indices is None else indices:
                pixels = torch.from_numpy(self.video.rows([index], file=file)[0])
                labels = None
                if self.segmentations is not None:
                    labels = resize_labels(self._ids(self.segmentations.rows([index], file=file)[0]), size)
                image = pixels.permute(2, 0, 1).contiguous()  # (H, W, 3) -> (3, H, W)
                yield Frame(f"{index:05d}", resize_image(image, size), labels)

    def _ids(self, stored: np.ndarray) -> Tensor:
        """(H, W) uint8 ids of (H, W, 1) ids or (H, W, N) masks."""
        assert self.segmentations is not None
        if stored.shape[2] > 1:
            ids = np.arange(1, stored.shape[2] + 1, dtype=np.uint8)
            return torch.from_numpy(((stored != 0) * ids).max(axis=2))  # (H, W, N) -> (H, W)
        if stored.size and not 0 <= stored.min() <= stored.max() <= 255:
            raise self.segmentations.member.error(
                f"holds ids from {stored.min()} to {stored.max()}, expected 0..255"
            )
        return torch.from_numpy(stored[..., 0].astype(np.uint8))


def _expected(
    array: StoredArray, *, like: StoredArray | None = None, channels: int | None = None
) -> StoredArray:
    """The array, if it fits."""
    sides = array.shape if like is None else (*like.shape[:3], *array.shape[3:])
    fits = len(array.shape) == 4 and array.shape == sides and 0 not in array.shape
    if channels is not None:
        fits = fits and array.shape[3] == channels
    if like is None:
        fits = fits and array.dtype == np.uint8
    elif channels is None:
        fits = fits and array.shape[3] <= _OBJECTS and array.dtype.kind in "biu"
    if not fits:
        wanted = "(T, H, W, 3) uint8" if like is None else f"{like.shape[:3]} like its video, and "
        wanted += "" if like is None else f"{channels} channels" if channels else "1 to 254 masks of integers"
        raise array.member.error(f"is {array.shape} {array.dtype}, expected {wanted}")
    return array


class ShardDataset(VideoClips):
    """Videos of tar shards such as `movi_e-train-000000.tar`, in which `<n>.video.npy` is a video.

    Args:
        root: folder of the shards.
        shards: their names below root: with a range in braces, `movi_e-train-{000000..000304}.tar`, of which
            all must be there, or with wildcards, `ytvis-train-*.tar`.
        labels: read `<n>.segmentations.npy`; training shards may come without.
        allow_missing: go on when shards of the range are missing.
        num_frames: see VideoClips, as are stride, clips_per_video, size, and transform.
        stride: likewise.
        clips_per_video: likewise.
        size: likewise.
        transform: likewise.
        read_ahead: frames read ahead by a thread while a video is iterated.

    Raises:
        FileNotFoundError: no such folder or shards; names those that are missing.
        ValueError: a shard that is cut off, damaged or hostile, a video without labels; names it.

    Source: martius-lab/videosaur, data/save_movi.py and data/save_ytvis2021.py.
    """

    def __init__(
        self,
        root: str | Path | None,
        *,
        shards: str,
        labels: bool = True,
        allow_missing: bool = False,
        num_frames: int | None = None,
        stride: int | Sequence[int] = 1,
        clips_per_video: int = 1,
        size: Size | int | None = None,
        transform: Transform | None = None,
        read_ahead: int = 2,
    ) -> None:
        if root is None or str(root) == "":
            raise ValueError(
                "shards need a root: pass data.root=FOLDER; its yaml in cfg/data says what it holds"
            )
        self.paths = _shard_paths(Path(root).expanduser(), shards, allow_missing=allow_missing)
        videos: list[Video] = []
        for path in self.paths:
            videos += _videos_of(path, labels=labels, read_ahead=read_ahead)
        if not videos:
            raise ValueError(f"no member <n>.{_VIDEO} in {len(self.paths)} shards {shards} of {root}")
        super().__init__(
            videos,
            num_frames=num_frames,
            stride=stride,
            clips_per_video=clips_per_video,
            size=size,
            transform=transform,
        )

    def fingerprint(self) -> str:
        """See VideoClips; also changes with the shards' sizes and times."""
        return hashlib.sha256(f"{super().fingerprint()} {file_states(self.paths)}".encode()).hexdigest()


def _shard_paths(root: Path, shards: str, *, allow_missing: bool) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"no dataset at {root}: pass the folder of the shards{neighbours(root)}")
    if any(sign in shards for sign in "*?["):
        paths = sorted(root.glob(shards), key=lambda path: natural_order(str(path)))
        missing: list[Path] = []
    else:
        wanted = [root / name for name in expand_braces(shards)]
        paths = [path for path in wanted if path.is_file()]
        missing = [path for path in wanted if not path.is_file()]
    if not paths:
        raise FileNotFoundError(f"no shards {shards} in {root}: {contents(root)}")
    if missing and not allow_missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(missing) + len(paths)} shards {shards} are missing in {root} (such as "
            f"{missing[0].name}); get them, correct the range (data.train_shards, data.val_shards), or pass "
            "data.allow_missing=true to go on with a part: its scores are not comparable"
        )
    return paths


def _videos_of(path: Path, *, labels: bool, read_ahead: int) -> list[ShardVideo]:
    """The videos of one shard, in the order of the tar."""
    samples: dict[str, dict[str, Member]] = {}
    for member in index_tar(path):
        folder, _, file_name = member.name.rpartition("/")
        key, _, kind = file_name.partition(".")  # as webdataset splits: at the first dot
        sample = samples.setdefault(f"{folder}/{key}" if folder else key, {})
        if kind in sample:
            raise member.error("stands in the shard twice")
        sample[kind] = member
    videos = []
    with path.open("rb") as file:
        for key, sample in samples.items():
            if _VIDEO not in sample:
                continue
            if labels and _LABELS not in sample:
                raise sample[_VIDEO].error(f"has no {_LABELS} beside it; pass labels=false, or")
            wanted = {_LABELS: labels, _FLOW: _FLOW in sample}
            arrays = {
                kind: stored_array(sample[kind], file=file)
                for kind in (_VIDEO, *(kind for kind, used in wanted.items() if used))
            }
            videos.append(
                ShardVideo(
                    f"{path.stem}/{key}".replace("/", "-"),
                    video=arrays[_VIDEO],
                    segmentations=arrays.get(_LABELS),
                    stored_flow=arrays.get(_FLOW),
                    read_ahead=read_ahead,
                )
            )
    return videos
