"""Frames by their number: any order gives the same frames, few are kept, a camera can be gone back to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vosssl.clip import Clip, Frame
from vosssl.data.frame_reader import FrameReader, LiveReader, has_end, open_frames
from vosssl.data.io import write_image
from vosssl.data.video import Video, clip_video, open_video
from vosssl.data.video_io import VideoWriter


def images(count: int) -> torch.Tensor:
    """(T, 3, 16, 24) uint8, each frame of one grey."""
    return (torch.arange(count, dtype=torch.uint8) * 2)[:, None, None, None].expand(-1, 3, 16, 24).clone()


class Counting(Video):
    """Counts what is decoded."""

    def __init__(self, video: Video, *, ends: bool = True) -> None:
        super().__init__(video.name)
        self.stored, self.ends, self.decoded = video, ends, 0

    def __len__(self) -> int:
        if not self.ends:
            raise TypeError("live")
        return len(self.stored)

    @property
    def native_size(self) -> tuple[int, int]:
        return self.stored.size

    def _decode(self, indices, size) -> Iterator[Frame]:
        for frame in self.stored._decode(indices, size):
            self.decoded += 1
            yield frame


@pytest.mark.parametrize("order", [range(60), range(59, -1, -1), [5, 50, 4, 49, 5, 6, 58, 0]])
def test_any_order_gives_the_frames_of_these_numbers(order, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.avi") as writer:
        for image in images(60):
            writer.write(image)
    video = open_video(tmp_path / "a.avi")
    expected = [frame.image for frame in video]
    reader = FrameReader(video)
    assert len(reader) == 60
    for index in order:
        assert torch.equal(reader.read(index).image, expected[index])
        assert len(reader._kept) <= 32


def test_going_back_decodes_a_frame_twice_at_most() -> None:
    video = Counting(clip_video(Clip("a", images(100))))
    reader = FrameReader(video)
    for index in range(100):
        reader.read(index)
    assert video.decoded == 100
    for index in range(99, -1, -1):
        reader.read(index)
    assert video.decoded <= 200


def test_a_frame_that_is_not_there_is_told_with_what_is() -> None:
    reader = FrameReader(clip_video(Clip("a", images(3))))
    assert reader.has(2) and not reader.has(3) and not reader.has(-1)
    with pytest.raises(ValueError, match=r"frame 3 was asked for; video a has frames 0\.\.2"):
        reader.read(3)


def test_after_a_damaged_frame_others_can_be_read(tmp_path: Path) -> None:
    for index, image in enumerate(images(4)):
        write_image(tmp_path / f"{index}.png", image)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    reader = FrameReader(open_video(tmp_path))
    reader.read(1)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"2\.png"):
            reader.read(2)
    assert int(reader.read(3).image[0, 0, 0]) == 6


def test_a_camera_is_read_when_the_next_frame_is_asked_for_and_recorded(tmp_path: Path) -> None:
    camera = Counting(clip_video(Clip("cam", images(50))), ends=False)
    assert not has_end(camera)
    reader = open_frames(camera, folder=tmp_path / "frames")
    assert isinstance(reader, LiveReader) and reader.live and len(reader) == 0
    with pytest.raises(ValueError, match="frame 0 was asked for; of cam no frame was read yet"):
        reader.read(0)
    for index in range(50):
        assert reader.has(index) and int(reader.read(index).image[0, 0, 0]) == 2 * index
    assert camera.decoded == 50 and not reader.has(50) and not reader.live
    assert reader.read(0).name == "00000"
    assert abs(int(reader.read(0).image[0, 0, 0])) <= 2  # out of its JPEG
    assert len(open_video(tmp_path / "frames")) == 50
