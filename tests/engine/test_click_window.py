"""The real window on a virtual screen, moved by real mouse and key events."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.propagation.clickable import square_labels
from vosssl.data.io import read_labels

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90  # seconds, for a machine that does much else
PROGRAM = """
import sys
from pathlib import Path
from tests.engine.test_click_session import facts, opened
from vosssl.engine.click_window import run_window

folder = Path(sys.argv[1])
session = opened(folder)
draw = session.picture

def drawn():
    (folder / "new").write_text(f"{facts(session)} | {session.message}")
    (folder / "new").replace(folder / "shown")
    return draw()

session.picture = drawn
run_window(session, title="clicked")
"""

pytestmark = pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs Xvfb and xdotool"
)


@pytest.fixture
def screen() -> Iterator[dict[str, str]]:
    """The environment of programs on a screen of their own."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x960x24", "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as number:
        display = number.readline().strip()
    yield os.environ | {"DISPLAY": f":{display}", "OMP_NUM_THREADS": "1"}
    server.terminate()
    server.wait()


def until(condition: Callable[[], object], *, patience: float = PATIENCE) -> object:
    """Waits until something is so, and returns it."""
    end = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
    return found


class Hands:
    """A program with the window, and somebody in front of it.

    Args:
        screen: environment of the program.
        folder: gets its files.
    """

    def __init__(self, screen: dict[str, str], folder: Path) -> None:
        self.screen, self.folder = screen, folder
        self.program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], env=screen, cwd=ROOT)
        self.window = ""

    def do(self, *words: str) -> str:
        """What xdotool answers."""
        command = ["xdotool", *words]
        done = subprocess.run(command, env=self.screen, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def at(self, x: int, y: int, *words: str) -> None:
        """Moves the mouse to a pixel of the window, and does something there."""
        self.do("mousemove", "--window", self.window, str(x), str(y), *words)
        time.sleep(0.1)

    def sees(self, text: str) -> None:
        """Waits until the window says something."""
        shown = self.folder / "shown"
        until(lambda: shown.is_file() and text in shown.read_text())

    def __enter__(self) -> Hands:
        self.sees("click on an object")
        self.window = str(until(lambda: self.do("search", "--name", "^clicked$"))).split()[0]
        time.sleep(0.5)  # the first picture is being put on the screen
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()
        self.program.wait()


def test_mouse_and_keys_make_masks_tracks_and_an_export(screen: dict[str, str], tmp_path: Path) -> None:
    with Hands(screen, tmp_path) as hands:
        hands.at(4, 2, "mousedown", "1")
        hands.at(40, 60)
        hands.at(80, 118, "mouseup", "1")  # a box around both squares
        hands.sees("score 0.90")
        hands.at(42, 82, "click", "3")  # not the second one
        hands.sees("1 click")
        hands.do("key", "Return")
        hands.sees("object 1 accepted")
        hands.do("key", "n")
        hands.sees("click on object 2")
        hands.at(42, 82, "click", "1")
        hands.sees("1 click")
        hands.do("key", "space")
        hands.sees("the end of the video")
        hands.do("key", "Left")
        hands.sees("frame 6 / 7")
        hands.do("key", "e")
        hands.sees("8 frames exported")
        hands.do("key", "q")
        assert hands.program.wait(timeout=PATIENCE) == 0
    for frame in (0, 7):
        labels = read_labels(tmp_path / "work" / "labels" / "squares" / f"{frame:05d}.png")
        assert torch.equal(labels, square_labels(frame))
    exported = tmp_path / "export" / "labels" / "squares" / "00005.png"
    assert torch.equal(read_labels(exported), square_labels(5))
