"""Tar files as an index of members that are read in place: nothing is extracted."""

from __future__ import annotations

import ast
import math
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

_BLOCK = 512  # bytes; a tar consists of blocks and ends with two of zeros
_BRACE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_VERSIONS = ((1, 0), (2, 0), (3, 0))  # of .npy headers


class Member(NamedTuple):
    """A file inside a tar.

    Attributes:
        path: the tar.
        name: its name there.
        offset: byte at which its content begins.
        length: bytes of its content.
    """

    path: Path
    name: str
    offset: int
    length: int

    def error(self, what: str) -> ValueError:
        """A ValueError that says where."""
        return ValueError(f"{self.name} in {self.path}: {what}; write or download the shard again")


class StoredArray(NamedTuple):
    """A .npy file inside a tar, whose rows are read one by one.

    Attributes:
        member: where it is.
        offset: byte of the tar at which its values begin.
        dtype: of its values.
        shape: of the array.
    """

    member: Member
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def rows(self, indices: Sequence[int], *, file: BinaryIO) -> np.ndarray:
        """Some rows of the first axis.

        Args:
            indices: N rows, >= 0.
            file: the open tar.

        Returns:
            (N, …), of the stored type in this machine's byte order.

        Raises:
            ValueError: the tar ends before them.
        """
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for place, index in enumerate(indices):
            file.seek(self.offset + index * width)
            content = file.read(width)
            if len(content) < width:
                raise self.member.error(f"the shard ends inside row {index}: truncated")
            rows[place] = np.frombuffer(content, self.dtype).reshape(self.shape[1:])
        return rows.astype(self.dtype.newbyteorder("="), copy=False)


def expand_braces(pattern: str) -> list[str]:
    """The names that `movi_e-train-{000000..000304}.tar` stands for, one for each number.

    Raises:
        ValueError: a range that runs backwards or is longer than a million.
    """
    match = _BRACE.search(pattern)
    if match is None:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < 1_000_000:
        raise ValueError(f"shards {pattern} count from {first} to {last}, expected an ascending range")
    digits = len(match[1])
    return [
        name
        for number in range(first, last + 1)
        for name in expand_braces(f"{pattern[: match.start()]}{number:0{digits}d}{pattern[match.end() :]}")
    ]


def index_tar(path: str | Path) -> list[Member]:
    """The files in a tar, in order; only their headers are read.

    Args:
        path: an uncompressed tar.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no uncompressed tar, one that is cut off or damaged, or members that are links or devices
            or have names that lead outside.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no shard {path}")
    end = path.stat().st_size
    members: list[Member] = []
    after = 0
    try:
        with tarfile.open(path, mode="r:") as archive:
            for item in archive:
                member = Member(path, item.name, item.offset_data, item.size)
                after = item.offset_data + -(-item.size // _BLOCK) * _BLOCK
                if item.isdir():
                    continue
                _refuse_hostile(item, member)
                if item.offset_data + item.size > end:
                    raise member.error(f"needs {item.size} bytes, but the shard ends before: truncated")
                members.append(member)
    except tarfile.TarError as error:
        raise ValueError(
            f"shard {path} ({end} bytes) is truncated, damaged or no uncompressed tar ({error}); unpack "
            ".tar.gz first, or download it again"
        ) from error
    with path.open("rb") as file:
        file.seek(after)
        ending = file.read(2 * _BLOCK)
    if len(ending) < _BLOCK or any(ending):
        last = members[-1].name if members else "its beginning"
        raise ValueError(
            f"shard {path} ends or is damaged after {last} (byte {after}), where a tar ends with zeros: "
            "truncated; write or download it again"
        )
    return members


def _refuse_hostile(item: tarfile.TarInfo, member: Member) -> None:
    name = PurePosixPath(item.name)
    if name.is_absolute() or ".." in name.parts or "\\" in item.name:
        raise ValueError(f"{member.name} in {member.path} leads outside the shard; do not use this file")
    if not item.isreg() or item.issparse():
        raise ValueError(
            f"{member.name} in {member.path} is no regular file but a link, device or sparse file"
        )


def stored_array(member: Member, *, file: BinaryIO) -> StoredArray:
    """The array that a .npy member holds; only its header is read.

    Args:
        member: a member of a tar.
        file: the open tar.

    Raises:
        ValueError: no .npy file, Python objects in it (which would run code when loaded), another order than
            C, or fewer bytes than its shape needs.
    """
    file.seek(member.offset)
    start = file.read(min(12, member.length))
    if start[:6] != b"\x93NUMPY" or len(start) < 12 or (start[6], start[7]) not in _VERSIONS:
        raise member.error("is no .npy file")
    wide = start[6] > 1
    length = int.from_bytes(start[8 : 12 if wide else 10], "little")
    begin = 12 if wide else 10
    if begin + length > member.length:
        raise member.error("its .npy header is cut off")
    file.seek(member.offset + begin)
    try:
        header = ast.literal_eval(str(file.read(length), "utf-8" if start[6] == 3 else "latin1"))
        dtype, shape, fortran = header["descr"], tuple(header["shape"]), bool(header["fortran_order"])
        dtype = np.dtype(dtype if isinstance(dtype, str) else "O")
        size = math.prod(int(side) for side in shape) * dtype.itemsize
    except (SyntaxError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise member.error(f"its .npy header is damaged ({error})") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise member.error(
            "holds Python objects, expected numbers; they are not loaded, as that can run code"
        )
    if fortran and len(shape) > 1:
        raise member.error("is stored in Fortran order, expected C order")
    if not shape or min(shape) < 0 or size > member.length - begin - length:
        raise member.error(f"has shape {shape} of {dtype}, more than its {member.length} bytes hold")
    return StoredArray(member, member.offset + begin + length, dtype, shape)
