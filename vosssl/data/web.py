"""One HTTP connection: opened safely, web pages told from files, Google Drive's questions answered."""

from __future__ import annotations

import html
import json
import re
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import Any, NamedTuple

TIMEOUT = 30  # seconds without any byte before a connection counts as lost
PAGE = 1 << 20  # bytes of a web page that are looked at
DRIVE = "https://drive.usercontent.google.com/download"  # where Google Drive serves files


class DownloadError(ValueError):
    """A file that could not be had; says why, and where to put it by hand."""


class RefusedError(Exception):
    """The server sent something else than the file: a log-in, an error page, a quota; says what."""


class Transfer(NamedTuple):
    """One server answer: how many bytes of the file come before it, the file's size, and its version."""

    start: int
    total: int | None
    version: str


class Remote(NamedTuple):
    """What a server says of a file: its size, its version, and whether parts of it can be asked for."""

    total: int | None
    version: str
    ranges: bool


def drive_url(file_id: str) -> str:
    """The address of a file on Google Drive that skips the question about virus scans."""
    query = urllib.parse.urlencode({"id": file_id, "export": "download", "confirm": "t"})
    return f"{DRIVE}?{query}"


def browser_url(url: str) -> str:
    """The address that a person opens for a URL that `open_file` takes."""
    if not url.startswith(DRIVE):
        return url
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    return f"https://drive.google.com/file/d/{query.get('id', ['?'])[0]}/view"


def open_file(
    url: str, *, start: int = 0, end: int | None = None, version: str = "", timeout: float = TIMEOUT
) -> HTTPResponse:
    """Asks for a file, or for the bytes `start` to `end` of it.

    Args:
        url: http or https.
        start: first byte wanted.
        end: last byte wanted; None: to the end of the file.
        version: what `transfer` said of the version that the bytes have to belong to; another one gives the
            whole file.
        timeout: seconds without any byte.

    Returns:
        The answer, not yet read. The caller closes it.

    Raises:
        RefusedError: a web page instead of the file, or a redirection that is not safe.
        OSError, HTTPException: as urllib raises them.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "vosssl", "Accept-Encoding": "identity"})
    if (start and version) or end is not None:
        request.add_header("Range", f"bytes={start}-{'' if end is None else end}")
        if version and not version.startswith("size "):
            request.add_header("If-Range", version)
    response = _open(request, url, timeout)
    if is_page(url, response.headers) and url.startswith(DRIVE):
        with response:
            page = response.read(PAGE).decode("utf-8", "replace")
        request.full_url = confirmed(page, response.geturl())
        response = _open(request, url, timeout)
        if is_page(url, response.headers):
            with response:
                raise RefusedError(drive_refusal(response.read(PAGE).decode("utf-8", "replace")))
    if is_page(url, response.headers):
        response.close()
        raise RefusedError("the server sent a web page instead of the file")
    return response


def _open(request: urllib.request.Request, url: str, timeout: float) -> HTTPResponse:
    response: HTTPResponse = _opener().open(request, timeout=timeout)
    scheme, final = (urllib.parse.urlsplit(address).scheme for address in (url, response.geturl()))
    if final not in ("http", "https") or (scheme == "https" and final == "http"):
        response.close()
        raise RefusedError(f"it leads to {response.geturl()}, which is not safe to load")
    return response


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


def is_page(url: str, headers: HTTPMessage) -> bool:
    """Whether an answer is a web page although the address does not name one."""
    return headers.get_content_type() == "text/html" and not urllib.parse.urlsplit(url).path.endswith("html")


def transfer(url: str, status: int, headers: HTTPMessage, have: int) -> Transfer:
    """What an answer's headers say; a server that ignores the range starts from the beginning.

    Raises:
        HTTPException: it sent another range than the one that was asked for.
    """
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    if version.startswith("W/"):  # a weak tag does not promise equal bytes
        version = ""
    total = _total(status, headers)
    if not version and total is not None and url.startswith(DRIVE):
        version = f"size {total}"  # Drive may name no version, and its files hardly ever change under one id
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range") or "")
    if status == 206 and match and int(match[1]) == have:
        return Transfer(have, total, version)
    if status == 206:
        raise HTTPException(f"the server sent {headers.get('Content-Range')!r} for bytes from {have}")
    return Transfer(0, total, version)


def _total(status: int, headers: HTTPMessage) -> int | None:
    match = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range") or "")
    if status == 206:
        return int(match[1]) if match else None
    length = headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def probe(url: str, *, timeout: float = TIMEOUT) -> Remote:
    """Asks for the first byte of a file, which tells its size and whether ranges work.

    Raises:
        RefusedError, OSError, HTTPException: as `open_file`.
    """
    with open_file(url, start=0, end=0, timeout=timeout) as response:
        answer = transfer(url, response.status, response.headers, 0)
        return Remote(answer.total, answer.version, response.status == 206 and bool(answer.version))


def read_json(url: str) -> Any:
    """The JSON that an address answers with.

    Raises:
        DownloadError: no answer, or no JSON.
    """
    try:
        with open_file(url) as response:
            return json.loads(response.read())
    except (OSError, HTTPException, RefusedError, ValueError) as error:
        raise DownloadError(f"cannot read the listing {url}: {error}") from None


def bucket_objects(listing: str) -> list[dict[str, Any]]:
    """All objects of a Google Cloud Storage listing, over as many pages as it has.

    Args:
        listing: `https://storage.googleapis.com/storage/v1/b/BUCKET/o?prefix=FOLDER/`.

    Returns:
        Its `items`: name, size (text), md5Hash (base64), mediaLink.

    Raises:
        DownloadError: no answer, or not such a listing, or an empty one.
    """
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = read_json(f"{listing}&{urllib.parse.urlencode({'pageToken': token})}" if token else listing)
        if not isinstance(page, dict) or not isinstance(page.get("items", []), list):
            raise DownloadError(f"{listing} is no listing of a bucket")
        found += page.get("items", [])
        token = str(page.get("nextPageToken") or "")
        if not token:
            break
    if not found:
        raise DownloadError(f"the listing {listing} is empty; its folder may have moved")
    return found


class _Form(HTMLParser):
    """The download form of Drive's page: its address and its hidden values."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.values: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form" and "download" in f"{found.get('id', '')} {found.get('action', '')}":
            self.action = found.get("action", "")
        elif tag == "input" and self.action and found.get("name"):
            self.values[found["name"]] = found.get("value", "")


def confirmed(page: str, page_url: str) -> str:
    """The address behind Drive's question whether to load a file that is too large to be scanned.

    Raises:
        RefusedError: the page asks no such question; says what it says.
    """
    form = _Form()
    form.feed(page)
    if not form.values.get("id"):
        raise RefusedError(drive_refusal(page))
    action = urllib.parse.urljoin(page_url, form.action)
    if urllib.parse.urlsplit(action).scheme != urllib.parse.urlsplit(page_url).scheme:
        raise RefusedError(f"its form leads to {action}, which is not safe to load")
    return f"{action}?{urllib.parse.urlencode(form.values)}"


def drive_refusal(page: str) -> str:
    """Why Drive does not give a file, from its page."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"(?is)<(script|style).*?</\1>", " ", page)))
    if re.search(r"quota|too many users", text, re.IGNORECASE):
        return (
            "Google Drive has sent this file too often today (its quota is exceeded); it may work tomorrow, "
            "or in a browser that is signed in to Google: open the address, add a shortcut to your Drive, "
            "make a copy of the file there and download the copy"
        )
    if re.search(r"sign in|request access|need access", text, re.IGNORECASE):
        return "Google Drive asks to sign in: the file is not public"
    return "Google Drive sent a web page instead of the file"
