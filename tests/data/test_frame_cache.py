"""Decoded frames in memory: never more than the budget, and the same clips with as without."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.data.videos import write_dataset, write_sequence, write_video
from vosssl.clip import Frame
from vosssl.data.folders import FolderDataset
from vosssl.data.frame_cache import FrameCache, frame_bytes, shared_frame_cache
from vosssl.data.image_folders import ImageDataset
from vosssl.data.sampling import Draw
from vosssl.data.transforms import Compose, HorizontalFlip, RandomResizedCrop
from vosssl.data.video import open_video
from vosssl.data.vos_clips import VosClips


def frame(value: int) -> Frame:
    """100 bytes: 75 of the image, 25 of the labels."""
    image = torch.full((3, 5, 5), value % 256, dtype=torch.uint8)
    return Frame(str(value), image, torch.zeros(5, 5, dtype=torch.uint8))


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    shared_frame_cache().clear()
    yield
    shared_frame_cache().clear()
    shared_frame_cache().resize(0)


def test_the_least_recently_used_frame_goes_first() -> None:
    cache = FrameCache(300)
    for number in range(3):
        cache.put(number, frame(number))
    assert cache.get(0) is not None
    cache.put(3, frame(3))
    assert cache.get(1) is None
    assert [cache.get(number) is not None for number in (0, 2, 3)] == [True] * 3
    assert cache.counts == (4, 1, 3, 300, 300)


def test_a_frame_larger_than_the_budget_is_not_kept_and_evicts_nothing() -> None:
    cache = FrameCache(150)
    cache.put("small", frame(1))
    cache.put("large", Frame("large", torch.zeros(3, 50, 50, dtype=torch.uint8)))
    assert cache.get("small") is not None
    assert cache.counts.bytes == 100


def test_part_of_a_tensor_counts_as_all_that_it_keeps_alive() -> None:
    assert frame_bytes(Frame("", torch.zeros(3, 50, 50, dtype=torch.uint8)[:, :5, :5])) == 7500


def test_a_smaller_budget_lets_go_at_once_and_a_negative_one_is_refused() -> None:
    cache = FrameCache(300)
    for number in range(3):
        cache.put(number, frame(number))
    cache.resize(100)
    assert cache.counts.bytes == 100
    assert cache.get(2) is not None
    with pytest.raises(ValueError, match="frame_cache is -1 bytes"):
        FrameCache(-1)


def test_threads_never_exceed_the_budget() -> None:
    cache = FrameCache(1000)

    def work(first: int) -> None:
        for number in range(300):
            cache.put((first + number) % 40, frame(number))
            cache.get(number % 40)

    threads = [threading.Thread(target=work, args=(10 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.counts.peak_bytes <= 1000
    assert cache.counts.bytes == 100 * cache.counts.frames


def test_clips_are_the_same_with_a_cache_and_the_second_time_decode_nothing(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, {"a": 6, "b": 8})
    transform = Compose([RandomResizedCrop(12), HorizontalFlip()])
    plain, cached = (
        FolderDataset(
            root,
            images="JPEGImages/480p",
            annotations="Annotations/480p",
            num_frames=3,
            transform=transform,
            frame_cache=budget,
        )
        for budget in (0, 1 << 20)
    )
    draws = [Draw(index, seed) for index in range(2) for seed in range(20)]
    for draw in draws + draws:
        assert torch.equal(plain[draw].frames, cached[draw].frames)
        assert torch.equal(plain[draw].labels, cached[draw].labels)  # type: ignore[arg-type]
    counts = shared_frame_cache().counts
    assert counts.misses <= 14  # every frame once
    assert counts.hits >= 2 * 3 * len(draws) - 14


def test_images_and_training_clips_of_their_videos_are_kept_too(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, {"a": 6})
    images = ImageDataset(root, images="JPEGImages/480p/a", num_frames=1, frame_cache=1 << 20)
    for _ in range(2):
        assert images[2].frames.shape[0] == 1
    assert shared_frame_cache().counts[:2] == (1, 1)
    shared_frame_cache().clear()
    videos = FolderDataset(
        root, images="JPEGImages/480p", annotations="Annotations/480p", frame_cache=1 << 20
    )
    clips = VosClips(videos, num_frames=3)
    for seed in range(20):
        assert torch.equal(clips[Draw(0, seed)].frames, clips[Draw(0, seed)].frames)
    assert shared_frame_cache().counts.misses == 6


def test_a_budget_of_a_few_frames_changes_no_clip(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "a.mp4", frames=30), annotations=None)
    expected = video.clip([3, 20, 3, 7])
    video.frame_cache = 2 * 3 * 48 * 64
    for _ in range(2):
        assert torch.equal(video.clip([3, 20, 3, 7]).frames, expected.frames)
    assert shared_frame_cache().counts.peak_bytes <= video.frame_cache


def test_no_frame_is_kept_unless_asked(tmp_path: Path) -> None:
    video = open_video(write_sequence(tmp_path / "a"))
    video.clip([0, 1])
    assert shared_frame_cache().counts == (0, 0, 0, 0, 0)
