"""The annotation page on 127.0.0.1, by the standard library; who does not know the token gets nothing.

Refused are: another Host than this machine's own names (a foreign page that lets its name point here), a path
without the token, a POST from another origin, a body that is too long, before it is read. No path names a
file: pages, pictures and the four exports are all there is.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vosssl.annotation.desk import USER_ERRORS, Desk
from vosssl.annotation.project import FORMATS

log = logging.getLogger(__name__)
ADDRESS = "127.0.0.1"
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
LARGEST_REQUEST = 1 << 20  # bytes of an action
PART = 1 << 20  # bytes of an upload that are in memory at once
LINGER, LINGER_PARTS = 1.0, 64  # seconds without a byte, and parts, before a refused line is cut
PATIENCE = 60  # seconds without a byte until a connection is given up


class AnnotationServer(ThreadingHTTPServer):
    """Serves one desk.

    Args:
        desk: what it serves.
        port: 0: any that is free.
        largest_upload: bytes of a video that is sent.
        token: part of the address; None: a new random one.
    """

    daemon_threads = True

    def __init__(
        self, desk: Desk, *, port: int = 0, largest_upload: int = 512 << 20, token: str | None = None
    ) -> None:
        self.desk = desk
        self.largest_upload = largest_upload
        self.token = token or secrets.token_urlsafe(24)
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        return f"http://{ADDRESS}:{self.server_address[1]}/{self.token}/"


class RefusedError(Exception):
    """A request that gets no answer but this."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: AnnotationServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vosssl", ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        """Pages, pictures, states, exports."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Actions and uploads."""
        self._answer(self._post)

    def _answer(self, respond: Any) -> None:
        try:
            respond(self._place())
        except RefusedError as error:
            self._refuse(error.status, str(error))
        except USER_ERRORS as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error) or type(error).__name__)
        except Exception as error:
            log.exception("a request failed")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"not foreseen: {type(error).__name__}: {error}")

    def _place(self) -> str:
        """The path behind the token.

        Raises:
            RefusedError: a foreign Host, or another token.
        """
        host = self.headers.get("Host", "")
        if len(self.headers.get_all("Host", [])) != 1 or re.sub(r":\d{1,5}$", "", host) not in OWN_NAMES:
            raise RefusedError(HTTPStatus.FORBIDDEN, "only 127.0.0.1 and localhost are served")
        token, _, place = urlsplit(self.path).path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise RefusedError(HTTPStatus.FORBIDDEN, "the token is missing or wrong")
        return place

    def _get(self, place: str) -> None:
        desk = self.server.desk
        if place == "":
            self._send_page()
        elif place == "state":
            self._send_json(desk.state())
        elif place == "timeline":
            self._send_json(desk.timeline())
        elif found := re.fullmatch(r"frame/(\d{1,7})\.jpg", place):
            self._send(desk.frame_jpeg(int(found[1])), "image/jpeg")
        elif found := re.fullmatch(r"masks/(\d{1,7})\.png", place):
            self._send(desk.masks_png(int(found[1])), "image/png")
        elif found := re.fullmatch(r"second/(\d{1,7})\.png", place):
            self._send(desk.second_png(int(found[1])), "image/png")
        elif found := re.fullmatch(r"download/(\w{1,10})", place):
            self._send_export(found[1])
        else:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self, place: str) -> None:
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise RefusedError(HTTPStatus.FORBIDDEN, "only the page itself may ask for that")
        if place == "upload":
            name = parse_qs(urlsplit(self.path).query).get("name", ["video"])[0]
            length = self._length(self.server.largest_upload)
            self._send_json(self.server.desk.upload(name, self._parts(length)))
            return
        found = re.fullmatch(r"do/(\w{1,20})", place)
        if found is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
        try:
            said = json.loads(self.rfile.read(self._length(LARGEST_REQUEST)) or b"{}")
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error
        if not isinstance(said, dict):
            raise ValueError("expected a JSON object")
        self._send_json(self.server.desk.act(found[1], said))

    def _length(self, most: int) -> int:
        """Bytes of the body; nothing of it was read yet.

        Raises:
            RefusedError: too long, or it does not say how long.
        """
        text = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch(r"\d{1,18}", text):
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "expected a body that says how long it is")
        if int(text) > most:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{int(text) / 1e6:.0f} MB are more than the {most / 1e6:.0f} MB that are taken; "
                "give the path of the file as annotate.source instead, or raise annotate.largest_upload_mb",
            )
        return int(text)

    def _parts(self, length: int) -> Iterator[bytes]:
        while length > 0:
            part = self.rfile.read(min(PART, length))
            if not part:
                raise ValueError("the upload broke off")
            length -= len(part)
            yield part

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        text = resources.files("vosssl.annotation").joinpath("page.html").read_text(encoding="utf-8")
        policy = (
            f"default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src 'nonce-{nonce}'; "
            f"style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        page = text.replace("{{nonce}}", nonce).encode()
        self._send(page, "text/html; charset=utf-8", more={"Content-Security-Policy": policy})

    def _send_export(self, kind: str) -> None:
        """An export, newly written; folders as a zip."""
        desk = self.server.desk
        if kind not in FORMATS:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such export")
        with tempfile.TemporaryDirectory(prefix="vosssl-") as temporary:
            path = Path(desk.act("export", {"format": kind})["result"])
            with desk.lock:
                if path.is_dir():
                    path = Path(shutil.make_archive(f"{temporary}/{kind}", "zip", path))
                handle = path.open("rb")
            with handle:
                size = path.stat().st_size
                attached = f'attachment; filename="{path.name}"'
                self._begin(
                    HTTPStatus.OK, "application/octet-stream", size, {"Content-Disposition": attached}
                )
                shutil.copyfileobj(handle, self.wfile, PART)

    def _send_json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, body: bytes, kind: str, *, more: dict[str, str] | None = None) -> None:
        self._begin(HTTPStatus.OK, kind, len(body), more or {})
        self.wfile.write(body)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Says no, and ends the connection. What is under way is thrown away for a moment: a client that
        finds the line cut while it sends never reads the answer."""
        self.close_connection = True
        body = json.dumps({"error": why}).encode()
        try:
            self._begin(status, "application/json", len(body), {"Connection": "close"})
            self.wfile.write(body)
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LINGER)
            for _ in range(LINGER_PARTS):
                if not self.rfile.read1(PART):
                    break
        except OSError as error:
            log.debug("nobody waits for the refusal: %s", error)

    def _begin(self, status: HTTPStatus, kind: str, length: int, more: dict[str, str]) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",  # the address holds the token
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for key, value in {**headers, **more}.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests go to the log without the token."""
        log.debug("%s", (format % args).replace(self.server.token, "…"))
