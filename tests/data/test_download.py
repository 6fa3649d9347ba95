"""Downloads against a server on this machine that fails in every way servers fail."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fill import vit_filled
from vosssl.backbones.known_weights import KNOWN_WEIGHTS, WeightFile
from vosssl.backbones.vit import dino
from vosssl.backbones.weights import load_weights
from vosssl.data import download as download_module
from vosssl.data.download import DownloadError, cached_path, download

BODY = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY; `cuts` are the byte counts after which the next answers break off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.tag = '"one"'
        self.body = BODY
        self.ranges: list[str | None] = []
        self.delay = 0.0

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # broken connections are what the tests are about

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if "missing" in self.path:
            self.send_error(404)
        elif "page" in self.path:
            self.answer(200, b"<html>Sign in</html>", {"Content-Type": "text/html; charset=utf-8"})
        elif "away" in self.path:
            self.answer(302, b"", {"Location": "ftp://127.0.0.1/x.pth"})
        else:
            self.file()

    def file(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        time.sleep(self.server.delay)
        start = 0
        headers = {"Content-Type": "application/octet-stream"}
        if self.server.tag:
            headers["ETag"] = self.server.tag
        if wanted and self.headers.get("If-Range") == self.server.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(self.server.body) - 1}/{len(self.server.body)}"
        self.answer(206 if start else 200, self.server.body[start:], headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[:cut])
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOSSSL_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "_pause", lambda failures: None)
    return tmp_path


def leftovers(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if not file.name.startswith("."))


def test_a_file_is_loaded_once_and_then_found(server: Server, cache: Path) -> None:
    path = download(server.url("folder/model.pth"), sha256=SHA256)
    assert path.read_bytes() == BODY
    assert path == cached_path(server.url("folder/model.pth")) and cache in path.parents
    assert download(server.url("folder/model.pth"), sha256=SHA256[:8].upper()) == path
    assert server.ranges == [None]
    assert leftovers(path) == ["model.pth"]


def test_a_cut_connection_is_resumed_where_it_broke(server: Server) -> None:
    server.cuts = [1_000_000, 500_000]
    path = download(server.url("model.pth"), sha256=SHA256)
    assert path.read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_download_given_up_goes_on_in_the_next_call(server: Server) -> None:
    server.cuts = [1_000_000] + [0] * download_module.ATTEMPTS
    with pytest.raises(DownloadError, match=r"no connection .*Get the file by other means and save it as"):
        download(server.url("model.pth"))
    target = cached_path(server.url("model.pth"))
    assert not target.exists() and target.with_name("model.pth.part").stat().st_size == 1_000_000
    server.ranges.clear()
    assert download(server.url("model.pth")).read_bytes() == BODY
    assert server.ranges == ["bytes=1000000-"]


@pytest.mark.parametrize("tag", ['"two"', ""])
def test_parts_of_two_versions_are_never_joined(server: Server, tag: str) -> None:
    server.cuts = [1_000_000] + [0] * download_module.ATTEMPTS
    with pytest.raises(DownloadError):
        download(server.url("model.pth"))
    server.tag, server.body = tag, BODY[::-1]
    assert download(server.url("model.pth")).read_bytes() == BODY[::-1]


def test_a_server_that_cannot_resume_starts_again(server: Server) -> None:
    server.tag = ""
    server.cuts = [1_000_000]
    assert download(server.url("model.pth"), sha256=SHA256).read_bytes() == BODY


@pytest.mark.parametrize(
    ("name", "checksums"),
    [
        ("model.pth", {"sha256": "0" * 64}),
        ("model.pth", {"md5": "0" * 32}),
        ("model-00000000.pth", {}),
    ],
)
def test_a_file_with_a_wrong_checksum_is_not_kept(
    server: Server, name: str, checksums: dict[str, str]
) -> None:
    with pytest.raises(DownloadError, match=r"has (sha256|md5) [0-9a-f]+, expected 0+: .*not kept"):
        download(server.url(name), **checksums)
    assert leftovers(cached_path(server.url(name))) == []


def test_digits_in_the_name_are_the_checksum(server: Server) -> None:
    assert download(server.url(f"model-{SHA256[:8]}.pth")).exists()
    assert download(server.url("other.pth"), md5=hashlib.md5(BODY).hexdigest()).exists()


def test_a_damaged_file_in_the_cache_is_reported_not_used(server: Server) -> None:
    path = download(server.url("model.pth"), sha256=SHA256)
    path.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match=f"delete {re.escape(str(path))}, or put the right file there"):
        download(server.url("model.pth"), sha256=SHA256)


def test_a_missing_file_is_reported_at_once(server: Server) -> None:
    with pytest.raises(DownloadError, match="the server answered 404"):
        download(server.url("missing.pth"))
    assert leftovers(cached_path(server.url("missing.pth"))) == []


def test_a_web_page_is_not_taken_for_weights(server: Server) -> None:
    with pytest.raises(DownloadError, match="a web page instead of the file"):
        download(server.url("page.pth"))
    assert leftovers(cached_path(server.url("page.pth"))) == []


def test_offline_the_error_says_where_to_put_the_file_and_there_it_is_found(server: Server) -> None:
    url = server.url("model.pth")
    server.server_close()
    with pytest.raises(DownloadError, match="no connection") as caught:
        download(url)
    path = cached_path(url)
    assert f"save it as {path}" in str(caught.value)
    path.write_bytes(b"put there by hand")
    assert download(url) == path


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x.pth", "model.pth", "https://host"])
def test_only_web_addresses_of_files_are_loaded(url: str) -> None:
    with pytest.raises(ValueError, match="cannot download"):
        download(url)


def test_a_redirection_to_another_protocol_is_not_followed(server: Server) -> None:
    with pytest.raises(DownloadError):
        download(server.url("away.pth"))


def test_no_address_leaves_the_cache_folder(cache: Path) -> None:
    assert cached_path("https://host/../../%2e%2e/a%2Fb/x.pth").relative_to(cache).parts[-1] == "x.pth"
    assert cached_path("https://h/uc?id=1") != cached_path("https://h/uc?id=2")


def test_a_known_name_is_downloaded_and_loaded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    network = dino(patch_size=16, width=16, heads=1, depth=1)
    buffer = io.BytesIO()
    torch.save(vit_filled(network.state_dict()), buffer)
    server.body = buffer.getvalue()
    digits = hashlib.sha256(server.body).hexdigest()
    monkeypatch.setitem(KNOWN_WEIGHTS, "tiny", WeightFile(server.url("tiny.pth"), "none", sha256=digits))
    load_weights(network, "tiny")
    assert torch.equal(network.norm.bias, vit_filled(network.state_dict())["norm.bias"])  # type: ignore[union-attr]
    load_weights(network, server.url("tiny.pth"))
    assert len(server.ranges) == 1


def test_processes_that_ask_at_the_same_time_load_once(server: Server) -> None:
    server.delay = 0.1
    ask: Callable[[int], Path] = lambda _: download(server.url("model.pth"), sha256=SHA256)  # noqa: E731
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(ask, range(4)))
    assert len(set(paths)) == 1 and paths[0].read_bytes() == BODY
    assert server.ranges == [None]
