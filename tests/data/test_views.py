"""Windows of frames that are known before decoding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.videos import write_sequence
from vosssl.clip import Clip
from vosssl.data.folders import FolderDataset
from vosssl.data.io import write_image, write_labels
from vosssl.data.sampling import Draw, generator_of, mixed_seed
from vosssl.data.transforms import (
    CenterCrop,
    ColourJitter,
    Compose,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Transform,
    planned,
)
from vosssl.data.video import FirstFrames, open_video
from vosssl.data.views import View, Window, reduction, seen_flow, whole

NATIVE = (48, 64)


def pictures(tmp_path: Path, *, size: tuple[int, int] = NATIVE, suffix: str = "png") -> Path:
    """A dataset of one video of smooth random pictures, whose labels follow the red channel."""
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        coarse = torch.rand(1, 3, 6, 8, generator=generator)
        image = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")[0].mul(255).byte()
        write_image(tmp_path / f"JPEGImages/a/{number:05d}.{suffix}", image)
        write_labels(tmp_path / f"Annotations/a/{number:05d}.png", (image[0] > 127).byte() + 1)
    return tmp_path


@pytest.mark.parametrize(
    "steps",
    [
        [RandomResizedCrop(20)],
        [HorizontalFlip(probability=1.0), RandomResizedCrop((18, 30)), HorizontalFlip()],
        [CenterCrop(40), RandomCrop(24), HorizontalFlip(probability=1.0), ColourJitter()],
        [Resize(30), RandomCrop(24)],
        [Resize((20, 20), antialias=False)],
        [ColourJitter(), RandomCrop(24)],
    ],
)
def test_a_window_known_before_decoding_gives_the_clip_that_cropping_it_gives(
    tmp_path: Path, steps: list[Transform]
) -> None:
    transform = Compose(steps)
    dataset = FolderDataset(pictures(tmp_path), num_frames=2, transform=transform)
    for seed in range(5):
        clip = dataset[Draw(0, seed)]
        video = dataset.videos()[0]
        frames = video.clip([int(name) for name in clip.frame_names])
        expected = transform(frames, _generator(seed))
        assert (clip.frames.int() - expected.frames.int()).abs().max() <= 1  # mirrored last, not first
        assert clip.labels is not None
        assert expected.labels is not None
        differ = (clip.labels != expected.labels).float().mean()
        assert differ <= (0.1 if isinstance(steps[0], HorizontalFlip) else 0)


def _generator(seed: int) -> torch.Generator:
    return generator_of(mixed_seed(seed, 0, 1))


def test_what_cannot_be_done_while_decoding_is_left_over() -> None:
    generator = torch.Generator().manual_seed(0)
    jitter = ColourJitter()
    view, rest = planned(Compose([RandomCrop(10), jitter, RandomCrop(5)]), whole(NATIVE), generator)
    assert view.size == (10, 10)
    assert isinstance(rest, Compose)
    assert rest.transforms[0] is jitter
    assert planned(None, whole(NATIVE), generator) == (whole(NATIVE), None)


def test_a_mirrored_frame_is_cropped_on_its_other_side() -> None:
    view = View(Window(0, 0, 48, 64), (48, 64), mirrored=True).crop(3, 10, (20, 30))
    assert view.window == Window(3, 64 - 10 - 30, 20, 30)


def test_frames_are_reduced_while_decoding_only_when_enough_pixels_are_left() -> None:
    assert reduction(View(Window(0, 0, 480, 854), (224, 224))) == 2
    assert reduction(View(Window(0, 0, 447, 854), (224, 224))) == 1
    assert reduction(View(Window(0, 0, 1080, 1920), (120, 200))) == 8


def test_aligned_windows_move_by_at_most_half_a_pixel_of_the_reduced_frame() -> None:
    view = View(Window(3, 9, 97, 130), (40, 60))
    top, left, height, width = view.aligned(2, (101, 200)).window
    assert top % 2 == left % 2 == width % 2 == 0
    assert max(abs(top - 3), abs(left - 9), abs(top + height - 100), abs(left + width - 139)) <= 1
    assert View(Window(0, 0, 101, 199), (20, 20)).aligned(4, (101, 199)).window == Window(0, 0, 101, 199)


def test_a_reduced_jpeg_shows_the_same_window_in_frames_and_labels(tmp_path: Path) -> None:
    video = open_video(pictures(tmp_path, size=(240, 320), suffix="jpg") / "JPEGImages" / "a")
    view = View(Window(33, 41, 130, 150), (60, 70), mirrored=True)
    reduced = video.clip([0, 1], view=view)
    full = video.clip([0, 1])
    expected = full.frames[..., 33:163, 41:191].float()
    expected = torch.nn.functional.interpolate(expected, size=(60, 70), mode="bilinear", antialias=True).flip(
        -1
    )
    assert (reduced.frames.float() - expected).abs().mean() < 3
    assert reduced.labels is not None
    red = (reduced.frames[:, 0] > 127).byte() + 1
    assert (red != reduced.labels).float().mean() < 0.03


def test_the_beginning_of_a_video_is_seen_through_a_view_too(tmp_path: Path) -> None:
    video = FirstFrames(open_video(write_sequence(tmp_path / "a")), 3)
    clip: Clip = video.clip([2], view=View(Window(1, 2, 10, 12), (10, 12)))
    assert clip.frames.shape == (1, 3, 10, 12)
    assert bool((clip.frames == 2).all())


def test_flow_is_cropped_scaled_and_mirrored_with_its_frame() -> None:
    flow = torch.arange(2 * 4 * 6, dtype=torch.float32).view(1, 2, 4, 6)  # x: 0..23, y: 24..47
    cropped = seen_flow(flow, View(Window(1, 2, 2, 3), (2, 3)))
    assert cropped[0, 0].tolist() == [[8, 9, 10], [14, 15, 16]]
    assert cropped[0, 1].tolist() == [[32, 33, 34], [38, 39, 40]]
    mirrored = seen_flow(flow, View(Window(1, 2, 2, 3), (2, 3), mirrored=True))
    assert mirrored[0, 0].tolist() == [[-10, -9, -8], [-16, -15, -14]]  # to the right becomes to the left
    assert mirrored[0, 1].tolist() == [[34, 33, 32], [40, 39, 38]]  # up and down stay
    enlarged = seen_flow(
        flow, View(Window(0, 0, 1, 2), (3, 4), mirrored=True)
    )  # twice as wide, thrice as high
    assert enlarged[0, 0].tolist() == [[-2, -2, 0, 0]] * 3
    assert enlarged[0, 1].tolist() == [[75, 75, 72, 72]] * 3
    assert flow[0, 0, 0, 1] == 1  # the flow that was given stays as it was
    assert torch.equal(seen_flow(flow, whole((4, 6))), flow)
