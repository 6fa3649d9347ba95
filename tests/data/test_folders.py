"""The JPEGImages/Annotations layout and folders of video files, whole and damaged."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch

from tests.data.videos import (
    SIZE,
    frame_of,
    labels_of,
    number_shown,
    write_dataset,
    write_sequence,
    write_video,
)
from vosssl.clip import Clip
from vosssl.data.clips import VideoClips
from vosssl.data.folders import FolderDataset, VideoFiles, read_split
from vosssl.data.io import write_image
from vosssl.data.sampling import ClipLoader, Draw
from vosssl.data.transforms import Compose, HorizontalFlip, RandomCrop
from vosssl.data.video import clip_video

DAVIS = {"images": "JPEGImages/480p", "annotations": "Annotations/480p"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three sequences of 6, 9 and 4 frames, and both kinds of split files."""
    write_dataset(tmp_path, {"bear": 6, "camel": 9, "dog": 4})
    sets = tmp_path / "ImageSets"
    sets.mkdir()
    (sets / "val.txt").write_text("dog\nbear\n\n")
    pairs = [f"/JPEGImages/480p/camel/{n:05d}.jpg /Annotations/480p/camel/{n:05d}.png" for n in (2, 3, 4)]
    (sets / "pairs.txt").write_text("\n".join(pairs))
    return tmp_path


def starts_of(dataset: VideoClips, count: int) -> list[int]:
    return [int(dataset[Draw(0, seed)].frames[0, 0, 0, 0]) for seed in range(count)]


def test_videos_come_in_order_with_frames_and_labels(root: Path) -> None:
    dataset = FolderDataset(root, **DAVIS)
    assert [(video.name, len(video)) for video in dataset.videos()] == [("bear", 6), ("camel", 9), ("dog", 4)]
    frames = list(dataset.videos()[1])
    assert torch.equal(frames[3].image, frame_of(53))
    assert frames[3].labels is not None and torch.equal(frames[3].labels, labels_of(3))


def test_a_split_file_names_videos_or_pairs_of_files(root: Path) -> None:
    named = FolderDataset(root, split_file="ImageSets/val.txt", **DAVIS)
    assert [video.name for video in named.videos()] == ["dog", "bear"]
    paired = FolderDataset(root, split_file=root / "ImageSets" / "pairs.txt", **DAVIS)
    (video,) = paired.videos()
    assert (video.name, video.frame_names) == ("camel", ("00002", "00003", "00004"))
    assert FolderDataset(root, sequences=["camel"], **DAVIS).videos()[0].name == "camel"
    (root / "odd.txt").write_text("\ufeff# a comment\r\nbear \r\n/JPEGImages/dog/1.jpg\r\n")
    assert read_split(root / "odd.txt") == {"bear": None, "dog": ["1"]}


def test_a_split_file_cannot_name_places_outside_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("dog\n../../elsewhere\n")
    with pytest.raises(ValueError, match=r"val\.txt names \.\./\.\./elsewhere, which lies outside"):
        read_split(tmp_path / "val.txt")


def test_a_clip_is_a_function_of_its_draw(root: Path) -> None:
    dataset = FolderDataset(root, num_frames=3, stride=2, **DAVIS)
    assert len(dataset) == 2  # the dog is too short for 5 frames
    clip = dataset[Draw(1, 7)]
    again = dataset[Draw(1, 7)]
    assert clip.frames.shape == (3, 3, *SIZE)
    assert clip.frame_names == again.frame_names
    numbers = clip.frames[:, 0, 0, 0].tolist()
    assert numbers == [numbers[0], numbers[0] + 2, numbers[0] + 4]
    assert clip.labels is not None
    assert torch.equal(clip.labels[0], labels_of(numbers[0] - 50))


def test_every_place_in_a_video_is_equally_likely(root: Path) -> None:
    dataset = FolderDataset(root, num_frames=2, sequences=["bear"], **DAVIS)
    counts = torch.bincount(torch.tensor(starts_of(dataset, 400)), minlength=5)
    assert counts.shape == (5,)
    assert counts.min() > 50  # 80 expected
    assert counts.max() < 110


def test_strides_are_drawn_from_those_that_fit(root: Path) -> None:
    dataset = FolderDataset(root, num_frames=3, stride=(1, 9), sequences=["camel"], **DAVIS)
    strides = set()
    for seed in range(60):
        numbers = dataset[Draw(0, seed)].frames[:, 0, 0, 0].tolist()
        assert numbers[0] >= 50 and numbers[2] <= 58
        strides.add(numbers[1] - numbers[0])
    assert strides == {1, 2, 3, 4}


def test_short_videos_are_left_out_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = FolderDataset(root, num_frames=5, **DAVIS)
    assert "1 of 3 videos are shorter than the 5 frames" in caplog.text
    assert (len(dataset), len(dataset.videos())) == (2, 3)
    with pytest.raises(ValueError, match="take fewer frames or a smaller stride"):
        FolderDataset(root, num_frames=20, **DAVIS)


def test_transform_and_loader_see_the_draws_seed(root: Path) -> None:
    transform = Compose([RandomCrop((16, 20)), HorizontalFlip()])
    dataset = FolderDataset(root, num_frames=2, clips_per_video=2, transform=transform, **DAVIS)
    assert len(dataset) == 6
    batches = [
        next(ClipLoader(dataset, batch_size=6, workers=workers).batches(start_step=3)) for workers in (0, 1)
    ]
    assert batches[0].frames.shape == (6, 2, 3, 16, 20)
    assert torch.equal(batches[0].frames, batches[1].frames)
    assert batches[0].labels is not None and batches[1].labels is not None
    assert torch.equal(batches[0].labels, batches[1].labels)


def test_own_footage_needs_no_labels_and_no_subfolders(tmp_path: Path) -> None:
    write_sequence(tmp_path / "cat" / "one")
    write_sequence(tmp_path / "cat" / "two")
    dataset = FolderDataset(tmp_path / "cat", images="", annotations=None, num_frames=2)
    assert len(dataset) == 2
    assert dataset[0].labels is None
    single = FolderDataset(tmp_path / "cat" / "one", images="", annotations=None)
    assert [video.name for video in single.videos()] == ["one"]


def test_a_first_frame_may_be_all_that_is_labelled(root: Path) -> None:
    for number in range(1, 9):
        (root / "Annotations" / "480p" / "camel" / f"{number:05d}.png").unlink()
    with pytest.raises(ValueError, match=r"8 of 9 frames of video camel have no labels .*pass labels=first"):
        FolderDataset(root, **DAVIS)
    dataset = FolderDataset(root, labels="first", **DAVIS)
    flags = dataset.videos()[1].labelled
    assert flags is not None and flags.tolist() == [True] + [False] * 8
    (root / "Annotations" / "480p" / "camel" / "00000.png").unlink()
    with pytest.raises(ValueError, match="1 of 9 frames of video camel"):
        FolderDataset(root, labels="first", **DAVIS)
    assert FolderDataset(root, labels="some", **DAVIS).videos()[1].labelled is None
    shutil.rmtree(root / "Annotations" / "480p" / "camel")
    with pytest.raises(ValueError, match="no such folder"):
        FolderDataset(root, **DAVIS)


def test_a_misplaced_root_is_found_again(root: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no dataset at .*nowhere: pass the folder it was unpacked to"
    ):
        FolderDataset(root / "nowhere", **DAVIS)
    with pytest.raises(FileNotFoundError, match=r"holds no folder JPEGImages/480p.*does: pass root="):
        FolderDataset(root / "ImageSets", **DAVIS)
    with pytest.raises(FileNotFoundError, match=r"does: pass root="):
        FolderDataset(root.parent, **DAVIS)
    with pytest.raises(FileNotFoundError, match=r"frames were found in .*: pass images=JPEGImages/480p"):
        FolderDataset(root, images="JPEGImages/1080p", annotations=None)
    with pytest.raises(ValueError, match=r"480p is no folder of frames.*pass images=JPEGImages/480p"):
        FolderDataset(root, images="JPEGImages", annotations="Annotations")
    with pytest.raises(FileNotFoundError, match=r"put the labels there, .* annotations=null for footage"):
        FolderDataset(root, images="JPEGImages/480p", annotations="Masks")


def test_empty_and_partial_datasets_are_named(root: Path) -> None:
    (root / "JPEGImages" / "480p" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no frames in .*empty: .*but it is empty"):
        FolderDataset(root, images="JPEGImages/480p", annotations=None)
    (root / "bare" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no video folders in .*JPEGImages: but it is empty"):
        FolderDataset(root / "bare", annotations=None)
    (root / "ImageSets" / "val.txt").write_text("dog\nzebra\n")
    with pytest.raises(ValueError, match=r"1 of 2 videos in .* are not in .* \(such as zebra"):
        FolderDataset(root, split_file="ImageSets/val.txt", **DAVIS)
    with pytest.raises(FileNotFoundError, match=r"no split file .*test\.txt; .*found pairs\.txt, val\.txt"):
        FolderDataset(root, split_file="ImageSets/test.txt", **DAVIS)
    with pytest.raises(ValueError, match="no videos zebra"):
        FolderDataset(root, sequences=["zebra"], **DAVIS)


def test_frames_of_different_sizes_stop_the_training_by_name(root: Path) -> None:
    write_image(root / "JPEGImages" / "480p" / "dog" / "00001.png", frame_of(0, size=(24, 40)))
    dataset = FolderDataset(root, sequences=["dog"], **DAVIS)
    with pytest.raises(ValueError, match=r"dog/00001\.png is 40 wide and 24 high"):
        dataset[0]


def test_a_folder_of_video_files_is_a_training_set(tmp_path: Path) -> None:
    write_video(tmp_path / "b" / "two.avi", frames=8)
    write_video(tmp_path / "one.mp4", frames=12)
    (tmp_path / "notes.txt").write_text("not a video")
    dataset = VideoFiles(tmp_path, num_frames=3, stride=2, size=24)
    assert [video.name for video in dataset.videos()] == ["two", "one"]
    clip = dataset[Draw(1, 3)]
    assert clip.frames.shape == (3, 3, 24, 32)
    first = number_shown(clip.frames[0])
    assert [number_shown(frame) for frame in clip.frames] == [first, first + 2, first + 4]
    assert len(VideoFiles(tmp_path / "one.mp4")) == 1
    with pytest.raises(ValueError, match="no videos in"):
        VideoFiles(tmp_path, sequences=["three"])
    with pytest.raises(FileNotFoundError, match="no folder of videos"):
        VideoFiles(tmp_path / "nowhere")


def test_the_fingerprint_changes_with_files_and_arguments(root: Path) -> None:
    prints = [
        FolderDataset(root, num_frames=2, transform=transform, **DAVIS).fingerprint()
        for transform in (None, RandomCrop(8), RandomCrop(9), None)
    ]
    assert len(set(prints)) == 3
    assert prints[0] == prints[3]
    write_image(root / "JPEGImages" / "480p" / "dog" / "00000.png", frame_of(99))
    assert FolderDataset(root, num_frames=2, **DAVIS).fingerprint() != prints[0]


def test_clips_can_be_drawn_from_any_videos() -> None:
    frames = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 4)
    dataset = VideoClips([clip_video(Clip("made", frames))], num_frames=2, stride=3)
    assert {tuple(clip.frames[:, 0, 0, 0].tolist()) for clip in (dataset[Draw(0, s)] for s in range(20))} == {
        (0, 3),
        (1, 4),
    }
    with pytest.raises(ValueError, match="expected 1 or more"):
        VideoClips([], num_frames=2, stride=(3, 2))
