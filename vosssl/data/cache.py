"""Features of a frozen backbone, computed once and kept on disk, memory-mapped while training."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor, nn

from vosssl.clip import Clip
from vosssl.data.files import atomic_write, require_space
from vosssl.data.readahead import read_ahead
from vosssl.data.sampling import ClipDataset, Draw, as_draw, fingerprint_of, read_draws

FORMAT = "vosssl/features/1"
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_RECORD = 8  # bytes of a row's record per feature: 2**32 + CRC-32 of the row; 0 while it is missing
_WRITTEN = 1 << 32

Encode = Callable[
    [Tensor], Mapping[str, Tensor]
]  # frames (B, T, 3, H, W) -> features by name, each (B, T, ...)


def cache_key(network: nn.Module, dataset: ClipDataset, *, preprocessing: str = "") -> str:
    """A name for the features of a network on a dataset: another one as soon as they would differ.

    Args:
        network: the frozen part that is cached; its structure and every weight count.
        dataset: its `fingerprint()` counts, or, without one, its length and the content of some clips.
        preprocessing: whatever else changes the features, such as the precision.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{FORMAT} {preprocessing} {network!r}".encode())
    for name, weight in network.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(_raw(weight.detach().cpu()))
    digest.update(fingerprint_of(dataset).encode())
    return digest.hexdigest()[:32]


def _raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


@dataclass(frozen=True)
class _Header:
    """What a cache holds: written once, when its first batch is encoded.

    Attributes:
        key: of what was cached.
        rows: number of clips, variants counted.
        dtype: name of the type that features are stored in.
        shapes: feature -> shape (T, ...) of one row.
        frames: (T, 3, H, W) of the clips.
    """

    key: str
    rows: int
    dtype: str
    shapes: dict[str, tuple[int, ...]]
    frames: tuple[int, ...]

    def row_bytes(self, name: str) -> int:
        """Bytes that a row of a feature takes."""
        return prod(self.shapes[name]) * _DTYPES[self.dtype].itemsize

    @property
    def total_bytes(self) -> int:
        """Bytes of all files but the header."""
        return self.rows * sum(self.row_bytes(name) + _RECORD for name in self.shapes)


class FeatureCache:
    """Features of a dataset's clips on disk: one file per feature, half precision, memory-mapped.

    Rows are written with a checksum each, after their data, so a killed build goes on where it was, and
    damage is noticed when a row is first read.

    Args:
        folder: where caches live; this one gets a folder of its own, named by its key and type.
        key: what `cache_key` gives.
        dtype: type that features are stored in.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        key: str,
        dtype: Literal["float16", "bfloat16", "float32"] = "float16",
    ) -> None:
        self.folder = Path(folder).expanduser() / f"{key}-{dtype}"
        self.key = key
        self.dtype = dtype
        self._header: _Header | None = None
        self._maps: dict[str, Tensor] = {}
        self._verified: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # another process maps the files itself

    @property
    def header(self) -> _Header:
        """What the cache holds.

        Raises:
            ValueError: it was not begun, or its header is damaged.
        """
        if self._header is None:
            path = self.folder / "header.json"
            if not path.is_file():
                raise ValueError(f"no feature cache in {self.folder}; build it first")
            self._header = _read_header(path)
        return self._header

    @property
    def rows(self) -> int:
        """Number of rows, written or not."""
        return self.header.rows

    def missing(self) -> list[int]:
        """Rows that are not written yet.

        Raises:
            ValueError: not begun, or files that are too short.
        """
        return (self._records() == 0).any(1).nonzero().flatten().tolist()

    def _records(self) -> Tensor:
        """(rows, F) int64, 0 for what is not written."""
        path = self.folder / "records.bin"
        raw = path.read_bytes() if path.is_file() else b""
        expected = self.rows * len(self.header.shapes) * _RECORD
        if len(raw) != expected:
            raise ValueError(
                f"feature cache {self.folder} is damaged: {path.name} has {len(raw)} bytes, expected "
                f"{expected}; delete the folder and build it again"
            )
        return torch.frombuffer(bytearray(raw), dtype=torch.int64).view(self.rows, -1)

    def build(
        self,
        dataset: ClipDataset,
        encode: Encode,
        *,
        variants: int = 1,
        batch_size: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Encodes what is not yet cached.

        Row `index * variants + v` is the draw (index, seed v), so augmented datasets are cached as that many
        fixed variants of each clip.

        Args:
            dataset: a clip dataset.
            encode: frames (B, T, 3, H, W) as the dataset gives them -> features by name, each (B, T, ...), on
                any device. It is called without gradients.
            variants: draws cached of every index.
            batch_size: clips encoded at once.
            progress: called with rows done and rows in all, after every batch.

        Raises:
            OSError: the disk has no room; says how much is needed.
            ValueError: features of changing shape, or too large for the type; a cache of another length.
        """
        rows = len(dataset) * variants
        todo = list(range(rows))
        if (self.folder / "header.json").is_file():
            if self.rows != rows:
                raise ValueError(
                    f"feature cache {self.folder} has {self.rows} rows, the dataset {rows} ({len(dataset)} "
                    f"clips x {variants} variants); delete the folder to build it anew"
                )
            todo = self.missing()
        done = rows - len(todo)
        for numbers, frames in read_ahead(_frames_of(dataset, todo, variants, batch_size), depth=2):
            with torch.inference_mode():
                features = encode(frames)
            if self._header is None and not (self.folder / "header.json").is_file():
                self._begin(rows, features, tuple(frames.shape[1:]))
            self._write(numbers, features)
            done += len(numbers)
            if progress is not None:
                progress(done, rows)

    def _begin(self, rows: int, features: Mapping[str, Tensor], frames: tuple[int, ...]) -> None:
        """Lays out the files for all rows; the header comes last, so that a cache has all or no files."""
        shapes = {name: tuple(value.shape[1:]) for name, value in features.items()}
        header = _Header(self.key, rows, self.dtype, shapes, frames)
        require_space(self.folder, header.total_bytes, what=f"the feature cache of {rows} clips")
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in shapes:
            _resize_file(self.folder / f"{name}.bin", rows * header.row_bytes(name))
        _resize_file(self.folder / "records.bin", rows * len(shapes) * _RECORD)
        with atomic_write(self.folder / "header.json") as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, **vars(header)}, indent=2))
        self._header = header

    def _write(self, numbers: Sequence[int], features: Mapping[str, Tensor]) -> None:
        """Writes rows, then their records."""
        header = self.header
        records = torch.zeros(len(numbers), len(header.shapes), dtype=torch.int64)
        for column, (name, shape) in enumerate(header.shapes.items()):
            value = features.get(name)
            if value is None or tuple(value.shape) != (len(numbers), *shape):
                came = "nothing" if value is None else tuple(value.shape)
                raise ValueError(
                    f"feature {name} of rows {numbers[0]}..{numbers[-1]} is {came}, expected "
                    f"{(len(numbers), *shape)} like the first ones; clips of one cache must have one shape"
                )
            stored = value.detach().to("cpu", _DTYPES[header.dtype])
            if not bool(stored.isfinite().all()):
                raise ValueError(
                    f"feature {name} of rows {numbers[0]}..{numbers[-1]} is not finite as {header.dtype}; "
                    "use dtype=bfloat16 or float32 if its values are large, look for NaN in the network if "
                    "not"
                )
            with open(self.folder / f"{name}.bin", "r+b") as file:
                for row, number in enumerate(numbers):
                    raw = _raw(stored[row])
                    _write_at(file, number * header.row_bytes(name), raw)
                    records[row, column] = _WRITTEN + zlib.crc32(raw)
        with open(self.folder / "records.bin", "r+b") as file:
            for row, number in enumerate(numbers):
                _write_at(file, number * records.shape[1] * _RECORD, _raw(records[row]))

    def read(self, row: int) -> dict[str, Tensor]:
        """Features of one row, each (T, ...), in the type they are stored in.

        Raises:
            ValueError: a row that is missing or damaged.
        """
        header = self.header
        found = {name: self._map(name)[row] for name in header.shapes}
        if row not in self._verified:
            self._verify(row, found)
            self._verified.add(row)
        return {name: value.clone() for name, value in found.items()}

    def _map(self, name: str) -> Tensor:
        """(rows, T, ...) a feature's file, mapped into memory."""
        if name not in self._maps:
            header, path = self.header, self.folder / f"{name}.bin"
            size, expected = path.stat().st_size if path.is_file() else 0, self.rows * header.row_bytes(name)
            if size != expected:
                raise ValueError(
                    f"feature cache {self.folder} is damaged: {path.name} has {size} bytes, expected "
                    f"{expected}; delete the folder and build it again"
                )
            shape = (self.rows, *header.shapes[name])
            flat = torch.from_file(str(path), shared=False, size=prod(shape), dtype=_DTYPES[header.dtype])
            self._maps[name] = flat.view(shape)
        return self._maps[name]

    def _verify(self, row: int, features: Mapping[str, Tensor]) -> None:
        columns = len(self.header.shapes)
        with open(self.folder / "records.bin", "rb") as file:
            file.seek(row * columns * _RECORD)
            records = torch.frombuffer(bytearray(file.read(columns * _RECORD)), dtype=torch.int64).tolist()
        if 0 in records:
            raise ValueError(
                f"row {row} of feature cache {self.folder} is not written yet; build the cache first"
            )
        for record, (name, value) in zip(records, features.items(), strict=True):
            if record != _WRITTEN + zlib.crc32(_raw(value)):
                raise ValueError(
                    f"feature cache {self.folder} is damaged: row {row} of {name} does not match its "
                    "checksum; call repair() and build again, or delete the folder"
                )

    def repair(self) -> int:
        """Marks damaged rows as missing, so that `build` makes them anew.

        Returns:
            How many were damaged.
        """
        damaged = 0
        for row in sorted(set(range(self.rows)) - set(self.missing())):
            try:
                self._verify(row, {name: self._map(name)[row] for name in self.header.shapes})
            except ValueError:
                damaged += 1
                with open(self.folder / "records.bin", "r+b") as file:
                    blank = bytes(len(self.header.shapes) * _RECORD)
                    _write_at(file, row * len(blank), memoryview(blank))
        self._verified.clear()
        return damaged


class CachedFeatures:
    """A clip dataset whose clips carry their cached features.

    Args:
        dataset: the dataset that was cached.
        cache: its complete cache.
        frames: read the frames too. False gives black frames of the right shape without reading anything, for
            networks that look at nothing but the features.

    Raises:
        ValueError: a cache that is incomplete, or of another length.
    """

    def __init__(self, dataset: ClipDataset, cache: FeatureCache, *, frames: bool = True) -> None:
        missing = cache.missing()
        if missing:
            raise ValueError(
                f"feature cache {cache.folder} lacks {len(missing)} of {cache.rows} rows; build it to the "
                "end first"
            )
        if len(dataset) == 0 or cache.rows % len(dataset):
            raise ValueError(
                f"feature cache {cache.folder} has {cache.rows} rows, the dataset {len(dataset)} clips; "
                "expected the same number or a multiple (variants of each clip)"
            )
        self.dataset = dataset
        self.cache = cache
        self.frames = frames
        self.variants = cache.rows // len(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw | int) -> Clip:
        return self.__getitems__([as_draw(draw)])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[Clip]:
        fixed = [Draw(draw.index, draw.seed % self.variants) for draw in draws]  # step 0, as built
        clips = read_draws(self.dataset, fixed) if self.frames else [self._blank(draw) for draw in fixed]
        rows = [draw.index * self.variants + draw.seed for draw in fixed]
        return [replace(clip, features=self.cache.read(row)) for clip, row in zip(clips, rows, strict=True)]

    def _blank(self, draw: Draw) -> Clip:
        black = torch.zeros(1, dtype=torch.uint8).expand(self.cache.header.frames)
        return Clip(f"cached-{draw.index}", black)


def _frames_of(
    dataset: ClipDataset, rows: Sequence[int], variants: int, batch_size: int
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Rows and their frames (B, T, 3, H, W), batch by batch."""
    for start in range(0, len(rows), batch_size):
        numbers = tuple(rows[start : start + batch_size])
        clips = read_draws(dataset, [Draw(*divmod(number, variants)) for number in numbers])
        yield numbers, torch.stack([clip.frames for clip in clips])


def _read_header(path: Path) -> _Header:
    try:
        fields = json.loads(path.read_text())
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        shapes = {name: tuple(shape) for name, shape in fields["shapes"].items()}
        return _Header(**{**fields, "shapes": shapes, "frames": tuple(fields["frames"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"feature cache header {path} is damaged ({error}); delete its folder") from error


def _resize_file(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


def _write_at(file: BinaryIO, offset: int, raw: memoryview) -> None:
    file.seek(offset)
    file.write(raw)
