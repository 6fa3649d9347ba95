"""Video files as they come from disk, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from tests.data.videos import number_shown, write_video
from vosssl.data.video_io import VideoReader, VideoWriter


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".mkv"])
def test_a_video_file_is_read_frame_by_frame(tmp_path: Path, suffix: str) -> None:
    with VideoReader(write_video(tmp_path / f"a{suffix}", frames=20)) as reader:
        assert reader.size == (48, 64)
        assert reader.fps == pytest.approx(25)
        assert reader.frame_count == 20
        assert [number_shown(frame) for frame in reader] == list(range(20))


def test_seeking_arrives_exactly(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4", frames=60)) as reader:
        for index in (57, 3, 4, 30, 0, 59):
            reader.seek(index)
            assert number_shown(reader.read()) == index
        with pytest.raises(ValueError, match="ends after 60 frames, asked for frame 70"):
            reader.seek(70)


def test_a_file_that_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(write_video(tmp_path / "b.mp4").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"video file .*a\.mp4: truncated"):
        VideoReader(tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError, match=r"no video file .*c\.mp4"):
        VideoReader(tmp_path / "c.mp4")


def test_a_video_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=5)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="frames before it were"), VideoWriter(path) as writer:
        writer.write(torch.zeros(3, 48, 64, dtype=torch.uint8))
        writer.write(torch.zeros(3, 50, 64, dtype=torch.uint8))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_short_videos_are_written_whole(tmp_path: Path, count: int) -> None:
    for suffix in (".mp4", ".webm", ".avi"):
        with VideoReader(write_video(tmp_path / f"a{suffix}", frames=count)) as reader:
            assert sum(1 for _ in reader) == count


def test_a_video_that_opencv_failed_to_write_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoReader, "_open", lambda self: (_ for _ in ()).throw(ValueError("no frame")))
    with pytest.raises(OSError, match="only 0 of 12 frames could be written"):
        write_video(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_video_suffix_and_an_empty_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a name ending in \.mp4"):
        VideoWriter(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="no frame was written"), VideoWriter(tmp_path / "a.mp4"):
        pass


def test_opencv_decodes_what_it_wrote_in_the_same_colours(tmp_path: Path) -> None:
    red = torch.tensor([200, 20, 20], dtype=torch.uint8)[:, None, None].expand(3, 48, 64)
    with VideoWriter(tmp_path / "a.avi") as writer:
        writer.write(red)
    pixels = cv2.VideoCapture(str(tmp_path / "a.avi")).read()[1]
    assert pixels[..., 2].mean() > 180 > 60 > pixels[..., 0].mean()  # OpenCV's order is BGR
