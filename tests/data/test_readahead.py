"""Reading ahead changes when things happen, never what comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from vosssl.data.readahead import WriteBehind, read_ahead


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


def test_jobs_are_done_in_order_behind_the_caller() -> None:
    done: list[int] = []
    gate = threading.Event()

    def slow(number: int) -> None:
        gate.wait(5)
        done.append(number)

    with WriteBehind(depth=3) as behind:
        for number in range(3):
            behind(slow, number)
        assert done == []  # the caller was not held up
        gate.set()
        for number in range(3, 10):
            behind(slow, number)
    assert done == list(range(10))


def test_an_error_of_a_job_reaches_the_caller() -> None:
    def full() -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"), WriteBehind(depth=1) as behind:
        behind(full)
        behind(print)
    with pytest.raises(OSError, match="no space left"), WriteBehind() as behind:
        behind(full)


def test_jobs_that_wait_are_done_when_the_caller_fails() -> None:
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt), WriteBehind() as behind:
        for number in range(3):
            behind(done.append, number)
        raise KeyboardInterrupt
    assert done == [0, 1, 2]
