"""Files from the web into a local cache: resumed, verified, whole or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes read at once
TIMEOUT = 30  # seconds without any byte before a connection counts as lost
ATTEMPTS = 3  # connections in a row that bring nothing new before giving up
HASH_IN_NAME = re.compile(
    r"-([0-9a-f]{8,64})\.[A-Za-z0-9.]+$"
)  # as in model-08c60483.pth: start of its SHA-256


class DownloadError(ValueError):
    """A file that could not be had; says why, and where to put it by hand."""


class _Transfer(NamedTuple):
    """One server answer: how many bytes of the file come before it, the file's size, and its version."""

    start: int
    total: int | None
    version: str


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
            held.enter_context(_locked(target.with_name(f".{target.name}.lock")))
        if target.exists():  # before, or since another process let go of the lock
            _verify(target, sha256, md5, f"delete {target}, or put the right file there")
            return target
        part = target.with_name(target.name + ".part")
        logger.info("downloading %s to %s", url, target)
        _fetch(url, part, target)
        try:
            _verify(part, sha256, md5, f"not kept; try again, or get it elsewhere and save it as {target}")
        except DownloadError:
            part.unlink()
            raise
        finally:
            _version_file(part).unlink(missing_ok=True)
        os.replace(part, target)
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that the system releases when the process ends, however it ends."""
    with open(path, "a+b") as file:
        if sys.platform == "win32":
            while True:
                with contextlib.suppress(OSError):
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _verify(path: Path, sha256: str | None, md5: str | None, advice: str) -> None:
    """Raises a DownloadError when the file's checksum is another one."""
    for kind, expected in (("sha256", sha256), ("md5", md5)):
        if expected is None:
            continue
        if not re.fullmatch(r"[0-9a-fA-F]{8,}", expected):
            raise ValueError(f"{kind} is {expected!r}, expected at least 8 hexadecimal digits")
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, kind).hexdigest()
        if not actual.startswith(expected.lower()):
            raise DownloadError(
                f"{path.name.removesuffix('.part')} has {kind} {actual}, expected {expected}: "
                f"it is damaged or another file; {advice}"
            )


def _fetch(url: str, part: Path, target: Path) -> None:
    """Fills `part` with the file, over as many connections as bring it forward."""
    failures = 0
    while True:
        before = _size(part)
        try:
            if _fetch_once(url, part):
                return
            problem: Exception = HTTPException("the connection ended early")
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise DownloadError(
                    _by_hand(url, target, f"the server answered {error.code} {error.reason}")
                ) from None
            problem = error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            problem = error
        except _WebPageError:
            raise DownloadError(
                _by_hand(url, target, "the server sent a web page instead of the file")
            ) from None
        failures = 0 if _size(part) > before else failures + 1
        if failures >= ATTEMPTS:
            reason = getattr(problem, "reason", None) or problem
            raise DownloadError(_by_hand(url, target, f"no connection ({reason})")) from None
        logger.warning("download of %s interrupted at %d bytes (%s); going on", url, _size(part), problem)
        _pause(failures)


def _pause(failures: int) -> None:
    """Waits longer the more connections in a row brought nothing: 0, 0.5, 1.5 seconds."""
    time.sleep(0.5 * 2**failures - 0.5)


class _WebPageError(Exception):
    """The server sent HTML: a log-in, a confirmation, an error page."""


def _fetch_once(url: str, part: Path) -> bool:
    """Appends to `part` what one connection gives; True when the file is whole."""
    have = _size(part)
    version = _version_file(part).read_text() if have and _version_file(part).exists() else ""
    request = urllib.request.Request(url, headers={"User-Agent": "vosssl", "Accept-Encoding": "identity"})
    if have and version:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    try:
        response = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what we have: it was whole, or is of another version
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return True
            part.unlink()
            return False
        raise
    with response:
        _check_answer(url, response.geturl(), response.headers)
        transfer = _transfer(response.status, response.headers, have)
        _version_file(part).write_text(transfer.version)
        with open(part, "ab" if transfer.start else "wb") as file:
            _copy(response, file, transfer, part.name.removesuffix(".part"))
    return transfer.total is None or _size(part) == transfer.total


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https, through the proxies of the environment; urllib's default would also open ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _check_answer(url: str, final_url: str, headers: HTTPMessage) -> None:
    """Refuses redirections away from http(s) or from https to http, and web pages."""
    scheme, final = urllib.parse.urlsplit(url).scheme, urllib.parse.urlsplit(final_url).scheme
    if final not in ("http", "https") or (scheme == "https" and final == "http"):
        raise DownloadError(f"{url} leads to {final_url}, which is not safe to load; get the file by hand")
    if headers.get_content_type() == "text/html" and not urllib.parse.urlsplit(url).path.endswith("html"):
        raise _WebPageError


def _transfer(status: int, headers: HTTPMessage, have: int) -> _Transfer:
    """What the answer's headers say; a server that ignores the range starts from the beginning."""
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    if version.startswith("W/"):  # a weak tag does not promise equal bytes
        version = ""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range") or "")
    if status == 206 and match and int(match[1]) == have:
        return _Transfer(have, int(match[2]), version)
    if status == 206:
        raise HTTPException(f"the server sent {headers.get('Content-Range')!r} for bytes from {have}")
    length = headers.get("Content-Length")
    return _Transfer(0, int(length) if length else None, version)


def _copy(source: IO[bytes], file: IO[bytes], transfer: _Transfer, name: str) -> None:
    """Writes the answer's body, showing progress on a terminal."""
    with tqdm(
        total=transfer.total,
        initial=transfer.start,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc=name,
        disable=None,
    ) as progress:
        while chunk := source.read(CHUNK):
            file.write(chunk)
            progress.update(len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _version_file(part: Path) -> Path:
    """Beside a partial file: the server's name for its version, so that two versions are never joined."""
    return part.with_name(part.name + ".version")


def _by_hand(url: str, target: Path, reason: str) -> str:
    return f"cannot download {url}: {reason}. Get the file by other means and save it as {target}"
