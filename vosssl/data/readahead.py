"""Work done ahead in a thread: decoding overlaps with the model (the decoders release Python's lock)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
