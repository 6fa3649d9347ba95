"""Headers of many video files: opened once, and again when they change."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.data.videos import write_video
from vosssl.data import headers
from vosssl.data.folders import VideoFiles
from vosssl.data.headers import Header, index_of, read_header, read_headers


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Videos of 4, 5 and 6 frames."""
    paths = [tmp_path / "videos" / f"{count}.mp4" for count in (4, 5, 6)]
    for path, count in zip(paths, (4, 5, 6), strict=True):
        write_video(path, frames=count)
    return paths


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were opened."""
    names: list[str] = []

    def read(path: Path) -> Header:
        names.append(path.name)
        return read_header(path)

    monkeypatch.setattr(headers, "read_header", read)
    return names


def test_files_are_opened_once_and_again_when_they_change(
    tmp_path: Path, files: list[Path], opened: list[str]
) -> None:
    index = tmp_path / "cache" / "index.json"
    first = read_headers(files, index=index)
    assert [first[path].frame_count for path in files] == [4, 5, 6]
    assert {header.size for header in first.values()} == {(48, 64)}
    assert sorted(opened) == ["4.mp4", "5.mp4", "6.mp4"]
    assert read_headers(files, index=index) == first
    assert len(opened) == 3
    write_video(files[1], frames=9)
    os.utime(files[1], ns=(1, 1))
    assert read_headers(files, index=index)[files[1]].frame_count == 9
    assert opened[3:] == ["5.mp4"]
    assert read_headers(files[:1], index=None)[files[0]].frame_count == 4
    assert opened[4:] == ["4.mp4"]  # without an index
    assert list(index.parent.iterdir()) == [index]


def test_a_damaged_index_is_made_anew(
    tmp_path: Path, files: list[Path], opened: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    index = tmp_path / "index.json"
    for damage in ('{"a": [1', "[]", '{"a": [1, 2]}'):
        index.write_text(damage)
        with caplog.at_level(logging.WARNING):
            assert len(read_headers(files, index=index)) == 3
        assert "is damaged and is made anew" in caplog.text
    assert len(read_headers(files, index=index)) == 3
    assert len(opened) == 9


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_kept(
    tmp_path: Path, files: list[Path], opened: list[str]
) -> None:
    files[2].write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"6\.mp4"):
        read_headers(files, index=tmp_path / "index.json", threads=1)
    opened.clear()
    read_headers(files[:2], index=tmp_path / "index.json")
    assert opened == []


def test_an_index_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert len(read_headers(files, index=tmp_path / "file" / "index.json")) == 3
    assert "cannot be kept" in caplog.text


def test_a_training_set_of_video_files_uses_the_index(
    tmp_path: Path, files: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOSSSL_HOME", str(tmp_path / "home"))
    folder = files[0].parent
    own = tmp_path / "own.json"
    assert [len(VideoFiles(folder, num_frames=5, index=own)) for _ in range(2)] == [2, 2]
    assert own.is_file() and len(opened) == 3
    VideoFiles(folder, num_frames=5)
    assert not index_of(folder).exists()  # three files are no reason for one
    opened.clear()
    VideoFiles(folder)
    assert opened == []  # whole videos may be of any length
    monkeypatch.setattr("vosssl.data.folders.MANY", 3)
    VideoFiles(folder, num_frames=5)
    assert index_of(folder).is_relative_to(tmp_path / "home")
    assert index_of(folder).is_file()
