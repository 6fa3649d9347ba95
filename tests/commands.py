"""The commands on the pages: found in fenced blocks, told apart, made small."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = ("", "sh", "bash", "shell", "console")  # languages of blocks whose lines are commands

# Commands that are only composed (the configuration is put together and checked, a script's arguments are
# read), by what they hold, and why. Everything else is executed.
ONLY_COMPOSED = {
    "python3 -m venv": "installs from the network; .ci/run does it",
    "torchrun": "several GPUs",
    "docker ": "needs a Docker engine",
    "mode=download": "needs the network",
    "mode=check data=davis17": "real data",
    "data.root=YTVIS": "real data, a GPU",
    "data.root=MOVI": "real data, a GPU",
    "=FOLDER": "a GPU, or real data",
    "predict.source=VIDEO": "follows a run on a GPU",
    "method=cutie-": "official weights",
    "method=stcn": "official weights",
    "method=sam2": "official weights",
    "method=dino": "official weights",
    "weights=mit-b0": "official weights",
    "hparam=sam2": "minutes",
    "hparam=cutie": "minutes",
    "hparam=stcn": "minutes",
    "mode=export": "half a minute; tests/modes/test_export.py runs it",
    "method=exported": "needs exported graphs; tests/modes/test_export.py runs it",
    "mode=annotate": "serves until it is stopped; tests/annotation runs it",
    "predict.window=true": "a window; tests/engine/test_click_window.py opens it",
    "mode=benchmark": "minutes; tests/modes/test_benchmark.py runs it",
    "data.annotations=labels.json": "labels of other programs; tests/data reads them",
    "demo_click_and_track.py 0": "a camera",
    "demo_live_camera.py 0": "a camera",
    "scripts/bench_": "minutes",
    "memory_table.py": "minutes; tests/test_memory_table.py runs its parts",
    "pack_predictions.py": "the list of frames of a real data set",
    "hparam=slots_features": "minutes",
    "…": "a line that leaves something out",
}
SMALL: dict[str, tuple[str, ...]] = {  # what is added to a command of a mode, so that it takes seconds
    "train": (
        "train.steps=1",
        "train.batch_size=1",
        "train.max_seconds=null",
        "device=cpu",
        "floors=null",
        "evaluate.limit=1",
        "train.validation_clips=1",
    ),
    "eval": ("evaluate.limit=1", "evaluate.frames=3", "device=cpu", "floors=null"),
    "predict": ("predict.limit=3", "device=cpu"),
    "inspect": ("device=cpu",),
}
SMALL_DATA: dict[str, tuple[str, ...]] = {  # by data set
    "synthetic": ("data.train.size=32", "data.val.size=32", "data.val.count=1", "data.val.frames=4"),
    "folder": ("data.size=32", "data.frames=2"),
    "video": ("data.size=32", "data.frames=2"),
}
PLACES = ("video.mp4", "first_mask.png", "MINE", "DAVIS", "PREDICTIONS", "TRUTH", "ours.json", "theirs.json")


class Command(NamedTuple):
    """One line of a fenced block.

    Attributes:
        page: the file's name.
        text: without the comment.
    """

    page: str
    text: str

    @property
    def composed_because(self) -> str | None:
        """Why it is not executed; None if it is."""
        return next((reason for part, reason in ONLY_COMPOSED.items() if part in self.text), None)

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


class Block(NamedTuple):
    """A fenced block that is no shell.

    Attributes:
        page: the file's name.
        language: python, yaml, …
        path: the file that the block shows, where the fence names one; else empty.
        text: all of it.
    """

    page: str
    language: str
    path: str
    text: str


def fenced(page: Path) -> list[Block]:
    """All fenced blocks of a page, those of commands among them."""
    found = re.findall(r"^```([^\n`]*)\n(.*?)^```\s*$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    blocks = []
    for information, text in found:
        language, _, path = information.strip().partition(" ")
        blocks.append(Block(page.name, language, path.strip(), text))
    return blocks


def commands_of(page: Path) -> list[Command]:
    """Every command of a page: each line of its shell blocks, joined where it ends in a backslash."""
    lines = [
        line
        for block in fenced(page)
        if block.language in SHELL
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [Command(page.name, text) for line in lines if (text := without_comment(line))]


def without_comment(line: str) -> str:
    """A command line without the remark behind it, with single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"(^|\s)#.*$", "", line)).strip()


def words(command: str) -> list[str]:
    """A command as the shell splits it."""
    return shlex.split(command)


def vosssl_arguments(split: list[str]) -> list[str] | None:
    """What follows `-m vosssl` (or, in a container, the image's name); None if there is no such thing."""
    if "vosssl" not in split or "build" in split:
        return None
    if split[0] == "docker":
        place = len(split) - split[::-1].index("vosssl")
        return split[place:]
    return split[split.index("vosssl") + 1 :]


def small(arguments: list[str]) -> list[str]:
    """A command line of `python -m vosssl` with what makes it take seconds."""
    chosen = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    mode = chosen.get("mode", "help")
    if mode == "help":
        return arguments
    data = chosen.get("data") or data_of_recipe(chosen.get("hparam"))
    of_data = SMALL_DATA.get(data, ()) if mode in ("train", "eval") else ()
    more = [*SMALL.get(mode, ()), *of_data, "threads=1"]
    return [*arguments, *(extra for extra in more if extra.split("=")[0] not in chosen)]


def data_of_recipe(name: str | None) -> str:
    """The data set that a recipe chooses; empty for none."""
    path = ROOT / "cfg/hparam" / f"{name}.yaml"
    found = re.search(r"override /data: (\w+)", path.read_text()) if path.is_file() else None
    return found[1] if found else ""
