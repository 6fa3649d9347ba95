"""The annotation server: who is let in, what it refuses, and that it goes on serving."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.propagation.clickable import ColourNetwork, ColourSegmenter, squares
from vosssl.annotation.desk import Desk
from vosssl.annotation.project import Annotation
from vosssl.annotation.server import AnnotationServer
from vosssl.data.video import open_video
from vosssl.data.video_io import VideoWriter
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.image_prompting import ImagePrompter


def annotation(folder: Path, source: Path | None = None) -> Annotation:
    video = squares() if source is None else open_video(source, annotations=None)
    prompter = ImagePrompter(ColourNetwork())
    work = ClickAndTrack(video, ColourSegmenter(), prompter=prompter, folder=folder / video.name)
    return Annotation(work, second=ColourSegmenter)


class Client:
    """Asks as the page does, unless told otherwise."""

    def __init__(self, server: AnnotationServer) -> None:
        self.port, self.token = server.server_address[1], server.token
        self.own = {"Host": f"127.0.0.1:{self.port}", "Origin": f"http://127.0.0.1:{self.port}"}

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            given = {**self.own, "Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, body, {key: value for key, value in given.items() if value})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, place: str) -> tuple[int, bytes]:
        return self.ask("GET", f"/{self.token}/{place}")

    def act(self, action: str, /, **said: Any) -> tuple[int, dict[str, Any]]:
        status, body = self.ask("POST", f"/{self.token}/do/{action}", json.dumps(said).encode())
        return status, json.loads(body)

    def done(self) -> dict[str, Any]:
        """Waits for what runs; the state then."""
        for _ in range(500):
            state = json.loads(self.get("state")[1])
            if state["job"] is None or state["job"]["message"]:
                return state
            time.sleep(0.02)
        raise TimeoutError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AnnotationServer]:
    desk = Desk(lambda source: annotation(tmp_path, source), folder=tmp_path, project=annotation(tmp_path))
    with AnnotationServer(desk, largest_upload=4 << 20) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        desk.stop()
        running.shutdown()
        thread.join()


@pytest.fixture
def client(server: AnnotationServer) -> Client:
    return Client(server)


def test_a_person_clicks_tracks_reviews_and_exports(client: Client) -> None:
    assert client.get("")[0] == 200
    status, answer = client.act("click", frame=0, x=5, y=5)
    assert status == 200 and answer["state"]["draft"]["points"] == [[5.0, 5.0, True]]
    assert client.act("accept")[1]["result"] == 1
    assert client.act("name", object=1, name="block")[0] == 200
    assert client.act("track", frame=0)[0] == 200
    assert client.done()["job"]["message"] == "done"
    assert client.act("check")[0] == 200
    assert client.done()["job"]["failed"] is False
    times = json.loads(client.get("timeline")[1])
    assert times["said"] == [0] and times["disagreement"] == [0.0] * 8 and None not in times["confidence"]
    assert client.act("worst")[1]["result"] == 1
    assert client.act("export", format="coco")[1]["result"].endswith("coco.json")
    assert len(json.loads(client.get("download/coco")[1])["annotations"]) == 8
    assert len(zipfile.ZipFile(BytesIO(client.get("download/davis")[1])).namelist()) >= 16
    picture = cv2.imdecode(np.frombuffer(client.get("masks/7.png")[1], np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (32, 48, 4) and set(np.unique(picture[..., 3])) == {0, 105, 255}
    outlines = cv2.imdecode(np.frombuffer(client.get("second/7.png")[1], np.uint8), cv2.IMREAD_UNCHANGED)
    assert outlines.shape == (32, 48, 4) and 0 < (outlines[..., 3] > 0).sum() < (picture[..., 3] > 0).sum()
    assert client.get("second/99.png")[0] == 400
    assert client.act("undo")[1]["result"] == "tracking from frame 0"


def test_the_address_holds_a_long_random_token_and_listens_to_this_machine_alone(
    server: AnnotationServer,
) -> None:
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/{server.token}/"


@pytest.mark.parametrize("path", ["/", "/state", "/wrong/state", "/TOKE/", "//", "/%00/"])
def test_without_the_token_there_is_nothing(client: Client, path: str) -> None:
    status, body = client.ask("GET", path.replace("TOKE", client.token[:-1]))
    assert status == 403 and b"token" in body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", ""])
def test_a_foreign_host_is_refused(client: Client, host: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
    connection.putrequest("GET", f"/{client.token}/state", skip_host=True)
    if host:
        connection.putheader("Host", host)
    connection.endheaders()
    assert connection.getresponse().status == 403
    connection.close()
    assert client.ask("GET", f"/{client.token}/state", headers={"Host": "localhost:9000"})[0] == 200  # ssh -L


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1"])
def test_a_post_from_another_page_is_refused(client: Client, origin: str) -> None:
    said = json.dumps({"frame": 0, "x": 5, "y": 5}).encode()
    assert client.ask("POST", f"/{client.token}/do/click", said, {"Origin": origin})[0] == 403
    assert client.done()["draft"] is None


@pytest.mark.parametrize(
    "place",
    [
        "../session.json",
        "frame/../../session.json",
        "frame/%2e%2e%2fsession.json",
        "frame/0.jpg/../../../etc/passwd",
        "download/..",
        "download/passwd",
        "page.html",
        "frame/0",
        "frame/-1.jpg",
    ],
)
def test_no_path_leads_to_a_file(client: Client, place: str) -> None:
    assert client.get(place)[0] == 404


def test_a_large_upload_is_refused_before_it_is_read(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as line:
        head = f"POST /{client.token}/upload?name=a.mp4 HTTP/1.1\r\nHost: {client.own['Host']}\r\n"
        head += f"Origin: {client.own['Origin']}\r\nContent-Length: {2 << 30}\r\n\r\n"
        line.sendall(head.encode())  # and nothing of the body
        answer = line.makefile("rb").read()  # to the end: the server hangs up
    assert b" 413 " in answer.splitlines()[0] and b"more than the 4 MB" in answer
    status, _ = client.ask("POST", f"/{client.token}/do/click", b" " * (2 << 20))
    assert status == 413
    head = {"Transfer-Encoding": "chunked", "Content-Length": ""}
    assert client.ask("POST", f"/{client.token}/do/undo", b"0\r\n\r\n", head)[0] in (400, 411)
    assert client.get("state")[0] == 200


def test_a_broken_video_is_said_to_be_one_and_the_open_project_stays(client: Client, tmp_path: Path) -> None:
    for name, body in (("a.mp4", b"no video"), ("../../b.mp4", b"\0" * 5000), ("c.mp4", b"")):
        status, answer = client.ask("POST", f"/{client.token}/upload?name={name}", body)
        assert status == 400 and json.loads(answer)["error"]
    assert json.loads(client.get("state")[1])["video"] == "squares"
    assert list((tmp_path / "uploads").iterdir()) == []
    assert not (tmp_path.parent / "b.mp4").exists()


@pytest.mark.parametrize(
    "body",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\nPATH\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile 'other.mp4'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
        '<?xml version="1.0"?><MPD type="static"><BaseURL>other.mp4</BaseURL></MPD>',
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8"])
def test_a_playlist_cannot_bring_another_file(client: Client, tmp_path: Path, body: str, name: str) -> None:
    (tmp_path / "uploads").mkdir()
    other = tmp_path / "uploads/other.mp4"
    with VideoWriter(other) as writer:
        for frame in squares():
            writer.write(frame.image)
    sent = body.replace("PATH", str(other)).encode()
    status, answer = client.ask("POST", f"/{client.token}/upload?name={name}", sent)
    assert status == 400 and "no video file" in json.loads(answer)["error"]
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["other.mp4"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_half_a_video_is_refused_or_read_as_far_as_it_goes(
    client: Client, tmp_path: Path, share: float
) -> None:
    path = tmp_path / "made.mp4"
    with VideoWriter(path) as writer:
        for frame in squares():
            writer.write(frame.image)
    body = path.read_bytes()
    status, answer = client.ask(
        "POST", f"/{client.token}/upload?name=half.mp4", body[: int(share * len(body))]
    )
    assert status in (200, 400) and (status == 200 or json.loads(answer)["error"])
    assert client.get("frame/0.jpg")[1][:2] == b"\xff\xd8"


def test_a_video_can_be_sent(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "made.mp4"
    with VideoWriter(path) as writer:
        for frame in squares():
            writer.write(frame.image)
    status, answer = client.ask("POST", f"/{client.token}/upload?name=..%2Fm%20y.mp4", path.read_bytes())
    assert status == 200 and json.loads(answer)["state"]["frames"] == 8
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["_m_y.mp4"]
    assert client.get("frame/7.jpg")[1][:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("click", {"frame": 0, "x": 5}),
        ("click", {"frame": 99, "x": 5, "y": 5}),
        ("click", {"frame": 0, "x": 500, "y": 5}),
        ("click", {"frame": "0", "x": 5, "y": 5}),
        ("box", {"frame": 0, "left": 1, "top": 1, "right": None, "bottom": 3}),
        ("brush", {"frame": 0, "stroke": [], "radius": 3}),
        ("brush", {"frame": 0, "stroke": [[1, "a"]], "radius": 3}),
        ("accept", {}),
        ("track", {"frame": 3}),
        ("spread", {"frame": 3}),
        ("check", {}),
        ("export", {"format": "coco"}),
        ("export", {"format": "../x"}),
        ("text", {"frame": 0, "text": "a dog"}),
        ("fly", {}),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(client: Client, name: str, said: dict[str, Any]) -> None:
    status, answer = client.act(name, **said)
    assert status == 400 and len(answer["error"]) > 10
    state = json.loads(client.get("state")[1])
    assert state["objects"] == [] and state["draft"] is None


def test_no_json_and_no_object_are_refused(client: Client) -> None:
    for body in (b"{", b"[]", b"[" * 100_000, b"\xff"):
        assert client.ask("POST", f"/{client.token}/do/undo", body)[0] == 400
    wrong = {"Content-Type": "text/plain"}
    assert client.ask("POST", f"/{client.token}/do/undo", b"{}", wrong)[0] == 415


def test_the_page_may_load_nothing_from_elsewhere(client: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
    connection.request("GET", f"/{client.token}/")
    answer = connection.getresponse()
    page, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    connection.close()
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "{{" not in page and "http://" not in page and "https://" not in page
