"""Every command in a fenced block of README.md and docs/ is executed with tiny settings, or composed.

`ONLY_COMPOSED` in tests/commands.py says which are only composed, and why: those that need a GPU, real data,
official weights, minutes, a screen or the network. A new command on a page is tested without anything being
added here.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import runpy
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import vosssl
from tests.commands import (
    PAGES,
    PLACES,
    ROOT,
    Block,
    Command,
    commands_of,
    fenced,
    small,
    vosssl_arguments,
    words,
)
from vosssl.__main__ import check, main
from vosssl.modes.config import long_names

COMMANDS = [command for page in PAGES for command in commands_of(page)]
BLOCKS = [block for page in PAGES for block in fenced(page) if block.language in ("python", "yaml", "json")]
CHECKPOINT = "runs/slots/TIME/last.ckpt"
COMMANDS_OF_PAGES = 30  # there are more; fewer means that they are not found any more


@pytest.fixture
def place(tmp_path: Path, footage: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with what the pages name in it; the test stands there."""
    for name in PLACES:
        if (footage / name).is_dir():
            shutil.copytree(footage / name, tmp_path / name)
        elif (footage / name).is_file():
            shutil.copy(footage / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_shown_files(page: str, folder: Path) -> None:
    """The files that a page shows, as its reader writes them."""
    for block in BLOCKS:
        if block.page == page and block.path:
            path = folder / block.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)


def test_commands_are_found() -> None:
    assert len(COMMANDS) > COMMANDS_OF_PAGES
    executed = [command for command in COMMANDS if command.composed_because is None]
    assert len(executed) > COMMANDS_OF_PAGES // 2
    known = ("python", "python3", "torchrun", "docker", "pip", "tensorboard", "PYTHONPATH=.")
    assert {words(command.text)[0] for command in COMMANDS if "…" not in command.text} <= set(known)


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.composed_because is None], ids=str
)
def test_a_command_runs(
    command: Command,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    write_shown_files(command.page, place)
    monkeypatch.syspath_prepend(place)
    if CHECKPOINT in command.text:
        checkpoint = place / CHECKPOINT
        checkpoint.parent.mkdir(parents=True)
        shutil.copy(request.getfixturevalue("slots_checkpoint"), checkpoint)
    split = words(command.text)
    arguments = vosssl_arguments(split)
    if arguments is not None:
        assert main(small(arguments)) == 0
        return
    monkeypatch.setattr(sys, "argv", split[1:])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / split[1]), run_name="__main__")
        sys.exit(0)
    assert ended.value.code in (None, 0)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.composed_because], ids=str)
def test_a_command_composes(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "…" in command.text:
        pytest.skip("leaves something out")
    monkeypatch.chdir(tmp_path)
    write_shown_files(command.page, tmp_path)
    for part in command.text.split("&&"):
        split = words(part)
        arguments = vosssl_arguments(split)
        if arguments is not None:
            compose(arguments)
        elif len(split) > 1 and split[1].endswith(".py"):
            read_arguments(split[1:], monkeypatch)
        elif "install" in split:
            for requirement in split[split.index("install") + 1 :]:
                assert requirement == "-e" or extras(requirement) <= known_extras(), requirement
        elif split[0] == "docker":
            assert split[1] in ("build", "compose", "run")


def compose(arguments: list[str]) -> None:
    """Puts the configuration together; a checkpoint's own part is not there."""
    given = [argument for argument in arguments if not argument.startswith("resume=")]
    if given != arguments and not any(argument.startswith(("hparam=", "method=")) for argument in given):
        given = ["hparam=slots", *given]
    if "method=exported" in given:
        given = [argument for argument in given if not argument.startswith("weights=")]
    check(long_names(given))


class _ReadError(Exception):
    """Ends a script once its arguments were read."""


def read_arguments(split: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a script until it has read its arguments."""
    read = argparse.ArgumentParser.parse_args

    def then_stop(parser: argparse.ArgumentParser, *given: object) -> None:
        read(parser, *given)  # type: ignore[call-overload]
        raise _ReadError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", then_stop)
    monkeypatch.setattr(sys, "argv", split)
    monkeypatch.syspath_prepend((ROOT / split[0]).parent)  # as Python does for a script
    with pytest.raises(_ReadError):
        runpy.run_path(str(ROOT / split[0]), run_name="__main__")


def extras(requirement: str) -> set[str]:
    """`.[test]` -> test."""
    inside = requirement.partition("[")[2].rstrip("]")
    return set(filter(None, inside.split(",")))


def known_extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}: {block.text[:40]!r}")
def test_a_block_is_right(block: Block) -> None:
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    else:
        check_names(ast.parse(block.text))


def check_names(tree: ast.Module) -> None:
    """Whatever a piece of Python takes from vosssl is there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vosssl"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vosssl":
            assert hasattr(vosssl, node.attr) or importlib.import_module(f"vosssl.{node.attr}")


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
