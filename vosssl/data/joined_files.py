"""The pieces of one file, such as `a.tgz.part1` and `a.tgz.part2`, read as if they were joined."""

from __future__ import annotations

import errno
import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path


class JoinedFiles(io.BufferedReader):
    """A readable, seekable file over several; joining them on disk would take their space twice."""

    def __init__(self, pieces: Sequence[Path]) -> None:
        super().__init__(_Joined(pieces), buffer_size=1 << 17)


class _Joined(io.RawIOBase):
    def __init__(self, pieces: Sequence[Path]) -> None:
        super().__init__()
        self._pieces = list(pieces)
        self._ends = list(accumulate(path.stat().st_size for path in self._pieces))
        self._at = 0
        self._open: tuple[int, io.FileIO] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._ends[-1]}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, f"cannot seek to {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        index = bisect_right(self._ends, self._at)
        if index == len(self._pieces):
            return 0
        if self._open is None or self._open[0] != index:
            self._close_piece()
            self._open = (index, io.FileIO(self._pieces[index]))
        file = self._open[1]
        file.seek(self._at - (self._ends[index - 1] if index else 0))
        view = memoryview(buffer)[: self._ends[index] - self._at]
        count = file.readinto(view) or 0
        self._at += count
        return count

    def _close_piece(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        self._close_piece()
        super().close()
