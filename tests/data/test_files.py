"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import pytest

from vosssl.data.files import atomic_write, path_inside, require_space


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_exchanged_when_the_body_ends(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "new" / "a.txt"
    with atomic_write(target, durable=durable) as temporary:
        temporary.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert os.listdir(target.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_after_an_error_the_old_file_is_intact(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(error)), atomic_write(target) as temporary:
        temporary.write_text("half of the new")
        raise error
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_killed_writers_left_behind_does_not_pile_up(tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        killed = textwrap.dedent(f"""
            import os
            from vosssl.data.files import atomic_write
            with atomic_write({str(tmp_path / "a.txt")!r}) as part:
                part.write_text({attempt!r})
                os._exit(9)
            """)
        subprocess.run([sys.executable, "-c", killed], check=False)
        assert len(os.listdir(tmp_path)) == 1
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with (
        pytest.raises(
            OSError,
            match=r"disk full while writing .*a\.txt: .* MB are free; the file .* is unchanged",
        ),
        atomic_write(target),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
def test_a_writer_on_a_really_full_device_is_understood(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="disk full while writing"),
        atomic_write(tmp_path / "a.txt") as temporary,
    ):
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x" * 100_000)
    assert os.listdir(tmp_path) == []


def test_what_cannot_fit_is_refused_before_it_starts(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "yet", 10, what="the cache")
    with pytest.raises(OSError, match=r"the cache needs 1000000\.00 GB"):
        require_space(tmp_path, 10**15, what="the cache")


def test_a_writer_that_hides_the_reason_is_judged_by_the_space_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1000, 1000, 0))
    with pytest.raises(OSError, match="disk full while writing"), atomic_write(tmp_path / "a.txt"):
        raise RuntimeError("unexpected pos 64 vs 0")  # what torch.save says


@pytest.mark.parametrize("name", ["..", "../a", "a/../../b", "/etc/passwd", "", ".", "a/.."])
def test_a_name_that_leads_out_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="names no place inside"):
        path_inside(tmp_path, name)


@pytest.mark.parametrize("name", ["dog", "day 1/dog", "..dog", "a..b/c..", "a/../b"])
def test_a_name_inside_a_folder_is_joined(tmp_path: Path, name: str) -> None:
    assert path_inside(tmp_path, name) == tmp_path / name
