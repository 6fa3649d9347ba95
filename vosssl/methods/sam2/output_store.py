"""What is known of objects in all frames of a video, in memory up to a limit; the rest waits in files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from vosssl.methods.sam2.object_memory import Output

MB = 2**20


class OutputStore:
    """Outputs of any number of tracks, those that were asked for last in memory.

    Args:
        limit_mb: megabytes of tensors that stay in memory; None: all. Beyond it, what was not asked for the
            longest goes to a temporary folder, unchanged, and comes back when it is asked for.
    """

    def __init__(self, limit_mb: float | None = None) -> None:
        self.limit_mb = limit_mb
        self._loaded: OrderedDict[tuple[int, int], Output] = OrderedDict()
        self._written: set[tuple[int, int]] = set()
        self._bytes = 0
        self._folder: TemporaryDirectory[str] | None = None
        self._numbers = count()

    @property
    def memory_mb(self) -> float:
        """Megabytes of tensors in memory."""
        return self._bytes / MB

    def outputs(self) -> Outputs:
        """A new mapping from frames to outputs, whose contents live here."""
        return Outputs(self, next(self._numbers))

    def put(self, key: tuple[int, int], output: Output) -> None:
        """Takes an output; one that was there under the same key is gone."""
        self.drop(key)
        self._hold(key, output)

    def get(self, key: tuple[int, int]) -> Output:
        """An output that was put here, from memory or from its file."""
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        output = Output(*torch.load(self._file(key), weights_only=True))
        self._hold(key, output)
        return output

    def drop(self, key: tuple[int, int]) -> None:
        """Forgets an output, if there is one."""
        output = self._loaded.pop(key, None)
        if output is not None:
            self._bytes -= _bytes(output)
        if key in self._written:
            self._written.remove(key)
            self._file(key).unlink()

    def _hold(self, key: tuple[int, int], output: Output) -> None:
        self._loaded[key] = output
        self._bytes += _bytes(output)
        while self.limit_mb is not None and self._bytes > self.limit_mb * MB and len(self._loaded) > 1:
            oldest, evicted = self._loaded.popitem(last=False)
            self._bytes -= _bytes(evicted)
            if oldest not in self._written:  # an output never changes once it is put
                torch.save(tuple(evicted), self._file(oldest))
                self._written.add(oldest)

    def _file(self, key: tuple[int, int]) -> Path:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="vosssl-sam2-")
        return Path(self._folder.name) / f"{key[0]}-{key[1]}.pt"


class Outputs(MutableMapping[int, Output]):
    """Outputs by frame, kept by a store; made by `OutputStore.outputs`."""

    def __init__(self, store: OutputStore, number: int) -> None:
        self._store = store
        self._number = number
        self._frames: dict[int, None] = {}

    def __getitem__(self, frame: int) -> Output:
        if frame not in self._frames:
            raise KeyError(frame)
        return self._store.get((self._number, frame))

    def __setitem__(self, frame: int, output: Output) -> None:
        self._frames[frame] = None
        self._store.put((self._number, frame), output)

    def __delitem__(self, frame: int) -> None:
        del self._frames[frame]
        self._store.drop((self._number, frame))

    def __contains__(self, frame: object) -> bool:
        return frame in self._frames

    def __iter__(self) -> Iterator[int]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)


def _bytes(output: Output) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in output if tensor is not None)
