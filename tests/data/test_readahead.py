"""Reading ahead changes when things happen, never what comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from vosssl.data.readahead import read_ahead


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_come_in_order(depth: int) -> None:
    assert list(read_ahead(range(20), depth=depth)) == list(range(20))
    assert list(read_ahead([], depth=depth)) == []


def test_the_thread_stays_within_its_depth() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    stream = read_ahead(items(), depth=2)
    for seen in range(5):
        assert next(stream) == seen
        time.sleep(0.02)
        assert len(made) <= seen + 1 + 2 + 1  # taken, waiting, in the thread's hand
    stream.close()  # type: ignore[attr-defined]


def test_an_error_arrives_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("frame 3 is truncated")

    seen = []
    with pytest.raises(ValueError, match="frame 3 is truncated"):
        for item in read_ahead(items()):
            seen.append(item)
    assert seen == [1, 2]
    assert not threads()


def test_leaving_early_closes_the_source() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    for _ in read_ahead(items(), depth=1):
        break
    assert closed.wait(timeout=5)
    for thread in threads():
        thread.join(timeout=5)
    assert not threads()


def test_a_negative_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0"):
        next(read_ahead([1], depth=-1))
