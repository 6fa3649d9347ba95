"""Archives that are whole, damaged, in pieces, or made to write somewhere else."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from vosssl.data import archives
from vosssl.data.archives import unpack
from vosssl.data.joined_files import JoinedFiles
from vosssl.data.member_names import member_path

FILES = {
    "DAVIS/JPEGImages/480p/dog/00000.jpg": b"jpeg" * 100,
    "DAVIS/Annotations/480p/dog/00000.png": b"png" * 50,
    "DAVIS/ImageSets/2017/train.txt": b"dog\n",
}


def write_zip(path: Path, files: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], *, mode: str = "w:gz", **special: object) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, change in special.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.type, info.linkname = change  # type: ignore[misc]
            archive.addfile(info)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".unpacked.json")
    }


STRIPPED = {name.removeprefix("DAVIS/"): content for name, content in FILES.items()}


@pytest.mark.parametrize("form", ["zip", "w:", "w:gz", "w:bz2", "w:xz"])
def test_every_kind_of_archive_gives_its_files_once(tmp_path: Path, form: str) -> None:
    archive, root = tmp_path / "davis.any", tmp_path / "root"
    write_zip(archive, FILES) if form == "zip" else write_tar(archive, FILES, mode=form)
    assert unpack(archive, root, strip=1)
    assert contents(root) == STRIPPED
    assert not unpack(archive, root, strip=1)
    assert sorted(path.name for path in root.iterdir()) == ["Annotations", "ImageSets", "JPEGImages"]


def test_without_strip_and_with_into_the_folders_stay(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", FILES)
    unpack(archive, tmp_path / "root", into="2017/trainval")
    assert contents(tmp_path / "root") == {f"2017/trainval/{name}": FILES[name] for name in sorted(FILES)}


def test_what_is_there_is_kept_and_merged_into(tmp_path: Path) -> None:
    kept = tmp_path / "root" / "JPEGImages" / "480p" / "cat" / "00000.jpg"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"cat")
    unpack(write_zip(tmp_path / "a.zip", FILES), tmp_path / "root", strip=1)
    assert contents(tmp_path / "root") == {**STRIPPED, "JPEGImages/480p/cat/00000.jpg": b"cat"}


def test_when_the_files_or_the_archive_are_others_it_is_unpacked_again(tmp_path: Path) -> None:
    archive, root = write_zip(tmp_path / "a.zip", FILES), tmp_path / "root"
    unpack(archive, root, strip=1, identity="one")
    shutil.rmtree(root / "JPEGImages")
    assert unpack(archive, root, strip=1, identity="one")
    assert contents(root) == STRIPPED
    assert unpack(archive, root, strip=1, identity="two")


def test_pieces_are_read_as_one_file(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tgz", {"a/b": np.random.default_rng(0).bytes(300_000)}).read_bytes()
    pieces = [tmp_path / f"a.tgz.part{number}" for number in (1, 2, 3)]
    for piece, content in zip(pieces, (whole[:1000], whole[1000:200_000], whole[200_000:]), strict=True):
        piece.write_bytes(content)
    with JoinedFiles(pieces) as joined:
        assert joined.read() == whole
        joined.seek(990)
        assert joined.read(20) == whole[990:1010]
    unpack(pieces, tmp_path / "root")
    assert len(contents(tmp_path / "root")["a/b"]) == 300_000


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "C:/evil", "C:evil", "..\\evil", "\\evil", "a\\..\\..\\evil", ".."],
)
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_member_that_leads_out_of_the_folder_stops_everything(tmp_path: Path, name: str, form: str) -> None:
    files, root = {"good.txt": b"good", name: b"evil"}, tmp_path / "deep" / "root"
    write = write_zip if form == "zip" else write_tar
    archive = write(tmp_path / "a.bin", files)
    with pytest.raises(
        ValueError, match=r"a\.bin holds the member .*which (is absolute|names a drive|leads)"
    ):
        unpack(archive, root, strip=0)
    assert contents(tmp_path) == {"a.bin": archive.read_bytes()}


def test_stripped_members_are_checked_too() -> None:
    with pytest.raises(ValueError, match="leads out"):
        member_path("../x", archive="a.zip", strip=2)
    assert member_path("__MACOSX/a", archive="a.zip") is None
    assert member_path("./a//b", archive="a.zip", strip=1).as_posix() == "b"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "links",
    [
        {"link": (tarfile.SYMTYPE, "/etc")},
        {"link": (tarfile.SYMTYPE, "../outside")},
        {"a__link": (tarfile.SYMTYPE, "../../outside")},
        {"x": (tarfile.SYMTYPE, "."), "y": (tarfile.SYMTYPE, "x/..")},
        {"x": (tarfile.SYMTYPE, "."), "y": (tarfile.SYMTYPE, "x/.."), "y__evil__z": (tarfile.SYMTYPE, "q")},
    ],
)
def test_a_link_that_leads_out_of_the_folder_stops_everything(tmp_path: Path, links: dict) -> None:
    archive = write_tar(tmp_path / "a.tgz", {"good.txt": b"good"}, **links)
    with pytest.raises(ValueError, match=r"the link .* leads out of the folder"):
        unpack(archive, tmp_path / "deep" / "root")
    assert contents(tmp_path) == {"a.tgz": archive.read_bytes()}
    assert not list((tmp_path / "deep" / "root").iterdir())


def test_a_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        archive.addfile(link)
        info = tarfile.TarInfo("link/evil")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(ValueError):
        unpack(path, tmp_path / "root")
    assert not list((tmp_path / "outside").iterdir())


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    links = {"a__same": (tarfile.LNKTYPE, "a/b"), "a__soft": (tarfile.SYMTYPE, "b")}
    unpack(write_tar(tmp_path / "a.tgz", {"a/b": b"content"}, **links), tmp_path / "root")
    assert (tmp_path / "root/a/same").read_bytes() == b"content"
    assert os.readlink(tmp_path / "root/a/soft") == "b"
    assert (tmp_path / "root/a/soft").read_bytes() == b"content"


def test_a_hard_link_to_the_outside_and_a_device_are_refused(tmp_path: Path) -> None:
    for name, change in {"hard": (tarfile.LNKTYPE, "../secret"), "dev": (tarfile.CHRTYPE, "")}.items():
        archive = write_tar(tmp_path / f"{name}.tgz", {"a": b"a"}, evil=change)
        with pytest.raises(ValueError, match=r"leads out of the folder|a device or a pipe"):
            unpack(archive, tmp_path / "root")
    missing = write_tar(tmp_path / "missing.tgz", {"a": b"a"}, evil=(tarfile.LNKTYPE, "nowhere"))
    with pytest.raises(ValueError, match="hard link 'evil' to 'nowhere', which is no file in it"):
        unpack(missing, tmp_path / "root")


def test_a_symbolic_link_in_a_zip_is_checked(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "../../outside")
    with pytest.raises(ValueError, match="leads out"):
        unpack(path, tmp_path / "root")


def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", FILES, compression=zipfile.ZIP_STORED)
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"jpegjpeg", b"JPEGjpeg", 1))
    with pytest.raises(
        ValueError, match=r"a\.zip, member DAVIS/JPEGImages/480p/dog/00000\.jpg, is damaged \(Bad CRC"
    ):
        unpack(archive, tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


@pytest.mark.parametrize("form", ["w:", "w:gz"])
def test_a_tar_that_was_cut_off_is_named(tmp_path: Path, form: str) -> None:
    files = {"a": b"a" * 600, "b": np.random.default_rng(0).bytes(200_000)}
    archive = write_tar(tmp_path / "a.tgz", files, mode=form)
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"a\.tgz.* is damaged"):
        unpack(archive, tmp_path / "root")
    if form == "w:":  # just behind the first member
        archive.write_bytes(write_tar(tmp_path / "b.tar", files, mode="w:").read_bytes()[: 512 + 1024])
        with pytest.raises(ValueError, match="cut off"):
            unpack(archive, tmp_path / "root")


def test_damage_inside_a_compressed_tar_is_named(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tgz", {"a": np.random.default_rng(0).bytes(200_000)})
    content = bytearray(archive.read_bytes())
    content[-8:-4] = b"\0\0\0\0"  # the checksum of gzip
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tgz.* is damaged"):
        unpack(archive, tmp_path / "root")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!doctype html><html>", "is a web page"),
        (b"Rar!\x1a\x07", "is a RAR archive"),
        (b"nonsense", "no zip or tar archive"),
        (b"", "no zip or tar archive"),
        (b"PK\x03\x04 cut", "is damaged"),
        (gzip.compress(b"no tar"), "is damaged"),
    ],
)
def test_what_is_no_archive_is_explained(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        unpack(tmp_path / "a.zip", tmp_path / "root")


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_what_cannot_fit_is_refused_before_it_fills_the_disk(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = write_zip if form == "zip" else write_tar
    archive = write(tmp_path / "bomb", {"zeros": bytes(50_000_000)})
    assert archive.stat().st_size < 100_000
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 10_000_000))
    with pytest.raises(OSError, match=r"needs 0\.05 GB, 0\.01 GB are free"):
        unpack(archive, tmp_path / "root")
    assert not [path for path in (tmp_path / "root").rglob("*") if path.name == "zeros"]


def test_a_strip_that_leaves_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gives no files with strip=9"):
        unpack(write_zip(tmp_path / "a.zip", FILES), tmp_path / "root", strip=9)


def test_a_file_where_a_folder_belongs_is_explained(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "JPEGImages").write_bytes(b"")
    with pytest.raises(ValueError, match="JPEGImages is a file, the archive holds the opposite"):
        unpack(write_zip(tmp_path / "a.zip", FILES), tmp_path / "root", strip=1)


def test_after_a_kill_whole_members_are_not_written_again(tmp_path: Path) -> None:
    files = {f"a/{index:03d}": bytes([index]) * 1000 for index in range(200)}
    archive, root = write_tar(tmp_path / "a.tgz", files), tmp_path / "root"
    killed = textwrap.dedent(f"""
        import os
        from vosssl.data.archives import unpack
        seen = []
        def count(size):
            seen.append(size)
            if len(seen) == 100:
                os._exit(9)
        unpack({str(archive)!r}, {str(root)!r}, progress=count)
        """)
    subprocess.run([sys.executable, "-c", killed], check=False)
    assert not (root / "a").exists()
    (staged,) = [path for path in root.iterdir() if path.is_dir()]
    first = staged / "a" / "000"
    written = first.stat().st_mtime_ns
    time.sleep(0.01)
    assert unpack(archive, root)
    assert contents(root) == files
    assert (root / "a" / "000").stat().st_mtime_ns == written
    assert [path.name for path in root.iterdir()] == ["a"]


def test_a_kill_during_the_merge_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, root = write_zip(tmp_path / "a.zip", FILES), tmp_path / "root"

    def broken(source: Path, target: Path) -> None:
        os.rename(source / "Annotations", target / "Annotations")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives, "merge", broken)
        with pytest.raises(KeyboardInterrupt):
            unpack(archive, root, strip=1)
    assert unpack(archive, root, strip=1)
    assert contents(root) == STRIPPED
