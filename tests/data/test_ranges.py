"""Many files at once, large files over several connections, and Google Drive's pages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.data.web_server import QUOTA, WebServer, serving
from vosssl.data import download as download_module
from vosssl.data import ranges, web
from vosssl.data.download import DownloadError, Wanted, download_all

BODY = np.random.default_rng(0).bytes(2_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "_pause", lambda failures: None)
    monkeypatch.setattr(download_module, "RANGES_FROM", 1_000_000)
    monkeypatch.setattr(ranges, "PIECE", 300_000)
    with serving() as running:
        running.files["big.zip"] = BODY
        monkeypatch.setattr(web, "DRIVE", running.url("drive"))
        yield running


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_large_file_comes_in_pieces_over_several_connections(server: WebServer, tmp_path: Path) -> None:
    seen: list[int] = []
    wanted = Wanted(server.url("big.zip"), tmp_path / "big.zip", sha256=SHA256)
    download_all([wanted], connections=3, progress=seen.append)
    assert (tmp_path / "big.zip").read_bytes() == BODY
    assert sum(seen) == len(BODY)
    assert {asked for _, asked in server.asked} >= {"bytes=0-299999", "bytes=1800000-1999999"}
    assert names(tmp_path) == ["big.zip"]


def test_pieces_that_break_off_go_on_where_they_stopped(server: WebServer, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000, 0]
    download_all([Wanted(server.url("big.zip"), tmp_path / "a", sha256=SHA256)], connections=2)
    assert (tmp_path / "a").read_bytes() == BODY
    assert sum(asked.endswith("-299999") for _, asked in server.asked if asked) >= 2


def test_pieces_of_an_earlier_run_are_not_loaded_again(server: WebServer, tmp_path: Path) -> None:
    server.cuts = [300_000, 300_000] + [0] * 20
    with pytest.raises(DownloadError, match="no connection"):
        download_all([Wanted(server.url("big.zip"), tmp_path / "a")], connections=2)
    done = json.loads((tmp_path / "a.part.pieces").read_text())["done"]
    assert len(done) == 2
    server.asked.clear()
    server.cuts.clear()
    download_all([Wanted(server.url("big.zip"), tmp_path / "a", sha256=SHA256)], connections=2)
    assert len([asked for _, asked in server.asked if asked != "bytes=0-0"]) == 5


def test_another_version_in_between_starts_again(server: WebServer, tmp_path: Path) -> None:
    server.cuts = [300_000] + [0] * 20
    with pytest.raises(DownloadError):
        download_all([Wanted(server.url("big.zip"), tmp_path / "a")], connections=2)
    state = json.loads((tmp_path / "a.part.pieces").read_text())
    (tmp_path / "a.part.pieces").write_text(json.dumps({**state, "version": '"old"'}))
    (tmp_path / "a.part").write_bytes(bytes(len(BODY)))
    server.cuts.clear()
    download_all([Wanted(server.url("big.zip"), tmp_path / "a", sha256=SHA256)], connections=2)


def test_a_server_without_ranges_gives_the_file_over_one_connection(
    server: WebServer, tmp_path: Path
) -> None:
    server.ranges = False
    server.cuts = [0, 700_000]
    download_all([Wanted(server.url("big.zip"), tmp_path / "a", sha256=SHA256)], connections=4)
    assert (tmp_path / "a").read_bytes() == BODY


def test_many_files_come_at_once_and_what_is_there_is_kept(server: WebServer, tmp_path: Path) -> None:
    server.files |= {f"{index}.bin": bytes([index]) * 1000 for index in range(20)}
    (tmp_path / "3.bin").write_bytes(b"\3" * 1000)  # put there by hand
    wanted = [
        Wanted(server.url(f"{index}.bin"), tmp_path / f"{index}.bin", bytes=1000) for index in range(20)
    ]
    download_all(wanted, connections=4)
    assert all((tmp_path / f"{index}.bin").read_bytes() == bytes([index]) * 1000 for index in range(20))
    assert "3.bin" not in [path for path, _ in server.asked]


def test_the_first_failure_stops_the_others_and_is_the_one_told(server: WebServer, tmp_path: Path) -> None:
    server.delay = 0.05
    wanted = [Wanted(server.url(name), tmp_path / name, bytes=len(BODY)) for name in ("big.zip", "gone.zip")]
    with pytest.raises(DownloadError, match=r"gone\.zip: the server answered 404.*save it as"):
        download_all(wanted, connections=2)
    assert not (tmp_path / "big.zip").exists()
    server.delay = 0
    download_all(wanted[:1], connections=2)
    assert (tmp_path / "big.zip").read_bytes() == BODY


def test_a_file_of_another_size_is_refused(server: WebServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="has 2000000 bytes, expected 5: it is damaged or another file"):
        download_all([Wanted(server.url("big.zip"), tmp_path / "a", bytes=5)])
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="connections is 0"):
        download_all([], connections=0)


def test_ctrl_c_keeps_what_came(server: WebServer, tmp_path: Path) -> None:
    came = []

    def interrupt(count: int) -> None:
        came.append(count)
        if sum(came) > 900_000:
            raise KeyboardInterrupt

    wanted = Wanted(server.url("big.zip"), tmp_path / "a", sha256=SHA256)
    with pytest.raises(KeyboardInterrupt):
        download_all([wanted], connections=2, progress=interrupt)
    assert not (tmp_path / "a").exists() and json.loads((tmp_path / "a.part.pieces").read_text())["done"]
    download_all([wanted], connections=2)
    assert (tmp_path / "a").read_bytes() == BODY


def test_the_question_of_google_drive_is_answered_and_its_files_resume(
    server: WebServer, tmp_path: Path
) -> None:
    server.files["file-id"] = BODY
    server.cuts = [10**9, 700_000]  # the page with the question, then the file
    wanted = Wanted(web.drive_url("file-id"), tmp_path / "a.zip", sha256=SHA256)
    download_all([wanted], connections=1)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert ("drive", "bytes=700000-") in server.asked


def test_an_exceeded_quota_says_what_to_do(server: WebServer, tmp_path: Path) -> None:
    server.files["file-id"], server.drive_quota = BODY, True
    with pytest.raises(
        DownloadError,
        match=r"drive\.google\.com/file/d/file-id/view: .*quota is exceeded.*save it as .*a\.zip",
    ):
        download_all([Wanted(web.drive_url("file-id"), tmp_path / "a.zip")], connections=1)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (QUOTA, "quota is exceeded"),
        ("<html>You need access. Request access</html>", "asks to sign in"),
        ("<html><script>quota</script>Hello</html>", "a web page instead of the file"),
    ],
)
def test_what_a_page_of_google_drive_says_is_understood(page: str, reason: str) -> None:
    with pytest.raises(web.RefusedError, match=reason):
        web.confirmed(page, "https://drive.usercontent.google.com/download?id=1")


def test_a_form_may_not_lead_away_from_https() -> None:
    page = '<form id="download-form" action="http://elsewhere/x"><input name="id" value="1"></form>'
    with pytest.raises(web.RefusedError, match="not safe"):
        web.confirmed(page, "https://drive.usercontent.google.com/download?id=1")


def test_a_bucket_is_listed_over_its_pages(server: WebServer) -> None:
    server.files |= {f"movi/a-{index}": bytes(index) for index in range(5)}
    listing = server.url("bucket?prefix=movi/")
    assert [item["name"] for item in web.bucket_objects(listing)] == [f"movi/a-{i}" for i in range(5)]
    with pytest.raises(DownloadError, match="is empty"):
        web.bucket_objects(server.url("bucket?prefix=nothing/"))
    with pytest.raises(DownloadError, match="cannot read the listing"):
        web.bucket_objects(server.url("gone?prefix=x"))
