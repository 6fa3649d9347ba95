"""Files from the web: resumed, verified, whole or not there at all; into a cache or to a given place."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from vosssl.data import web
from vosssl.data.ranges import ChangedError, Pieces
from vosssl.data.web import DownloadError, RefusedError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["DownloadError", "Wanted", "cache_folder", "cached_path", "download", "download_all", "locked"]

logger = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes read at once
ATTEMPTS = 3  # connections in a row that bring nothing new before giving up
RANGES_FROM = 64 << 20  # bytes; a smaller file gets one connection
HASH_IN_NAME = re.compile(
    r"-([0-9a-f]{8,64})\.[A-Za-z0-9.]+$"
)  # as in model-08c60483.pth: start of its SHA-256

T = TypeVar("T")
Progress = Callable[[int], object]  # called with bytes that came; less than 0 when some have to come again


@dataclass(frozen=True)
class Wanted:
    """One file for `download_all`.

    Attributes:
        url: http or https.
        target: the file to write.
        sha256: expected, in hex, at least its first 8 digits.
        md5: expected, in hex.
        bytes: expected size, where known.
    """

    url: str
    target: Path
    sha256: str | None = None
    md5: str | None = None
    bytes: int | None = None


class _StoppedError(Exception):
    """Another file failed or the user pressed Ctrl-C; what came is kept."""


def cache_folder() -> Path:
    """Where downloads are kept: `$VOSSSL_HOME`, or `.cache/vosssl` in the user's home."""
    home = os.environ.get("VOSSSL_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "vosssl"


def cached_path(url: str, *, cache_dir: str | Path | None = None) -> Path:
    """Where `download` keeps a URL's file: host and path, so that equal file names do not meet.

    Raises:
        ValueError: the URL is not http or https, or names no file.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"cannot download {url!r}: expected an http:// or https:// address")
    pieces = [urllib.parse.unquote(piece) for piece in parts.path.split("/")]
    pieces = [re.sub(r"[^\w.+=-]", "_", piece) for piece in pieces if piece not in ("", ".", "..")]
    if not pieces:
        raise ValueError(f"cannot download {url!r}: it names no file")
    if parts.query:  # two files may differ in nothing else
        pieces[-1] = f"{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}_{pieces[-1]}"
    folder = cache_folder() if cache_dir is None else Path(cache_dir).expanduser()
    return folder.joinpath(f"{parts.hostname}_{parts.port}" if parts.port else parts.hostname, *pieces)


def download(
    url: str, *, sha256: str | None = None, md5: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Brings a file into the cache, or finds it there.

    An interrupted download goes on where it stopped. Several processes may ask for one file at the same time:
    one loads it, the others wait. The file gets its name only when it is whole and its checksum is right.

    Args:
        url: http or https.
        sha256: expected SHA-256 in hex, or at least its first 8 digits. When neither checksum is given, the
            digits in a name such as `model-08c60483.pth` are taken for it.
        md5: expected MD5 in hex, for files whose authors give no SHA-256.
        cache_dir: folder instead of `cache_folder()`.

    Returns:
        Path of the file.

    Raises:
        DownloadError: offline, refused, not found, a web page instead of a file, or a wrong checksum; says
            where to put the file by hand.
        ValueError: not an http or https address.
    """
    target = cached_path(url, cache_dir=cache_dir)
    if sha256 is None and md5 is None and (named := HASH_IN_NAME.search(target.name)):
        sha256 = named[1]
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        if not target.exists():
            held.enter_context(locked(target.with_name(f".{target.name}.lock")))
        _bring(Wanted(url, target, sha256, md5))
    return target


def download_all(wanted: Sequence[Wanted], *, connections: int = 4, progress: Progress | None = None) -> None:
    """Brings files to their places, several at once; a large one over several connections.

    What is there already is verified and kept, also when a person put it there. The first failure and Ctrl-C
    stop all; what came is kept, and the same call goes on from there. Callers hold a lock (`locked`): two
    processes must not write one file.

    Args:
        wanted: the files.
        connections: most connections at once.
        progress: called with the bytes that came or were there, from one thread at a time.

    Raises:
        DownloadError: as `download`.
        ValueError: connections below 1.
    """
    if connections < 1:
        raise ValueError(f"connections is {connections}, expected at least 1")
    stop, lock = threading.Event(), threading.Lock()

    def report(count: int) -> None:
        if stop.is_set():
            raise _StoppedError
        if progress is not None:
            with lock:
                progress(count)

    at_once = max(1, min(connections, len(wanted)))
    each = max(1, connections // at_once)
    with ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(_bring, file, connections=each, progress=report) for file in wanted]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    for future in sorted(done, key=running.index):
        if not future.cancelled() and (error := future.exception()) and not isinstance(error, _StoppedError):
            raise error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file that the system releases when the process ends, however it ends; waits for it."""
    with open(path, "a+b") as file:
        if sys.platform == "win32":
            while True:
                with contextlib.suppress(OSError):
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("another process is downloading (%s); waiting for it", path)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bring(wanted: Wanted, *, connections: int = 1, progress: Progress | None = None) -> None:
    """Loads and verifies one file, or verifies the one that is there."""
    target = wanted.target
    if target.exists():
        _verify(target, wanted, f"delete {target}, or put the right file there")
        if progress is not None:
            progress(_size(target))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    level = logging.INFO if progress is None else logging.DEBUG  # one of many files is the caller's to tell
    logger.log(level, "downloading %s to %s", wanted.url, target)
    _fetch(wanted, part, connections, progress)
    try:
        _verify(part, wanted, f"not kept; try again, or get it elsewhere and save it as {target}")
    except DownloadError:
        part.unlink()
        raise
    finally:
        _version_file(part).unlink(missing_ok=True)
    os.replace(part, target)


def _verify(path: Path, wanted: Wanted, advice: str) -> None:
    """Raises a DownloadError when the file's size or checksum is another one."""
    name = path.name.removesuffix(".part")
    if wanted.bytes is not None and _size(path) != wanted.bytes:
        raise DownloadError(
            f"{name} has {_size(path)} bytes, expected {wanted.bytes}: it is damaged or another file; "
            f"{advice}"
        )
    for kind, expected in (("sha256", wanted.sha256), ("md5", wanted.md5)):
        if expected is None:
            continue
        if not re.fullmatch(r"[0-9a-fA-F]{8,}", expected):
            raise ValueError(f"{kind} is {expected!r}, expected at least 8 hexadecimal digits")
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, kind).hexdigest()
        if not actual.startswith(expected.lower()):
            raise DownloadError(
                f"{name} has {kind} {actual}, expected {expected}: it is damaged or another file; {advice}"
            )


def _fetch(wanted: Wanted, part: Path, connections: int, progress: Progress | None) -> None:
    """Fills `part` with the file, over several connections where the server can."""
    pieces = Pieces(wanted.url, part)
    if pieces.started or (
        connections > 1 and not part.exists() and (wanted.bytes is None or wanted.bytes >= RANGES_FROM)
    ):
        remote = _persist(wanted, lambda: web.probe(wanted.url), lambda: 0)
        if remote.ranges and remote.total is not None and remote.total >= RANGES_FROM:

            def persist(action: Callable[[], None], position: Callable[[], int]) -> None:
                _persist(wanted, action, position)

            with contextlib.suppress(ChangedError):  # then from the beginning, over one connection
                pieces.fetch(remote, connections=connections, progress=progress, persist=persist)
                return
        pieces.discard()
    name = part.name.removesuffix(".part")
    with tqdm(
        unit="B", unit_scale=True, unit_divisor=1024, desc=name, disable=True if progress else None
    ) as bar:
        meter = _Meter(progress or bar.update, bar)
        while not _persist(wanted, lambda: _fetch_once(wanted.url, part, meter), lambda: _size(part)):
            pass


class _Meter:
    """Turns positions in a file into differences, also backwards when the file starts again."""

    def __init__(self, progress: Progress, bar: tqdm) -> None:
        self._progress, self._bar, self._at = progress, bar, 0

    def at(self, position: int, *, total: int | None = None) -> None:
        self._bar.total = total
        self._progress(position - self._at)
        self._at = position


def _persist(wanted: Wanted, action: Callable[[], T], position: Callable[[], int]) -> T:
    """Repeats what needs a connection for as long as it moves on."""
    failures = 0
    while True:
        before = position()
        try:
            return action()
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise DownloadError(
                    _by_hand(wanted, f"the server answered {error.code} {error.reason}")
                ) from None
            problem: Exception = error
        except RefusedError as error:
            raise DownloadError(_by_hand(wanted, str(error))) from None
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            problem = error
        failures = 0 if position() > before else failures + 1
        if failures >= ATTEMPTS:
            reason = getattr(problem, "reason", None) or problem
            raise DownloadError(_by_hand(wanted, f"no connection ({reason})")) from None
        logger.info("download of %s interrupted (%s); going on", wanted.url, problem)
        _pause(failures)


def _pause(failures: int) -> None:
    """Waits longer the more connections in a row brought nothing: 0, 0.5, 1.5 seconds."""
    time.sleep(0.5 * 2**failures - 0.5)


def _fetch_once(url: str, part: Path, meter: _Meter) -> bool:
    """Appends to `part` what one connection gives; True when the file is whole."""
    have = _size(part)
    version = _version_file(part).read_text() if have and _version_file(part).exists() else ""
    try:
        response = web.open_file(url, start=have if version else 0, version=version)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what we have: it was whole, or is of another version
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return True
            part.unlink()
            return False
        raise
    with response:
        answer = web.transfer(url, response.status, response.headers, have)
        if version.startswith("size ") and answer.start and answer.version != version:
            part.unlink()  # the size is all that tells one version from another
            return False
        _version_file(part).write_text(answer.version)
        meter.at(answer.start, total=answer.total)
        with open(part, "ab" if answer.start else "wb") as file:
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                meter.at(file.tell(), total=answer.total)
    if answer.total is not None and _size(part) != answer.total:
        raise HTTPException("the connection ended early")
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _version_file(part: Path) -> Path:
    """Beside a partial file: the server's name for its version, so that two versions are never joined."""
    return part.with_name(part.name + ".version")


def _by_hand(wanted: Wanted, reason: str) -> str:
    address = web.browser_url(wanted.url)
    return f"cannot download {address}: {reason}. Get the file by other means and save it as {wanted.target}"
