"""MOVi-A to MOVi-F, read from the TFRecord shards of the release."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vosssl.data.clips import VideoClips
from vosssl.data.io import decode_planes
from vosssl.data.listing import contents, neighbours
from vosssl.data.movi_video import MoviVideo
from vosssl.data.sources import Video
from vosssl.data.tf_example import bytes_spans, example_features
from vosssl.data.tfrecord import TFRecordFile, Verify, file_states, index_files, shard_files
from vosssl.data.transforms import Transform
from vosssl.ops.resize import Size


class MoviDataset(VideoClips):
    """A split of MOVi as TFDS wrote it, `<variant>-<split>.tfrecord-00000-of-01024` and so on.

    Args:
        root: the folder of the shards, or one above it: that of the version (1.0.0), the resolution
            (256x256), the variant (movi_e), or of all variants.
        variant: movi_a to movi_f.
        split: train, validation, or test (C, D and E).
        resolution: 128, 256 or (F) 512, where several are below root; None: the only one.
        labels: read the segmentations.
        flow: clips carry the forward flow; it takes most of a record's bytes.
        verify: see TFRecordFile. "first" reads each record once in full in every process that reads it: 20 ms
            for 38 MB out of the cache, where decoding 4 frames takes 8 ms (scripts/bench_records.py); on a
            slow disk "none" saves reading the flow of clips that do not use it.
        index_cache: see `index_files`.
        allow_missing: go on when shards are missing.
        num_frames: see VideoClips, as are stride, clips_per_video, size, and transform.
        stride: likewise.
        clips_per_video: likewise.
        size: likewise.
        transform: likewise.
        read_ahead: frames decoded ahead by a thread while a video is iterated.

    Raises:
        FileNotFoundError: no such shards below root, or some are missing; says what is there.
        ValueError: shards of several resolutions, or damaged ones.
    """

    def __init__(
        self,
        root: str | Path | None,
        *,
        variant: str,
        split: str = "train",
        resolution: int | None = None,
        labels: bool = True,
        flow: bool = False,
        verify: Verify = "first",
        index_cache: str | Path | None = None,
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
                "MOVi needs a root: pass data.root=FOLDER; its yaml in cfg/data says what it holds"
            )
        stem = f"{variant}-{split}.tfrecord"
        folder = shard_folder(Path(root).expanduser(), stem, resolution=resolution)
        self.paths = shard_files(folder, stem, allow_missing=allow_missing)
        files = [
            TFRecordFile(path, spans=spans, verify=verify)
            for path, spans in zip(self.paths, index_files(self.paths, cache=index_cache), strict=True)
        ]
        first = next((file for file in files if len(file)), None)
        if first is None:
            raise ValueError(f"the {len(files)} shards {stem} in {folder} hold no records")
        native, length = _first_scene(first)
        videos: list[Video] = [
            MoviVideo(
                file,
                number,
                name=f"{_shard_number(file.path)}-{number:04d}",
                native_size=native,
                length=length,
                labels=labels,
                flow=flow,
                read_ahead=read_ahead,
            )
            for file in files
            for number in range(len(file))
        ]
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


def _shard_number(path: Path) -> str:
    return path.name.split("-")[-3]


def _first_scene(file: TFRecordFile) -> tuple[Size, int]:
    """(H, W) and number of frames of a shard's first record; those of a release are alike."""
    with file.visit(0) as payload:
        features = example_features(payload)
        if "video" not in features:
            raise payload.place.error(
                f"holds no feature video, expected a record of MOVi; it has {', '.join(sorted(features)[:8])}"
            )
        spans = bytes_spans(payload, features["video"])
        if not len(spans):
            raise payload.place.error("its video has no frames")
        start, stop = map(int, spans[0])
        height, width = decode_planes(payload.read(start, stop), f"the first frame of {file.path}").shape[1:]
    return (height, width), len(spans)


def shard_folder(root: Path, stem: str, *, resolution: int | None = None) -> Path:
    """The folder at or up to three levels below root that holds the shards of a split.

    Args:
        root: where to look.
        stem: what the shards' names begin with, such as `movi_e-train.tfrecord`.
        resolution: keep only folders below `<resolution>x<resolution>`.

    Raises:
        FileNotFoundError: none; says which splits there are.
        ValueError: several.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no dataset at {root}: pass the folder of the shards{neighbours(root)}")
    levels = ("", "*/", "*/*/", "*/*/*/")
    folders = sorted({path.parent for level in levels for path in root.glob(f"{level}{stem}-*-of-*")})
    if resolution is not None and len(folders) > 1:
        wanted = f"{resolution}x{resolution}"
        folders = [folder for folder in folders if wanted in folder.parts]
    if len(folders) > 1:
        listing = ", ".join(str(folder) for folder in folders[:4])
        raise ValueError(
            f"shards {stem} lie in {listing}; pass data.resolution=128 or so, or one as data.root"
        )
    if folders:
        return folders[0]
    others = {
        path.name.split(".tfrecord-")[0]
        for level in levels
        for path in root.glob(f"{level}*.tfrecord-*-of-*")
    }
    found = f"found {', '.join(sorted(others)[:8])}" if others else contents(root)
    size = "" if resolution is None else f" of {resolution} x {resolution}"
    raise FileNotFoundError(f"no shards {stem}-*-of-*{size} in {root} or up to three folders below: {found}")
