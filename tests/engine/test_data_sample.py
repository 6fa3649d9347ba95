"""Samples of data: what is measured of them, and what many add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from vosssl.clip import Clip
from vosssl.data.clips import VideoClips
from vosssl.data.sampling import ClipLoader, Draw, Mix
from vosssl.data.synthetic import SyntheticClips
from vosssl.data.transforms import RandomResizedCrop
from vosssl.data.video import Video, clip_video
from vosssl.engine import data_sample
from vosssl.engine.data_sample import Tally, read_sample, read_video, videos_in


def clip_of(
    *,
    length: int = 4,
    labelled: Sequence[int] | None = None,
    void: bool = False,
    size: tuple[int, int] = (8, 16),
) -> Clip:
    """A clip with objects 1 and 9, the second from frame 1 on."""
    labels = torch.zeros(length, *size, dtype=torch.uint8)
    labels[:, :2, :2] = 1
    labels[1:, 4:6, 4:6] = 9
    if void:
        labels[:, : size[0] // 2, size[1] // 2 :] = 255
    flags = None
    if labelled is not None:
        flags = torch.tensor([t in labelled for t in range(length)])
        labels[~flags] = 255  # as Video.clip fills them
    names = tuple(f"img_{2 * t:03d}" for t in range(length))
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (length, 3, *size), generator=generator, dtype=torch.uint8)
    return Clip("a", frames, labels=labels, labelled=flags, frame_names=names)


def test_objects_and_void_are_counted_frame_by_frame() -> None:
    sample = read_video(clip_video(clip_of(void=True)))
    assert sample.ids == ((1,), (1, 9), (1, 9), (1, 9))
    assert sample.void == (0.25, 0.25, 0.25, 0.25)
    assert (sample.objects, sample.num_objects, sample.num_labelled) == ((1, 9), 2, 4)
    assert sample.gaps == (2, 2, 2)


def test_frames_without_labels_are_neither_void_nor_empty() -> None:
    sample = read_video(clip_video(clip_of(labelled=[0])))
    assert sample.ids == ((1,), None, None, None)
    assert sample.void[0] == sample.mean_void == 0
    assert all(math.isnan(share) for share in sample.void[1:])
    assert sample.clip.labels is not None
    assert not sample.clip.labels[1:].any()  # drawn as the frame alone


def test_small_objects_are_counted_before_the_picture_is_made_small() -> None:
    clip = clip_of(size=(60, 120))
    clip.labels[0, 30, 60] = 5  # type: ignore[index]
    sample = read_video(clip_video(clip), display_side=12)
    assert 5 in sample.objects
    assert sample.size == (60, 120)
    assert sample.clip.frames.shape == (4, 3, 6, 12)


def test_a_long_video_shows_its_labelled_frames_and_reads_a_few_at_a_time(monkeypatch) -> None:
    video = clip_video(clip_of(length=100, labelled=[7, 53]))
    sizes: list[int] = []
    read = Video.clip
    monkeypatch.setattr(Video, "clip", lambda self, i, **k: sizes.append(len(i)) or read(self, i, **k))
    monkeypatch.setattr(data_sample, "CHUNK_BYTES", 3 * 3 * 8 * 16)
    sample = read_video(video, max_frames=10)
    assert max(sizes) == 3
    assert len(sample.clip) == 10
    assert sample.length == 100
    assert {"img_000", "img_014", "img_106", "img_198"} <= set(sample.clip.frame_names)
    assert sample.num_labelled == 2


def test_a_sample_is_what_the_loader_feeds_the_model() -> None:
    videos = [clip_video(clip_of(length=30)) for _ in range(3)]
    dataset = VideoClips(videos, num_frames=3, stride=[1, 4], transform=RandomResizedCrop(8))
    loader = ClipLoader(dataset, batch_size=2, seed=5, prefetch=0)
    batch = next(loader.batches(1))
    samples = [read_sample(dataset, draw) for draw in loader.draws(1)]
    assert torch.equal(torch.stack([sample.clip.frames for sample in samples]), batch.frames)
    assert torch.equal(torch.stack([sample.clip.labels for sample in samples]), batch.labels)
    assert [sample.draw.step for sample in samples] == [1, 1]


def test_frames_in_reverse_and_frames_without_numbers_are_known() -> None:
    class Reversed:
        def __init__(self, names: tuple[str, ...]) -> None:
            self.names = names

        def __len__(self) -> int:
            return 1

        def __getitem__(self, draw: Draw | int) -> Clip:
            return Clip("r", torch.zeros(3, 3, 8, 8), frame_names=self.names)

    sample = read_sample(Reversed(("00009", "00005", "00004")), Draw(0))
    assert sample.gaps == (-4, -1)
    assert sample.is_reversed
    assert sample.num_objects is None
    assert read_sample(Reversed(("a", "b2", "c")), Draw(0)).gaps == ()


def test_flow_shrinks_with_its_picture() -> None:
    dataset = SyntheticClips(size=64, frames=2, count=2)
    whole, small = (read_sample(dataset, Draw(0), display_side=side) for side in (64, 32))
    assert torch.allclose(small.clip.flow, whole.clip.flow[..., 1::2, 1::2] / 2)


def test_a_tally_adds_samples_up() -> None:
    dataset = VideoClips([clip_video(clip_of())])
    tally = Tally.of(videos_in(dataset), clips=len(dataset))
    for labelled in ([0], None):
        tally.add(read_video(clip_video(clip_of(labelled=labelled))))
    tally.add(read_video(clip_video(Clip("b", torch.zeros(2, 3, 4, 4, dtype=torch.uint8)))))
    assert (tally.videos, tally.frames, tally.clips, tally.samples) == (1, 4, 1, 3)
    assert (tally.frames_shown, tally.frames_labelled, tally.unlabelled) == (10, 5, 1)
    assert dict(tally.objects) == {1: 1, 2: 1}
    assert dict(tally.sizes) == {"16 x 8": 2, "4 x 4": 1}
    assert "3 samples" in tally.line()


def test_videos_of_a_mix_are_those_of_its_parts_and_generated_ones_are_not_listed() -> None:
    dataset = VideoClips([clip_video(clip_of())])
    generated = SyntheticClips(size=16, frames=2, count=5)
    assert len(videos_in(Mix([dataset, dataset])) or ()) == 2
    assert videos_in(SimpleNamespace(dataset=dataset)) == dataset.videos()  # such as pasted objects around it
    assert videos_in(generated) is None
    assert videos_in(Mix([dataset, generated])) is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_frames_of_a_long_video_are_enough(count: int) -> None:
    assert len(read_video(clip_video(clip_of(length=40, labelled=[3])), max_frames=count).clip) == count
