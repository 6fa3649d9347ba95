"""One large file over several connections: in pieces, of which a journal says which are there."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from vosssl.data import web
from vosssl.data.files import atomic_write

PIECE = 16 << 20  # bytes; what a kill costs is at most one such piece per connection
READ = 1 << 18  # bytes read at once


class ChangedError(Exception):
    """The server has another version of the file than the one that was begun."""


class _StoppedError(Exception):
    """Another connection failed; what came is kept."""


class Pieces:
    """A partial file whose pieces come in any order.

    Args:
        url: http or https.
        part: the partial file; `NAME.pieces` beside it is the journal.
    """

    def __init__(self, url: str, part: Path) -> None:
        self._url, self._part = url, part
        self._journal = part.with_name(part.name + ".pieces")
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._done: set[int] = set()

    @property
    def started(self) -> bool:
        """Whether an earlier run left pieces."""
        return self._journal.exists()

    def discard(self) -> None:
        """Forgets the pieces, so that the file begins again."""
        if self.started:
            self._part.unlink(missing_ok=True)
            self._journal.unlink()

    def fetch(
        self,
        remote: web.Remote,
        *,
        connections: int,
        progress: Callable[[int], object] | None,
        persist: Callable[[Callable[[], None], Callable[[], int]], None],
    ) -> None:
        """Fills the partial file with every piece that is missing.

        Args:
            remote: what the server says of the file; its size is known.
            connections: at once.
            progress: called with bytes, from one thread at a time; may raise to stop.
            persist: repeats an action that needs a connection while its position moves on.

        Raises:
            ChangedError: the server has another version by now.
        """
        assert remote.total is not None
        count = -(-remote.total // PIECE)
        self._resume(remote, count)
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(count):
            if index not in self._done:
                waiting.put(index)

        def report(size: int) -> None:
            if self._stop.is_set():
                raise _StoppedError
            if progress is not None:
                with self._lock:
                    progress(size)

        report(sum(self._size(index, remote.total) for index in self._done))
        work = lambda: self._work(waiting, remote, report, persist)  # noqa: E731
        with ThreadPoolExecutor(connections) as pool:
            running = [pool.submit(work) for _ in range(min(connections, max(1, waiting.qsize())))]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                failed = any(future.done() and future.exception() for future in running)
                if failed or not all(future.done() for future in running):
                    self._stop.set()
        errors = [error for future in running if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, _StoppedError)):
            raise error  # the first that is a reason, not a consequence
        self._journal.unlink()

    def _resume(self, remote: web.Remote, count: int) -> None:
        """Takes up what the journal says, or begins."""
        facts = {"version": remote.version, "total": remote.total, "piece": PIECE}
        try:
            found = json.loads(self._journal.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if self._part.exists() and {key: found.get(key) for key in facts} == facts:
            self._done = {index for index in found["done"] if index < count}
        else:
            self._done = set()
            with open(self._part, "wb") as file:
                file.truncate(remote.total)
        self._facts = facts
        self._write_journal()

    def _write_journal(self) -> None:
        with atomic_write(self._journal, durable=False) as path:
            path.write_text(json.dumps({**self._facts, "done": sorted(self._done)}), encoding="utf-8")

    def _work(
        self,
        waiting: queue.SimpleQueue[int],
        remote: web.Remote,
        report: Callable[[int], None],
        persist: Callable[[Callable[[], None], Callable[[], int]], None],
    ) -> None:
        """One connection after the other, until no piece is missing."""
        with open(self._part, "r+b") as file:
            while not self._stop.is_set():
                try:
                    index = waiting.get_nowait()
                except queue.Empty:
                    return
                start, size = index * PIECE, self._size(index, remote.total or 0)
                file.seek(start)

                def load(end: int = start + size - 1) -> None:
                    self._load(file, end, remote, report)

                persist(load, file.tell)
                file.flush()
                os.fsync(file.fileno())  # the journal never promises more than the disk holds
                with self._lock:
                    self._done.add(index)
                    self._write_journal()

    def _load(self, file: BinaryIO, end: int, remote: web.Remote, report: Callable[[int], None]) -> None:
        """From where the file stands to byte `end`."""
        start = file.tell()
        with web.open_file(self._url, start=start, end=end, version=remote.version) as response:
            if response.status != 206:  # If-Range: the version is another one
                raise ChangedError
            answer = web.transfer(self._url, response.status, response.headers, start)
            if answer.total != remote.total:
                raise ChangedError
            while file.tell() <= end and (chunk := response.read1(min(READ, end + 1 - file.tell()))):
                file.write(chunk)
                report(len(chunk))
        if file.tell() <= end:
            raise HTTPException("the connection ended early")

    def _size(self, index: int, total: int) -> int:
        return min(PIECE, total - index * PIECE)
