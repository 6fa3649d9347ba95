"""The Dockerfile and the compose file, as far as they can be checked without an engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def instructions() -> list[tuple[str, str]]:
    """Every instruction of the Dockerfile with its arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [(name.upper(), " ".join(rest.split())) for name, rest in found]


def of(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def test_the_base_image_is_pinned() -> None:
    (base,) = of("FROM")
    name, _, tag = base.partition(":")
    assert name == "python"
    assert re.fullmatch(r"3\.\d+\.\d+-slim-\w+", tag), f"{tag} is not one version"


def test_the_python_of_the_image_is_supported() -> None:
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    minor = int(of("FROM")[0].partition(":")[2].split(".")[1])
    low, high = (int(number) for number in re.findall(r"3\.(\d+)", supported))
    assert low <= minor < high


def test_the_last_user_is_not_root_and_exists() -> None:
    user = of("USER")[-1]
    assert user not in ("root", "0")
    assert any(command.startswith("useradd") and user in command for command in of("RUN"))
    names = [name for name, _ in instructions()]
    assert "RUN" not in names[len(names) - names[::-1].index("USER") :], "something is installed as the user"


def test_package_lists_are_removed_where_they_were_fetched() -> None:
    for command in of("RUN"):
        if "apt-get update" in command:
            assert "rm -rf /var/lib/apt/lists/*" in command
            assert "--no-install-recommends" in command
            assert "--yes" in command
        assert "sudo" not in command


def test_nothing_is_fetched_by_add_and_paths_are_absolute() -> None:
    assert of("ADD") == []
    assert all(path.startswith("/") for path in of("WORKDIR"))
    assert not [command for command in of("RUN") if "curl" in command or "wget" in command]
    assert "PIP_NO_CACHE_DIR=1" in of("ENV")[0]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in of("COPY") for name in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_every_package_of_the_wheel_is_copied() -> None:
    copied = {name for line in of("COPY") for name in line.split()[:-1]}
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    assert {Path(folder).parts[0] for folder in folders.values()} <= copied


def test_the_entrypoint_works(tmp_path: Path) -> None:
    entry, command = json.loads(of("ENTRYPOINT")[0]), json.loads(of("CMD")[0])
    assert entry[0] == "python"
    done = subprocess.run(
        [sys.executable, *entry[1:], *command], cwd=tmp_path, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "mode=train hparam=slots" in done.stdout


def compose_file() -> dict:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_compose_builds_one_image_and_mounts_what_the_image_expects() -> None:
    services = compose_file()
    assert services["vosssl"]["image"] == services["tensorboard"]["image"]
    declared = {line.split("=")[0] for line in of("ARG")}
    assert set(services["vosssl"]["build"]["args"]) == declared
    places = set(json.loads(of("VOLUME")[0]))
    for service in services.values():
        assert {volume.split(":")[1] for volume in service["volumes"]} <= places


def test_tensorboard_is_not_open_to_the_network() -> None:
    for port in compose_file()["tensorboard"]["ports"]:
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("service", ["vosssl"])
def test_the_command_of_compose_composes(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vosssl.__main__ import check

    monkeypatch.chdir(tmp_path)
    check(compose_file()[service]["command"])
