"""A web server on this machine with the habits of those that offer datasets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

QUOTA = "<html><title>Google Drive - Quota exceeded</title><p>Too many users have viewed this file</p></html>"
QUESTION = """<html><body><p>Google Drive can't scan this file for viruses.</p>
<form id="download-form" action="/drive" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="u-1">
</form></body></html>"""


class WebServer(ThreadingHTTPServer):
    """Serves `files`; what else it does is in its attributes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.cuts: list[int] = []  # bytes after which the next answers break off
        self.delay = 0.0  # seconds per piece of 64 KiB
        self.asked: list[tuple[str, str | None]] = []  # path and range of each question
        self.drive_quota = False

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # broken connections are what the tests are about

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(parts.path).lstrip("/"), urllib.parse.parse_qs(parts.query)
        self.server.asked.append((path, self.headers.get("Range")))
        if path == "drive":
            self.drive(query)
        elif path == "bucket":
            self.bucket(query)
        elif path in self.server.files:
            self.file(self.server.files[path])
        elif path.startswith("page"):
            self.answer(200, b"<html>Sign in</html>", {"Content-Type": "text/html"})
        else:
            self.send_error(404)

    def drive(self, query: dict[str, list[str]]) -> None:
        name = query["id"][0]
        if self.server.drive_quota:
            self.answer(200, QUOTA.encode(), {"Content-Type": "text/html; charset=utf-8"})
        elif "uuid" not in query:
            self.answer(200, QUESTION.format(id=name).encode(), {"Content-Type": "text/html"})
        else:
            self.file(self.server.files[name], tag="")

    def bucket(self, query: dict[str, list[str]]) -> None:
        names = sorted(name for name in self.server.files if name.startswith(query["prefix"][0]))
        first = int(query.get("pageToken", ["0"])[0])
        items = [
            {
                "name": name,
                "size": str(len(self.server.files[name])),
                "md5Hash": base64.b64encode(hashlib.md5(self.server.files[name]).digest()).decode(),
                "mediaLink": self.server.url(urllib.parse.quote(name)) + "?alt=media",
            }
            for name in names[first : first + 2]
        ]
        page = {"items": items, **({"nextPageToken": str(first + 2)} if first + 2 < len(names) else {})}
        self.answer(200, json.dumps(page).encode(), {"Content-Type": "application/json"})

    def file(self, body: bytes, *, tag: str = '"one"') -> None:
        headers = {"Content-Type": "application/octet-stream", **({"ETag": tag} if tag else {})}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if match is None or not self.server.ranges or self.headers.get("If-Range", tag) != tag:
            self.answer(200, body, headers)
            return
        start, end = int(match[1]), min(int(match[2] or len(body) - 1), len(body) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
        self.answer(206, body[start : end + 1], headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts and len(body) > 1 else len(body)
        for start in range(0, cut, 1 << 16):
            self.wfile.write(body[start : min(start + (1 << 16), cut)])
            time.sleep(self.server.delay)
        self.close_connection = True


@contextmanager
def serving() -> Iterator[WebServer]:
    """A running server."""
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
