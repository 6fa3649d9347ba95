"""mode=download from the command line, against a server on this machine with archives of official layouts."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.data.web_server import WebServer, serving
from vosssl.__main__ import main
from vosssl.data import web

VIDEOS = {"train": [f"t{index:02d}" for index in range(60)], "val": [f"v{index:02d}" for index in range(30)]}
NAME = "DAVIS-2017-trainval-480p.zip"


def davis(*, padding: int = 0, evil: str = "") -> bytes:
    """The archive of DAVIS 2017 with its folders and as many videos, of one frame each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for part, videos in VIDEOS.items():
            for video in videos:
                archive.writestr(f"DAVIS/JPEGImages/480p/{video}/00000.jpg", f"jpeg {video}")
                archive.writestr(f"DAVIS/Annotations/480p/{video}/00000.png", f"png {video}")
            archive.writestr(f"DAVIS/ImageSets/2017/{part}.txt", "\n".join(videos) + "\n")
        archive.writestr("DAVIS/README.md", os.urandom(padding))
        if evil:
            archive.writestr(evil, "evil")
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WebServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("vosssl.data.download._pause", lambda failures: None)
    monkeypatch.chdir(tmp_path)
    with serving() as running:
        running.files[NAME] = davis()
        monkeypatch.setattr(web, "DRIVE", running.url("drive"))
        yield running


def command(server: WebServer, *more: str, data: str = "davis17", agreed: bool = True) -> list[str]:
    address = [f"data.release.files.0.url={server.url(NAME)}"] if data == "davis17" else []
    yes = ["download.yes=true"] if agreed else []
    return ["mode=download", f"data={data}", "root=ROOT", *address, *yes, *more]


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)


def assert_davis_is_there(root: Path) -> None:
    assert (root / "JPEGImages/480p/t00/00000.jpg").read_text() == "jpeg t00"
    assert len(list((root / "Annotations/480p").iterdir())) == 90
    assert not list(root.glob(".unpacking*")) and not (root / "downloads" / NAME).exists()


def test_without_yes_it_says_what_would_come_and_what_to_type(
    server: WebServer, tmp_path: Path, capfd
) -> None:
    assert run(*command(server, agreed=False)) == 1
    printed = capfd.readouterr()
    for word in ("DAVIS 2017 trainval", "licence    BSD", "MB to load", str(tmp_path / "ROOT"), NAME):
        assert word in printed.out
    assert "to go on, type: python -m vosssl mode=download data=davis17 data.root=ROOT" in printed.err
    assert "download.yes=true" in printed.err
    assert not (tmp_path / "ROOT").exists()


def test_a_dataset_comes_once(server: WebServer, tmp_path: Path, capfd) -> None:
    assert run(*command(server)) == 0
    assert_davis_is_there(tmp_path / "ROOT")
    asked = len(server.asked)
    assert run(*command(server)) == 0
    assert "nothing to download" in capfd.readouterr().out
    assert len(server.asked) == asked


def test_a_copy_that_somebody_else_unpacked_is_not_loaded_again(
    server: WebServer, tmp_path: Path, capfd
) -> None:
    with zipfile.ZipFile(io.BytesIO(davis())) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "DAVIS").rename(tmp_path / "ROOT")
    assert run(*command(server)) == 0
    assert "nothing to download" in capfd.readouterr().out and not server.asked


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_half_way_is_no_matter(
    server: WebServer, tmp_path: Path, ranges: bool
) -> None:
    server.files[NAME] = davis(padding=500_000)
    server.ranges, server.cuts = ranges, [300_000] if ranges else [0, 0, 300_000]  # two ask for the size
    assert run(*command(server)) == 0
    assert_davis_is_there(tmp_path / "ROOT")
    assert server.asked[-1] == (NAME, "bytes=300000-")


def test_a_wrong_checksum_is_told_and_nothing_is_unpacked(server: WebServer, tmp_path: Path, capfd) -> None:
    assert run(*command(server, f"+data.release.files.0.sha256='{'0' * 64}'")) == 1
    printed = capfd.readouterr().err
    assert f"{NAME} has sha256" in printed and "then type: python -m vosssl" in printed
    assert os.listdir(tmp_path / "ROOT") == ["downloads"]
    assert os.listdir(tmp_path / "ROOT" / "downloads") == [".lock"]


def test_the_right_checksum_passes_and_archives_can_be_kept(server: WebServer, tmp_path: Path) -> None:
    digest = hashlib.sha256(server.files[NAME]).hexdigest()
    more = (f"+data.release.files.0.sha256='{digest}'", "download.keep_archives=true", "download.folder=KEPT")
    assert run(*command(server, *more)) == 0
    assert (tmp_path / "KEPT" / NAME).read_bytes() == server.files[NAME]


@pytest.mark.parametrize("evil", ["../../evil", "/tmp/evil-of-vosssl", "DAVIS/../../../evil"])
def test_an_archive_that_would_write_elsewhere_is_refused(
    server: WebServer, tmp_path: Path, evil: str, capfd
) -> None:
    server.files[NAME] = davis(evil=evil)
    assert run(*command(server)) == 1
    assert f"holds the member '{evil}'" in capfd.readouterr().err
    assert os.listdir(tmp_path / "ROOT") == ["downloads"]
    assert os.listdir(tmp_path) == ["ROOT"] and not Path("/tmp/evil-of-vosssl").exists()


@pytest.mark.parametrize(
    ("path", "message"), [("page.zip", "a web page instead of the file"), ("gone.zip", "answered 404")]
)
def test_what_is_no_file_is_explained_with_the_way_by_hand(
    server: WebServer, path: str, message: str, capfd
) -> None:
    more = f"data.release.files.0.url={server.url(path)}"
    assert run("mode=download", "data=davis17", "root=ROOT", more, "download.yes=true") == 1
    printed = capfd.readouterr().err
    assert message in printed
    assert f"save it as ROOT/downloads/{path}; then type: python -m vosssl mode=download" in printed


def test_a_file_put_into_the_folder_by_hand_is_taken(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "ROOT" / "downloads").mkdir(parents=True)
    (tmp_path / "ROOT" / "downloads" / NAME).write_bytes(server.files.pop(NAME))
    assert run(*command(server)) == 0
    assert_davis_is_there(tmp_path / "ROOT")


def test_a_drive_file_comes_after_the_question_or_its_quota_is_explained(
    server: WebServer, tmp_path: Path, capfd
) -> None:
    server.files["the-id"] = server.files[NAME]
    drive = f"data.release.files=[{{google_drive: the-id, name: {NAME}, strip: 1}}]"
    arguments = ["mode=download", "data=davis17", "root=ROOT", "download.yes=true", drive]
    server.drive_quota = True
    assert run(*arguments) == 1
    assert "quota is exceeded" in (printed := capfd.readouterr().err)
    assert f"save it as ROOT/downloads/{NAME}; then type:" in printed
    server.drive_quota = False
    assert run(*arguments) == 0
    assert_davis_is_there(tmp_path / "ROOT")


def test_gated_data_say_what_to_do_and_are_not_loaded(server: WebServer, tmp_path: Path, capfd) -> None:
    assert run(*command(server, data="ytvis2021")) == 1
    printed = capfd.readouterr()
    assert "register at https://youtube-vos.org" in printed.out
    assert f"save as    {tmp_path / 'ROOT/downloads/train.zip'}" in printed.out
    assert "download.registered=true" in printed.out
    assert "1 of 1 files of ytvis2021 have to be fetched by hand" in printed.err
    assert not server.asked


def test_who_has_registered_gets_the_copies_or_brings_the_file(server: WebServer, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train/JPEGImages/a/00000.jpg", "jpeg")
        archive.writestr("train/instances.json", "{}")
    server.files["1fLO_d8ys_03CPPpCm-lL5SgCJsbNN5L9"] = buffer.getvalue()
    assert run(*command(server, "download.registered=true", data="ytvis2021")) == 0
    assert (tmp_path / "ROOT/train/instances.json").read_text() == "{}"
    (tmp_path / "second/downloads").mkdir(parents=True)
    (tmp_path / "second/downloads/train.zip").write_bytes(buffer.getvalue())
    assert run("mode=download", "data=ytvis2021", "root=second", "download.yes=true") == 0
    assert (tmp_path / "second/train/JPEGImages/a/00000.jpg").read_text() == "jpeg"


def test_a_disk_that_is_too_small_is_told_first(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 10**6, 1000))
    assert run(*command(server)) == 1
    assert "downloading DAVIS 2017 trainval, 480p needs" in capfd.readouterr().err
    assert not list((tmp_path / "ROOT/downloads").iterdir())


def test_shards_are_listed_by_their_bucket_and_go_into_place(server: WebServer, tmp_path: Path) -> None:
    names = ["features.json", *(f"movi_a-train.tfrecord-{index:05d}-of-00003" for index in range(3))]
    names += ["movi_a-validation.tfrecord-00000-of-00001"]
    server.files |= {f"tfds/movi_a/128x128/1.0.0/{name}": name.encode() for name in names}
    listing = server.url("bucket?prefix=tfds/movi_a/128x128/1.0.0/")
    files = ", ".join(
        f'{{listing: "{listing}", select: "{select}", part: train-128, into: 128x128, unpack: false}}'
        for select in ("movi_a-train.*", "*.json")
    )
    arguments = ("mode=download", "data=movi_a", "root=ROOT", f"data.release.files=[{files}]")
    more = ("data.release.default_parts=[train-128]", "download.yes=true")
    assert run(*arguments, *more) == 0
    assert sorted(os.listdir(tmp_path / "ROOT/128x128")) == sorted(names[:-1])
    server.asked.clear()
    assert run(*arguments, *more) == 0
    assert {path for path, _ in server.asked} == {"bucket"}


def test_pieces_are_joined_and_their_common_checksum_is_verified(
    server: WebServer, tmp_path: Path, capfd
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("Testset/dogs/dogs01.jpg")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"jpeg"))
    whole = buffer.getvalue()
    server.files |= {"f.tgz.part1": whole[:50], "f.tgz.part2": whole[50:]}
    arguments = ["mode=download", "data=fbms59", "root=ROOT", "download.yes=true"]
    arguments += [f"data.release.files.0.urls=[{server.url('f.tgz.part1')},{server.url('f.tgz.part2')}]"]
    assert run(*arguments) == 1
    assert "has sha1" in capfd.readouterr().err
    assert run(*arguments, f"data.release.files.0.sha1='{hashlib.sha1(whole).hexdigest()}'") == 0
    assert (tmp_path / "ROOT/Testset/dogs/dogs01.jpg").read_bytes() == b"jpeg"
    assert set(os.listdir(tmp_path / "ROOT/downloads")) == {".lock", "FBMS59_all.tgz.unpacked.json"}


def test_what_cannot_be_downloaded_says_so(server: WebServer, capfd) -> None:
    for arguments, message in (
        (["data=synthetic", "root=ROOT"], "nothing to download"),
        (["data=davis17"], "needs the folder to fill"),
        ([], "needs data=NAME"),
        (["data=davis17", "root=A", "data.root=B"], "one key"),
        (["data=ytvis2021", "root=A", "download.parts=[trian]"], "has no part 'trian'; it has train"),
        (["data=davis17", "root=A", "download.connections=0"], "download.connections is 0"),
    ):
        assert run("mode=download", *arguments) == 1
        assert message in capfd.readouterr().err


def start(server: WebServer, folder: Path) -> subprocess.Popen[str]:
    """The real command, in a program of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "vosssl", *command(server)],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )


def test_ctrl_c_keeps_what_came_and_the_same_command_goes_on(server: WebServer, tmp_path: Path) -> None:
    server.files[NAME] = davis(padding=3_000_000)
    server.delay = 0.2
    first = start(server, tmp_path)
    part = tmp_path / "ROOT" / "downloads" / f"{NAME}.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 200_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert "stopped; what came is kept, to go on type: python -m vosssl mode=download" in said
    kept = part.stat().st_size
    assert kept > 200_000
    server.delay = 0
    second = start(server, tmp_path)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert (NAME, f"bytes={kept}-") in server.asked
    assert_davis_is_there(tmp_path / "ROOT")


def test_two_processes_at_once_load_once(server: WebServer, tmp_path: Path) -> None:
    server.files[NAME] = davis(padding=500_000)
    server.delay = 0.2
    both = [start(server, tmp_path), start(server, tmp_path)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert sum("another process is downloading" in text for text in said) == 1
    assert [process.returncode for process in both] == [0, 0]
    assert [asked for path, asked in server.asked if asked != "bytes=0-0"] == [None]
    assert_davis_is_there(tmp_path / "ROOT")
