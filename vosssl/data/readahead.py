"""Decoding ahead of the model and encoding behind it, each in a thread (codecs release Python's lock)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")


class _End:
    """Marks the end of the stream, with the error that ended it, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def read_ahead(items: Iterable[Item], *, depth: int = 2) -> Iterator[Item]:
    """Iterates in a thread, at most `depth` items ahead of the consumer.

    The thread ends when the items do, or soon after the returned generator is closed or dropped. An error
    raised by the items is raised again at the consumer, in order.

    Args:
        items: anything that can be iterated; it is iterated in the thread only.
        depth: items that may wait; memory is bounded by `depth + 2` items. 0 iterates here, without a thread.

    Yields:
        The items, in order.

    Raises:
        ValueError: negative depth.
    """
    if depth < 0:
        raise ValueError(f"read_ahead got depth {depth}, expected 0 (no thread) or more")
    if depth == 0:
        yield from items
        return
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, waiting, stop), daemon=True, name="read-ahead")
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stop.set()
        thread.join(timeout=5)  # seconds; a decoder that hangs must not hang the program


def _fill(items: Iterable[Item], waiting: queue.Queue[Item | _End], stop: threading.Event) -> None:
    """Puts the items into the queue until they end or the consumer has gone."""
    end = _End()
    try:
        for item in items:
            if not _put(item, waiting, stop):
                return
    except BaseException as error:  # handed on to the consumer, which raises it
        end = _End(error)
    finally:
        if stop.is_set() and hasattr(items, "close"):
            items.close()  # a generator that holds a file or a camera
    _put(end, waiting, stop)


def _put(item: Item | _End, waiting: queue.Queue[Item | _End], stop: threading.Event) -> bool:
    """Waits for room; False when the consumer has gone."""
    while not stop.is_set():
        try:
            waiting.put(item, timeout=0.1)  # seconds between looks at `stop`
            return True
        except queue.Full:
            continue
    return False


class WriteBehind:
    """Does jobs in a thread, in their order, while the caller goes on; at most `depth` wait.

    A job's error is raised at the next call or at the end. Leaving the context waits for the jobs; when it is
    left by an error, for those that were begun or wait already, so that nothing that was promised is lost.

    Args:
        depth: jobs that wait, 1 or more.
    """

    def __init__(self, depth: int = 3) -> None:
        if depth < 1:
            raise ValueError(f"WriteBehind got depth {depth}, expected 1 or more")
        self.depth = depth
        self._waiting: list[Future[Any]] = []

    def __enter__(self) -> WriteBehind:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        return self

    def __call__(self, job: Callable[..., object], *arguments: Any) -> None:
        """Does `job(*arguments)` later; waits when too many jobs do."""
        while len(self._waiting) >= self.depth or (self._waiting and self._waiting[0].done()):
            self._waiting.pop(0).result()
        self._waiting.append(self._thread.submit(job, *arguments))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        while self._waiting:
            job = self._waiting.pop(0)
            if error is None:
                job.result()
