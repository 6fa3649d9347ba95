"""The truth of videos, read as predictions are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vosssl.clip import Clip
from vosssl.data.folders import FolderDataset
from vosssl.data.io import write_image, write_labels
from vosssl.data.video import FirstFrames, clip_video
from vosssl.data.video_truth import VideoTruth


def clip(name: str) -> Clip:
    frames = torch.zeros(4, 3, 6, 8, dtype=torch.uint8)
    labels = torch.arange(4, dtype=torch.uint8)[:, None, None].expand(4, 6, 8).contiguous()
    return Clip(name, frames, labels, torch.tensor([True, False, True, True]))


def test_only_labelled_frames_are_frames_of_the_truth() -> None:
    truth = VideoTruth([clip_video(clip("a")), FirstFrames(clip_video(clip("b")), 3)])
    assert truth.sequences == ("a", "b") and not truth.on_disk
    assert truth.frames("a") == ("00000", "00002", "00003")
    assert truth.frames("b") == ("00000", "00002")
    assert torch.equal(truth.labels("b", "00002"), torch.full((6, 8), 2, dtype=torch.uint8))
    with pytest.raises(FileNotFoundError, match="frame 00001 of a"):
        truth.labels("a", "00001")
    with pytest.raises(FileNotFoundError, match="no sequence c"):
        truth.frames("c")


def test_files_of_labels_are_read_without_their_images(tmp_path: Path) -> None:
    for time in range(3):
        write_image(tmp_path / "JPEGImages/a" / f"{time}.png", torch.zeros(3, 6, 8, dtype=torch.uint8))
        write_labels(tmp_path / "Annotations/a" / f"{time}.png", torch.full((6, 8), 255, dtype=torch.uint8))
    dataset = FolderDataset(tmp_path, binary=True)
    truth = VideoTruth([FirstFrames(video, 2) for video in dataset.videos()])
    for time in (1, 2):
        (tmp_path / "JPEGImages/a" / f"{time}.png").write_bytes(b"")
    assert truth.on_disk and truth.path == tmp_path / "Annotations"
    assert truth.frames("a") == ("0", "1")
    assert truth.where("a", "1") == str(tmp_path / "Annotations/a/1.png")
    assert int(truth.labels("a", "1").unique()) == 1, "255 is the one object here"


def test_videos_without_labels_and_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="no frame of bare has labels"):
        VideoTruth([clip_video(Clip("bare", clip("a").frames))])
    with pytest.raises(ValueError, match="two videos are called a"):
        VideoTruth([clip_video(clip("a")), clip_video(clip("a"))])
