"""Videos of every kind give the same frames, lazily, and say clearly what is wrong with a path."""

from __future__ import annotations

import logging
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
from vosssl.data import sources
from vosssl.data.io import write_image, write_labels
from vosssl.data.listing import natural_order
from vosssl.data.video import Video, clip_video, load_clip, open_video


def test_a_davis_sequence_comes_with_the_labels_beside_it(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"dog": 4})
    video = open_video(tmp_path / "JPEGImages" / "480p" / "dog")
    assert (video.name, video.size, len(video)) == ("dog", SIZE, 4)
    for number, frame in enumerate(video):
        assert frame.name == f"{number:05d}"
        assert torch.equal(frame.image, frame_of(number))
        assert frame.labels is not None
        assert torch.equal(frame.labels, labels_of(number))


def test_images_and_masks_folders_belong_together_too(tmp_path: Path) -> None:
    write_sequence(
        tmp_path / "images" / "judo", annotations=tmp_path / "masks" / "judo", labelled=range(0, 6, 5)
    )
    video = open_video(tmp_path / "images" / "judo")
    assert [frame.labels is not None for frame in video] == [True, False, False, False, False, True]
    clip = video.clip([0, 1])
    assert clip.labels is not None
    assert clip.labels[1].unique().tolist() == [255]
    assert clip.labelled is not None
    assert clip.labelled.tolist() == [True, False]
    assert open_video(tmp_path / "images" / "judo", annotations=None).labelled is None


def test_frames_follow_the_numbers_in_their_names(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        write_image(tmp_path / f"shot{number}.png", frame_of(number))
    assert [frame.name for frame in open_video(tmp_path)] == ["shot9", "shot10", "shot100"]
    assert sorted(["b", "a2", "a10", "3"], key=natural_order) == ["3", "a2", "a10", "b"]


def test_a_video_file_is_a_video(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "clip.mp4"))
    assert (video.name, video.size, len(video)) == ("clip", (48, 64), 12)
    frames = list(video)
    assert [number_shown(frame.image) for frame in frames] == list(range(12))
    assert [frame.name for frame in frames][:2] == ["00000", "00001"]
    clip = video.clip([7, 2, -1])
    assert [number_shown(frame) for frame in clip.frames] == [7, 2, 11]


def test_labels_beside_a_video_file_are_found_by_frame_number(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4")
    write_labels(tmp_path / "mine" / "00003.png", torch.ones(48, 64, dtype=torch.uint8))
    video = open_video(tmp_path / "clip.mp4", annotations=tmp_path / "mine")
    assert video.labelled is not None
    assert video.labelled.nonzero().flatten().tolist() == [3]


def test_a_header_that_promises_too_much_is_corrected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video = open_video(write_video(tmp_path / "clip.mp4"))
    assert isinstance(video, sources.FileVideo)
    video._header = video.header._replace(frame_count=20)
    with caplog.at_level(logging.WARNING):
        assert len(video) == 12
    assert "12 frames can be decoded, promised were 20" in caplog.text


def test_a_clip_in_memory_is_a_video() -> None:
    frames = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.ones(3, 4, 5, dtype=torch.uint8)
    clip = Clip("made", frames, labels, torch.tensor([True, False, True]))
    video = clip_video(clip)
    seen = list(video)
    assert [frame.labels is not None for frame in seen] == [True, False, True]
    assert torch.equal(seen[1].image, (frames[1] * 255).round().to(torch.uint8))
    assert isinstance(video, Video)


@pytest.mark.parametrize("depth", [0, 2])
def test_reading_ahead_changes_no_frame_and_leaves_no_thread(tmp_path: Path, depth: int) -> None:
    video = open_video(write_sequence(tmp_path / "a"), read_ahead=depth)
    assert [int(frame.image[0, 0, 0]) for frame in video] == list(range(6))
    half = iter(video)
    next(half)
    half.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_resizing_takes_labels_along_without_new_ids(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"dog": 2})
    path = tmp_path / "JPEGImages" / "480p" / "dog"
    assert open_video(path, size=12).size == (12, 16)
    assert open_video(path, size=100).size == SIZE  # never enlarged
    clip = load_clip(path, size=(10, 10))
    assert clip.frames.shape == (2, 3, 10, 10)
    assert clip.labels is not None
    assert set(clip.labels.unique().tolist()) <= {0, 1, 2}


def test_reduced_decoding_is_close_to_decoding_in_full(tmp_path: Path) -> None:
    rows, columns = torch.meshgrid(torch.arange(240), torch.arange(320), indexing="ij")
    image = torch.stack([rows, columns * 0.7, rows * 0 + 40]).to(torch.uint8)
    write_image(tmp_path / "a" / "00000.jpg", image)
    write_image(tmp_path / "b" / "00000.png", image)
    small = [load_clip(tmp_path / name, size=56).frames.float() for name in "ab"]
    assert small[0].shape[-2:] == (56, 75)
    assert (small[0] - small[1]).abs().mean() < 2


def test_a_clip_takes_the_frames_that_were_asked_for(tmp_path: Path) -> None:
    path = write_sequence(tmp_path / "a", frames=9)
    clip = load_clip(path, start=2, frames=3, stride=3)
    assert clip.frame_names == ("00002", "00005", "00008")
    assert clip.frames[:, 0, 0, 0].tolist() == [2, 5, 8]
    assert len(load_clip(path, stride=4)) == 3
    with pytest.raises(ValueError, match=r"has frames 0\.\.8, asked for 2\.\.11"):
        load_clip(path, start=2, frames=4, stride=3)
    with pytest.raises(ValueError, match="no frame of video a was asked for"):
        load_clip(path, start=9)


def test_a_clip_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CLIP_LIMIT", 10_000)
    path = write_sequence(tmp_path / "a")
    assert len(load_clip(path, frames=4)) == 4
    with pytest.raises(ValueError, match="or iterate the video"):
        load_clip(path)


def test_binary_labels_have_to_be_declared(tmp_path: Path) -> None:
    write_sequence(tmp_path / "JPEGImages" / "dog")
    truth = np.zeros(SIZE, np.uint8)
    truth[3:9] = 255
    (tmp_path / "Annotations" / "dog").mkdir(parents=True)
    Image.fromarray(truth).save(tmp_path / "Annotations" / "dog" / "00000.png")
    path = tmp_path / "JPEGImages" / "dog"
    with pytest.raises(ValueError, match="hold only 0 and 255"):
        open_video(path).clip([0])
    object_labels, void_labels = (
        open_video(path, binary=binary).clip([0]).labels for binary in (True, False)
    )
    assert object_labels is not None and object_labels.unique().tolist() == [0, 1]
    assert void_labels is not None and void_labels.unique().tolist() == [0, 255]


def test_frames_of_different_sizes_are_refused_by_name(tmp_path: Path) -> None:
    path = write_sequence(tmp_path / "a", frames=3)
    write_image(path / "00002.png", frame_of(0, size=(24, 31)))
    with pytest.raises(
        ValueError, match=r"00002\.png is 31 wide and 24 high, the first frame of video a is 32"
    ):
        list(open_video(path))


def test_labels_one_pixel_too_narrow_are_refused_or_stretched(tmp_path: Path) -> None:
    path = write_sequence(tmp_path / "images" / "a", frames=2, annotations=tmp_path / "masks" / "a")
    write_labels(tmp_path / "masks" / "a" / "00001.png", labels_of(1, size=(24, 31)))
    with pytest.raises(ValueError, match="31 wide and 24 high, their frame is 32 wide"):
        list(open_video(path))
    assert len(list(open_video(path, on_wrong_size="resize"))) == 2


def test_labels_of_other_frames_are_noticed(tmp_path: Path) -> None:
    path = write_sequence(tmp_path / "a", frames=2)
    write_labels(tmp_path / "mine" / "frame7.png", labels_of(0))
    with pytest.raises(ValueError, match=r"labels like frame7, frames like 00000"):
        open_video(path, annotations=tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="no folder of annotations"):
        open_video(path, annotations=tmp_path / "nowhere")


def test_a_wrong_path_is_explained(tmp_path: Path) -> None:
    write_dataset(tmp_path / "davis", {"dog": 2})
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no video .*davos: .* found davis/, empty/"):
        open_video(tmp_path / "davos")
    with pytest.raises(ValueError, match="but it is empty"):
        open_video(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"did you mean .*JPEGImages/480p/dog\?"):
        open_video(tmp_path / "davis")
    with pytest.raises(ValueError, match="is a single image; pass the folder"):
        open_video(tmp_path / "davis" / "JPEGImages" / "480p" / "dog" / "00000.png")
    write_image(tmp_path / "davis" / "JPEGImages" / "480p" / "dog" / "00000.jpg", frame_of(0))
    with pytest.raises(ValueError, match=r"two images for one frame .*00000"):
        open_video(tmp_path / "davis" / "JPEGImages" / "480p" / "dog")


def test_a_camera_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no frame can be read from camera 97"):
        open_video("97")


def test_videos_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"dog": 2})
    for source in (tmp_path / "JPEGImages" / "480p" / "dog", write_video(tmp_path / "a.mp4")):
        video = pickle.loads(pickle.dumps(open_video(source)))
        assert len(video.clip([0, 1])) == 2
