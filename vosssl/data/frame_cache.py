"""Decoded frames kept in memory within a budget, the least recently used first to go."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from vosssl.clip import Frame


class CacheCounts(NamedTuple):
    """What a cache has done so far.

    Attributes:
        hits: frames that were found.
        misses: frames that were not.
        frames: frames held now.
        bytes: their size.
        peak_bytes: the largest size so far, never above the budget.
    """

    hits: int
    misses: int
    frames: int
    bytes: int
    peak_bytes: int


class FrameCache:
    """Frames and their labels by key; safe to use from several threads.

    Frames are handed out as they are held: whoever gets one must not write into it.

    Args:
        budget: bytes of pixels and labels, never exceeded.

    Raises:
        ValueError: a negative budget.
    """

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise ValueError(f"frame_cache is {budget} bytes, expected 0 (off) or more")
        self.budget = budget
        self._frames: OrderedDict[Hashable, Frame] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = self._peak = self._hits = self._misses = 0

    def get(self, key: Hashable) -> Frame | None:
        """The frame of a key, or None."""
        with self._lock:
            frame = self._frames.get(key)
            if frame is None:
                self._misses += 1
                return None
            self._hits += 1
            self._frames.move_to_end(key)
            return frame

    def put(self, key: Hashable, frame: Frame) -> None:
        """Keeps a frame, unless it alone exceeds the budget; the least recently used ones make room."""
        size = frame_bytes(frame)
        with self._lock:
            known = self._frames.pop(key, None)
            if known is not None:
                self._bytes -= frame_bytes(known)
            if size > self.budget:
                return
            self._shrink(self.budget - size)
            self._frames[key] = frame
            self._bytes += size
            self._peak = max(self._peak, self._bytes)

    def _shrink(self, limit: int) -> None:
        while self._bytes > limit:
            _, oldest = self._frames.popitem(last=False)
            self._bytes -= frame_bytes(oldest)

    def clear(self) -> None:
        """Lets go of everything; counters start anew."""
        with self._lock:
            self._frames.clear()
            self._bytes = self._peak = self._hits = self._misses = 0

    def resize(self, budget: int) -> None:
        """Changes the budget; what no longer fits goes."""
        if budget < 0:
            raise ValueError(f"frame_cache is {budget} bytes, expected 0 (off) or more")
        with self._lock:
            self.budget = budget
            self._shrink(budget)

    @property
    def counts(self) -> CacheCounts:
        """What it has done so far."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, len(self._frames), self._bytes, self._peak)


def frame_bytes(frame: Frame) -> int:
    """Bytes of memory that a frame keeps alive: of the whole storage, where it is a part of one."""
    labels = 0 if frame.labels is None else frame.labels.untyped_storage().nbytes()
    return frame.image.untyped_storage().nbytes() + labels


_SHARED = FrameCache(0)


def shared_frame_cache(budget: int = 0) -> FrameCache:
    """The one cache of this process, for all videos; its budget is the largest that was asked for.

    Every worker process of a loader has its own, so that `workers` of them hold up to `workers * budget`
    bytes together; with `workers=0` there is one.
    """
    if budget > _SHARED.budget:
        _SHARED.resize(budget)
    return _SHARED
