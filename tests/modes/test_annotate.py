"""mode=annotate as a program: it prints its address, is killed in mid-pass, and goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from tests.annotation.moving_shapes import moving_shapes
from tests.engine.test_click_window import screen, until  # noqa: F401  (a fixture)
from vosssl.__main__ import main
from vosssl.data.coco_json import CocoLabels
from vosssl.data.io import read_labels
from vosssl.data.label_sources import LabelOptions
from vosssl.data.video_io import VideoWriter
from vosssl.modes.annotate import last_source, require_same_source

OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # never by a proxy
FRAMES, HEIGHT, WIDTH = 20, 96, 160
CENTRES = ((80, 50), (30, 60))  # x, y of the disk and the block in frame 0
PATIENCE = 400  # seconds of a pass, for a machine that does much else
ENOUGH = 3  # frames of a pass that are saved before the kill


@contextmanager
def running(
    folder: Path, *arguments: str, environment: Mapping[str, str] = os.environ
) -> Iterator[subprocess.Popen[str]]:
    """The program; at the end it is killed without a warning."""
    command = [sys.executable, "-m", "vosssl", "mode=annotate", f"annotate.folder={folder}", *arguments]
    own = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**environment, **own})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """The address that the program prints."""
    with running(folder, *arguments) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def act(url: str, action: str, /, **said: Any) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Origin": f"http://{urlsplit(url).netloc}"}
    request = urllib.request.Request(f"{url}do/{action}", json.dumps(said).encode(), headers)
    return json.load(OPEN(request, timeout=120))


def get(url: str, place: str) -> dict[str, Any]:
    return json.load(OPEN(f"{url}{place}", timeout=120))


def wait_for_job(url: str) -> dict[str, Any]:
    def ended() -> Any:
        job = get(url, "state")["job"]
        return job if job["message"] else None

    job: Any = until(ended, patience=PATIENCE)
    assert not job["failed"], job
    return job


def record(folder: Path) -> dict[str, Any]:
    path = folder / "shapes/session.json"
    return json.loads(path.read_text()) if path.is_file() else {"objects": [], "confidence": {}}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "shapes.mp4"
    with VideoWriter(path) as writer:
        for image in moving_shapes(frames=FRAMES, height=HEIGHT, width=WIDTH)[0]:
            writer.write(image)
    return path


def test_a_program_killed_in_mid_pass_goes_on_where_it_was(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with served(folder, f"annotate.source={video}") as url:
        assert url.startswith("http://127.0.0.1:")
        (x, y), (u, v) = CENTRES
        act(url, "click", frame=0, x=x, y=y)
        act(url, "accept")
        act(url, "name", object=1, name="disk")
        draft = act(url, "click", frame=0, x=u, y=v)["state"]["draft"]
        act(url, "track", frame=0)
        until(lambda: len(record(folder)["confidence"]) >= ENOUGH)
    saved = record(folder)
    with served(folder) as url:  # without a source: what was open last
        found, times = get(url, "state"), get(url, "timeline")
        assert found["video"] == "shapes" and found["draft"] == draft
        assert [(one["id"], one["name"]) for one in found["objects"]] == [(1, "disk")]
        known = [frame for frame, value in enumerate(times["confidence"]) if value is not None]
        assert known == list(range(len(saved["confidence"]))) and times["said"] == [0]
        assert found["frame"] in known
        assert act(url, "accept")["result"] == 2
        act(url, "track", frame=known[-1])  # goes on
        assert wait_for_job(url)["message"] == "done"
        act(url, "spread", frame=0)  # carries the second object, too
        wait_for_job(url)
        assert None not in get(url, "timeline")["confidence"]
        places = {kind: Path(act(url, "export", format=kind)["result"]) for kind in ("coco", "cvat", "yolo")}
        places["davis"] = Path(act(url, "export", format="davis")["result"])
        assert all(path.exists() and path.is_relative_to(folder.resolve()) for path in places.values())
        source = CocoLabels(places["coco"], LabelOptions()).source("shapes", None)
        last = source.read(f"{FRAMES - 1:05d}", (HEIGHT, WIDTH))
        drawn = places["davis"] / f"Annotations/480p/shapes/{FRAMES - 1:05d}.png"
        assert torch.equal(last, read_labels(drawn)) and set(last.unique().tolist()) == {0, 1, 2}
    assert "127.0.0.1" not in (folder / "log.txt").read_text()  # nor the token


def test_slots_can_be_the_second_source(video: Path, tmp_path: Path, checkpoint: Path) -> None:
    slots = ("annotate.second=slots-synthetic", f"annotate.second_weights={checkpoint}")
    tracker = "method=copy-first-mask"
    with served(tmp_path / "work", f"annotate.source={video}", tracker, *slots) as url:
        act(url, "click", frame=0, x=CENTRES[0][0], y=CENTRES[0][1])
        act(url, "accept")
        act(url, "track", frame=0)
        wait_for_job(url)
        act(url, "check")
        wait_for_job(url)
        times = get(url, "timeline")
        assert all(0 <= value <= 1 for value in times["disagreement"]) and max(times["disagreement"]) > 0


@pytest.mark.skipif(not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs Xvfb and xdotool")
def test_the_window_works_on_the_same_project(
    video: Path,
    tmp_path: Path,
    screen: dict[str, str],  # noqa: F811
) -> None:
    folder = tmp_path / "work"
    arguments = (f"annotate.source={video}", "method=copy-first-mask", "annotate.window=true")

    def do(*words: str) -> str:
        command = ["xdotool", *words]
        return subprocess.run(command, env=screen, capture_output=True, text=True, check=False).stdout.strip()

    with running(folder, *arguments, environment=screen) as program:
        window = str(until(lambda: do("search", "--name", "^vosssl: click and track$"))).split()[0]
        time.sleep(1)  # the first picture is being put on the screen
        scale = 720 / HEIGHT  # frames are shown 720 pixels high
        x, y = (str(round(value * scale)) for value in CENTRES[1])

        def clicked(key: str, happened: Callable[[], object]) -> None:
            do("mousemove", "--window", window, x, y, "click", "1")
            time.sleep(0.5)
            do("key", key)
            until(happened)

        clicked("Return", lambda: record(folder)["objects"] == [1])
        do("key", "space")
        until(lambda: len(record(folder)["confidence"]) == FRAMES)
        do("key", "e")
        exported = folder / "shapes/export/labels/shapes" / f"{FRAMES - 1:05d}.png"
        until(exported.is_file)
        do("key", "q")
        assert program.wait(timeout=60) == 0
    found = read_labels(folder / "shapes/labels/shapes/00000.png")
    truth = moving_shapes(frames=1, height=HEIGHT, width=WIDTH)[1][0] == 2
    assert float((truth & (found == 1)).sum() / (truth | (found == 1)).sum()) > 0.8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["annotate.window=true"], "annotate.source=video.mp4"),
        (["annotate.source=nowhere.mp4"], "nowhere.mp4"),
        (["annotate.source=VIDEO", "annotate.second=slot-synthetic"], "slots-synthetic"),
        (["annotate.source=VIDEO", "method=floor-kmeans"], "takes no masks"),
    ],
)
def test_what_cannot_be_annotated_is_one_line(
    more: list[str], message: str, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument.replace("VIDEO", str(video)) for argument in more]
    with pytest.raises(SystemExit) as stopped:
        main(["mode=annotate", "device=cpu", *given])
    assert stopped.value.code == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("vosssl: ")]
    assert len(lines) == 1 and message in lines[0]


def test_a_project_is_of_one_video_alone(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    require_same_source(folder, video)
    folder.mkdir()
    (folder / "source.json").write_text(json.dumps({"source": str(video)}))
    require_same_source(folder, video)
    with pytest.raises(ValueError, match="is the project of"):
        require_same_source(folder, tmp_path / "other/shapes.mp4")
    video.unlink()
    require_same_source(folder, tmp_path / "other/shapes.mp4")  # it has moved
    assert last_source(tmp_path) is None
