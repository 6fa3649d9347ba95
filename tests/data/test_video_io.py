"""Video files as they come from disk, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from tests.data.videos import number_shown, write_video
from vosssl.data.video_io import Timeline, VideoReader, VideoWriter, read_timeline

UNEVEN = (
    Path(__file__).parents[1] / "goldens" / "video" / "uneven_bframes.mp4"
)  # 60 frames every 40 ms, then 100


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


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".mkv"])
def test_jumps_arrive_where_decoding_from_the_start_does(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", frames=200)
    with VideoReader(path) as reader:
        frames = list(reader)
    with VideoReader(path) as reader:
        for index in (150, 10, 199, 60, 61, 140, 0):
            reader.seek(index)
            assert torch.equal(reader.read(), frames[index])  # type: ignore[arg-type]


def test_jumps_are_exact_where_frames_follow_unevenly_and_depend_on_later_ones() -> None:
    """H.264 with B-frames, two frame rates; OpenCV alone arrives elsewhere (see the end)."""
    with VideoReader(UNEVEN) as reader:
        assert [number_shown(frame) for frame in reader] == list(range(160))
        times = reader.timeline.times
    assert times is not None
    assert len(times) == 160
    with VideoReader(UNEVEN) as reader:
        for index in (150, 59, 60, 159, 110, 80, 0, 130):
            reader.seek(index)
            assert number_shown(reader.read()) == index
    plain = cv2.VideoCapture(str(UNEVEN))
    plain.set(cv2.CAP_PROP_POS_FRAMES, 59)
    assert number_shown(torch.from_numpy(plain.read()[1]).permute(2, 0, 1)) != 59


def test_an_even_timeline_is_read_from_packets_alone(tmp_path: Path) -> None:
    timeline = read_timeline(write_video(tmp_path / "a.mp4", frames=30))
    assert timeline == Timeline(0.025)
    assert timeline.frame_at(80, 0) == 2
    assert timeline.frame_at(100, 0) is None  # half way between two frames
    assert timeline.frame_at(0, 40) is None  # before the first


def test_an_uneven_timeline_finds_frames_by_their_times() -> None:
    timeline = Timeline(0.02, (0.0, 40.0, 140.0))
    assert [timeline.frame_at(time, 0) for time in (0.0, 40.01, 140.0, 100.0)] == [0, 1, 2, None]
    assert [timeline.number(index) for index in range(3)] == [0, 0, 2]


def test_without_times_a_seek_decodes_from_the_start(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4", frames=120), timeline=Timeline(0, ())) as reader:
        for index in (100, 3, 119):
            reader.seek(index)
            assert number_shown(reader.read()) == index


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
