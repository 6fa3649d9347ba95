"""Training clips of VOS: gaps, directions, first frames and objects are drawn as documented."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

import pytest
import torch

from vosssl.clip import Batch, Clip
from vosssl.data.sampling import ClipLoader, Draw, Mix
from vosssl.data.sources import ClipVideo
from vosssl.data.transforms import ColourJitter, Compose, HorizontalFlip, RandomCrop
from vosssl.data.video import clip_video
from vosssl.data.views import View, whole
from vosssl.data.vos_clips import ClipPlan, VosClips, curriculum, draw_frames, draw_gaps
from vosssl.data.warps import cutie_video
from vosssl.ops.resize import Size


def made(
    length: int,
    *,
    objects: int = 1,
    name: str = "made",
    empty: range = range(0),
    size: tuple[int, int] = (4, 6),
) -> Clip:
    """Frame t holds t in every pixel; object n is pixel n of the first row."""
    frames = torch.arange(length, dtype=torch.uint8)[:, None, None, None].expand(length, 3, *size)
    labels = torch.zeros(length, *size, dtype=torch.uint8)
    labels[:, 0, :objects] = torch.arange(1, objects + 1, dtype=torch.uint8)
    labels[list(empty)] = 0
    return Clip(name, frames, labels)


def clips_of(*videos: Clip, **options: object) -> VosClips:
    return VosClips([clip_video(video) for video in videos], **options)  # type: ignore[arg-type]


def plans_of(dataset: VosClips, count: int, *, step: int = 0) -> list[ClipPlan]:
    return [dataset.plan(Draw(number % len(dataset), number, step)) for number in range(count)]


def gaps_of(plan: ClipPlan) -> list[int]:
    return [abs(b - a) for a, b in itertools.pairwise(plan.frames)]


def test_clips_follow_their_plan() -> None:
    dataset = clips_of(made(20, objects=3), num_frames=3, max_objects=None)
    for seed in range(20):
        clip, plan = dataset[Draw(0, seed)], dataset.plan(Draw(0, seed))
        assert clip.frames[:, 0, 0, 0].tolist() == list(plan.frames)
        assert clip.labels is not None
        place = [int((clip.labels[0] == number).nonzero()[0, 1]) + 1 for number in (1, 2, 3)]
        assert tuple(place) == plan.objects  # object n became 1 + its place in the plan


def test_time_runs_one_way_and_no_gap_is_longer_than_allowed() -> None:
    for plan in plans_of(clips_of(made(40), num_frames=4, max_jump=5), 500):
        steps = [b - a for a, b in itertools.pairwise(plan.frames)]
        assert all(0 < step <= 5 for step in steps) or all(-5 <= step < 0 for step in steps)
        assert min(plan.frames) >= 0
        assert max(plan.frames) < 40


def test_every_gap_is_as_likely_as_any_other_in_a_long_video() -> None:
    plans = plans_of(clips_of(made(250), num_frames=3, max_jump=4, clips_per_video=None), 3000)
    inner = [gap for plan in plans if 10 < plan.frames[0] < 240 for gap in gaps_of(plan)]
    counts = torch.tensor(inner).bincount(minlength=5)
    assert counts[0] == 0
    expected = len(inner) / 4
    assert (counts[1:] - expected).abs().max() < 4 * (expected * 0.75) ** 0.5


def test_gaps_in_little_room_are_uniform_among_those_that_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [tuple(draw_gaps(2, 3, 4, generator)) for _ in range(3000)]
    fitting = [pair for pair in itertools.product((1, 2, 3), repeat=2) if sum(pair) <= 4]
    counts = torch.tensor([drawn.count(pair) for pair in fitting])
    assert int(counts.sum()) == 3000
    assert (counts - 500).abs().max() < 4 * (500 * 5 / 6) ** 0.5


def test_every_frame_is_as_likely_as_the_first_one() -> None:
    dataset = clips_of(made(20), num_frames=3, max_jump=5)
    starts = torch.tensor([plan.frames[0] for plan in plans_of(dataset, 4000)]).bincount(minlength=20)
    assert (starts - 200).abs().max() < 4 * 200**0.5


def test_with_a_clip_per_frame_every_frame_starts_one_in_every_epoch() -> None:
    dataset = clips_of(made(9), made(12), num_frames=4, clips_per_video=None)
    assert len(dataset) == 9 + 12
    starts = [(plan.video, plan.frames[0]) for plan in plans_of(dataset, 21)]
    assert starts == [(0, frame) for frame in range(9)] + [(1, frame) for frame in range(12)]


def test_early_frames_are_not_favoured_over_late_ones() -> None:
    dataset = clips_of(made(70), num_frames=3, max_jump=25, clips_per_video=None)
    frames = torch.tensor([plan.frames for plan in plans_of(dataset, 7000)]).flatten()
    hits = frames.bincount(minlength=70)
    assert abs(float((frames < 35).float().mean()) - 0.5) < 0.02
    assert abs(int(hits[:7].sum()) - int(hits[-7:].sum())) < 4 * (2 * 2100) ** 0.5
    assert hits.min() > 0.7 * 300  # an edge has neighbours on one side only
    assert hits.max() < 1.6 * 300


def test_half_of_the_clips_run_backwards_unless_forbidden() -> None:
    plans = plans_of(clips_of(made(30), num_frames=3), 2000)
    backwards = sum(plan.frames[1] < plan.frames[0] for plan in plans)
    assert abs(backwards - 1000) < 4 * 500**0.5
    forward = clips_of(made(30), num_frames=3, reverse=False, clips_per_video=None)
    assert len(forward) == 28
    assert all(plan.frames[1] > plan.frames[0] for plan in plans_of(forward, 200))


def test_the_curriculum_switches_at_its_steps() -> None:
    dataset = clips_of(made(60), num_frames=3, max_jump=[[0, 2], [10, 12], [20, 4]])
    for step, largest in ((0, 2), (9, 2), (10, 12), (19, 12), (20, 4), (999, 4)):
        assert dataset.max_jump(step) == largest
        assert max(gap for plan in plans_of(dataset, 300, step=step) for gap in gaps_of(plan)) == largest


def test_jumps_are_counted_in_frames_of_the_original_video() -> None:
    dataset = clips_of(made(30), max_jump=[[0, 3], [1, 15]], frame_interval=5)
    assert (dataset.max_jump(0), dataset.max_jump(1)) == (1, 3)


def test_a_short_video_gives_the_clips_that_fit() -> None:
    assert draw_frames(0, 3, 3, 25, torch.Generator()) == [0, 1, 2]
    assert draw_frames(2, 3, 3, 25, torch.Generator()) == [2, 1, 0]
    dataset = clips_of(made(3), num_frames=3, max_jump=25)
    assert {plan.frames for plan in plans_of(dataset, 40)} == {(0, 1, 2), (2, 1, 0)}


def test_objects_are_chosen_evenly_and_at_most_as_many_as_wanted() -> None:
    dataset = clips_of(made(8, objects=4), max_objects=2)
    seen = torch.zeros(4)
    for seed in range(400):
        clip = dataset[Draw(0, seed)]
        assert clip.labels is not None
        assert clip.num_objects == 2
        assert clip.labels.unique().tolist() == [0, 1, 2]
        seen += (clip.labels[0, 0, :4] > 0).float()
    assert (seen - 200).abs().max() < 4 * 100**0.5


def test_a_first_frame_without_objects_is_drawn_anew() -> None:
    dataset = clips_of(made(10, empty=range(4)), made(6, empty=range(6)), num_frames=2, clips_per_video=None)
    for index in range(len(dataset)):
        plan, clip = dataset.plan(Draw(index, 3)), dataset[Draw(index, 3)]
        assert (plan.video, plan.frames[0] >= 4) == (0, True)
        assert clip.num_objects == 1
        again = dataset[Draw(index, 3)]  # empty frames are known by now, which changes nothing
        assert torch.equal(clip.frames, again.frames)


def test_videos_without_any_object_are_an_error_that_says_so() -> None:
    dataset = clips_of(made(4, empty=range(4)), num_frames=2)
    with pytest.raises(ValueError, match="no object was found in 100 first frames"):
        dataset[0]
    with pytest.raises(ValueError, match="no object was found"):
        dataset.plan(0)


def test_a_crop_without_the_object_is_drawn_anew() -> None:
    dataset = clips_of(made(6, objects=2), num_frames=2, transform=RandomCrop((2, 2)))
    for seed in range(60):
        clip = dataset[Draw(0, seed)]
        assert clip.labels is not None
        assert clip.num_objects == len(set(clip.labels[0].unique().tolist()) - {0}) > 0


def test_only_the_window_of_a_crop_is_decoded_and_whole_frames_once() -> None:
    views: list[View | None] = []

    class Recorded(ClipVideo):
        def clip(
            self, indices: Sequence[int], *, size: Size | int | None = None, view: View | None = None
        ) -> Clip:
            if view is not None:  # reading labels asks for no view
                views.append(view)
            return super().clip(indices, size=size, view=view)

    video = Recorded(made(9, size=(12, 16)))
    cropped = VosClips([video], transform=Compose([RandomCrop((2, 16)), HorizontalFlip()]))
    for seed in range(10):
        views.clear()
        clip = cropped[Draw(0, seed)]
        assert clip.frames.shape == (3, 3, 2, 16)
        assert views and all(view is not None and view.size == (2, 16) for view in views)
        assert views[-1] is not None and views[-1].window.top == 0  # where the object is
    views.clear()
    blind = VosClips([video], transform=Compose([ColourJitter(), RandomCrop((2, 4))]))
    for seed in range(10):
        blind[Draw(0, seed)]
    proposals = len(views)
    assert views == [whole((12, 16))] * proposals


def test_frames_without_labels_are_left_out() -> None:
    video = made(12)
    flags = torch.zeros(12, dtype=torch.bool)
    flags[::3] = True
    some = Clip("some", video.frames, video.labels, labelled=flags)
    plans = plans_of(clips_of(some, num_frames=3, max_jump=1), 40)
    assert {plan.frames for plan in plans} == {(0, 3, 6), (3, 6, 9), (6, 3, 0), (9, 6, 3)}


def test_videos_that_are_too_short_or_unlabelled_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    unlabelled = Clip("bare", made(9).frames)
    with caplog.at_level(logging.WARNING):
        dataset = clips_of(made(5), made(2), unlabelled)
    assert "2 of 3 videos have fewer than 3 labelled frames" in caplog.text
    assert [video.name for video in dataset.videos()] == ["made"]
    with pytest.raises(ValueError, match="none of 1 videos has 3 labelled frames"):
        clips_of(unlabelled)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or more of each"):
        clips_of(made(5), num_frames=0)
    with pytest.raises(ValueError, match="clips_per_video is 0"):
        clips_of(made(5), clips_per_video=0)
    with pytest.raises(ValueError, match="steps rise from 0"):
        curriculum([[10, 5]])
    with pytest.raises(ValueError, match="steps rise from 0"):
        curriculum([[0, 5], [10, 0]])
    with pytest.raises(IndexError, match="clip 1 of 1"):
        clips_of(made(5))[1]


def same(left: Batch, right: Batch) -> bool:
    assert left.labels is not None
    assert right.labels is not None
    assert left.num_objects is not None
    assert right.num_objects is not None
    return (
        left.names == right.names
        and torch.equal(left.frames, right.frames)
        and torch.equal(left.labels, right.labels)
        and torch.equal(left.num_objects, right.num_objects)
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # four workers on two cores
def test_videos_of_any_length_size_and_number_of_objects_share_batches_whoever_reads_them() -> None:
    videos = [
        made(30, objects=3, name="a", size=(40, 60)),
        made(9, objects=1, name="b", size=(50, 44)),
        made(15, objects=5, name="c", size=(36, 36)),
    ]
    dataset = Mix(
        [
            clips_of(*videos[:2], max_objects=3, max_jump=[[0, 2], [4, 6]], transform=cutie_video(32)),
            clips_of(videos[2], max_objects=3, clips_per_video=None, transform=cutie_video(32)),
        ]
    )

    def batches(count: int, *, start: int = 0, workers: int = 0) -> list[Batch]:
        iterator = ClipLoader(dataset, batch_size=4, seed=1, workers=workers).batches(start)
        taken = list(itertools.islice(iterator, count))
        iterator.close()  # type: ignore[attr-defined]
        return taken

    reference = batches(7)
    assert reference[0].frames.shape == (4, 3, 3, 32, 32)
    for batch in reference:
        assert batch.num_objects is not None
        assert batch.labels is not None
        for labels, count in zip(batch.labels, batch.num_objects.tolist(), strict=True):
            assert labels[0].unique().tolist()[-count:] == list(range(1, count + 1))
    for others in (batches(7, workers=1), batches(7, workers=4)):
        assert all(same(left, right) for left, right in zip(reference, others, strict=True))
    resumed = batches(3, start=4, workers=1)  # in the middle of an epoch of 17 clips
    assert all(same(left, right) for left, right in zip(reference[4:], resumed, strict=True))


def test_the_fingerprint_tells_arguments_apart() -> None:
    video = made(9)
    prints = [
        clips_of(video, **options).fingerprint()
        for options in ({}, {"max_jump": 2}, {"max_objects": 1}, {"transform": RandomCrop(2)}, {})
    ]
    assert prints[0] == prints[-1]
    assert len(set(prints)) == 4
