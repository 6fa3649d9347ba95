"""A clip changes as one thing: frames, labels and flow together, by the generator alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.transforms import (
    CenterCrop,
    ColourJitter,
    Compose,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    TimeReversal,
    Transform,
    crop_clip,
    flip_clip,
    resize_clip,
)

HEIGHT, WIDTH = 24, 32


def coordinates(length: int = 3) -> Clip:
    """A clip whose red is 8 x row, whose green is 8 x column, whose label is the quarter (1..4)."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    frame = torch.stack([rows * 8, columns * 7, rows * 0 + 100]).to(torch.uint8)
    labels = (1 + (rows >= HEIGHT // 2) * 2 + (columns >= WIDTH // 2)).to(torch.uint8)
    flow = torch.stack([columns * 0 + 2.0, rows * 0 + 3.0]).expand(length, -1, -1, -1)
    return Clip(
        "made",
        frame.expand(length, -1, -1, -1),
        labels.expand(length, -1, -1),
        frame_names=tuple(str(number) for number in range(length)),
        flow=flow,
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quarters_fit(clip: Clip) -> float:
    """Share of pixels whose label is the quarter that their colour says."""
    rows, columns = clip.frames[:, 0].float() / 8, clip.frames[:, 1].float() / 7
    expected = 1 + (rows >= HEIGHT // 2 - 0.5) * 2 + (columns >= WIDTH // 2 - 0.5)
    assert clip.labels is not None
    return float((expected == clip.labels).float().mean())


RANDOM: list[Transform] = [
    RandomResizedCrop((16, 20)),
    RandomCrop((10, 12)),
    HorizontalFlip(),
    ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    Compose([RandomResizedCrop(16, scale=(0.2, 0.6)), HorizontalFlip()]),
]


@pytest.mark.parametrize("transform", RANDOM)
def test_a_transform_is_a_function_of_clip_and_generator(transform: Transform) -> None:
    torch.manual_seed(0)
    first = transform(coordinates(), seeded(4))
    torch.manual_seed(1)
    second = transform(coordinates(), seeded(4))
    assert torch.equal(first.frames, second.frames)
    others = [transform(coordinates(), seeded(seed)).frames for seed in range(5, 25)]
    assert any(other.shape != first.frames.shape or not torch.equal(other, first.frames) for other in others)


@pytest.mark.parametrize("transform", RANDOM)
def test_every_frame_gets_the_same_change(transform: Transform) -> None:
    clip = transform(coordinates(), seeded(2))
    assert clip.frames.dtype == torch.uint8
    assert torch.equal(clip.frames[0], clip.frames[2])
    assert clip.labels is not None and torch.equal(clip.labels[0], clip.labels[2])


@pytest.mark.parametrize("seed", range(6))
def test_labels_stay_on_what_they_label(seed: int) -> None:
    clip = RandomResizedCrop((20, 26), scale=(0.3, 1.0))(coordinates(), seeded(seed))
    assert clip.frames.shape[-2:] == (20, 26)
    assert quarters_fit(clip) > 0.93  # all but the pixels on a border between two quarters
    assert clip.labels is not None and set(clip.labels.unique().tolist()) <= {1, 2, 3, 4}


def test_cropping_takes_the_window_of_frames_labels_and_flow() -> None:
    clip = crop_clip(coordinates(), top=2, left=5, size=(4, 6))
    assert clip.frames[0, 0, :, 0].tolist() == [16, 24, 32, 40]
    assert clip.frames[0, 1, 0, :].tolist() == [35, 42, 49, 56, 63, 70]
    assert clip.labels is not None and clip.labels.shape == (3, 4, 6)
    assert clip.flow is not None and clip.flow.shape == (3, 2, 4, 6)
    with pytest.raises(ValueError, match="cannot crop 30 x 6 at row 0, column 0 from clip made of 24 x 32"):
        crop_clip(coordinates(), top=0, left=0, size=(30, 6))


def test_the_flow_is_scaled_with_the_frame() -> None:
    clip = resize_clip(coordinates(), (12, 48))
    assert clip.flow is not None
    assert clip.flow[:, 0].unique().tolist() == [3.0]  # 2 pixels of 32 columns are 3 of 48
    assert clip.flow[:, 1].unique().tolist() == [1.5]  # 3 pixels of 24 rows are 1.5 of 12


def test_mirroring_turns_the_flow_and_is_its_own_inverse() -> None:
    clip = coordinates()
    mirrored = flip_clip(clip)
    assert mirrored.flow is not None and clip.flow is not None
    assert mirrored.flow[0, :, 0, 0].tolist() == [-2.0, 3.0]
    assert torch.equal(mirrored.frames[..., 0], clip.frames[..., -1])
    again = flip_clip(mirrored)
    assert again.labels is not None and clip.labels is not None and again.flow is not None
    assert torch.equal(again.frames, clip.frames)
    assert torch.equal(again.labels, clip.labels)
    assert torch.equal(again.flow, clip.flow)


def test_flow_still_leads_to_the_same_object_after_crop_resize_and_flip() -> None:
    frames = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    frames[0, :, 10:14, 8:12] = 255
    frames[1, :, 16:20, 18:22] = 255  # moved by x 10, y 6
    flow = torch.zeros(2, 2, 40, 40)
    flow[0, 0, 10:14, 8:12], flow[0, 1, 10:14, 8:12] = 10, 6
    clip = Clip("moving", frames, flow=flow)
    clip = flip_clip(resize_clip(crop_clip(clip, top=4, left=4, size=(24, 24)), (48, 72)))

    def centre(frame: Tensor) -> Tensor:
        return (frame[0] > 127).nonzero().float().mean(0)  # (2,) row, column

    assert clip.flow is not None
    row, column = centre(clip.frames[0]).round().long().tolist()
    landed = torch.tensor([row, column]) + clip.flow[0, :, row, column].flip(0)
    assert (landed - centre(clip.frames[1])).abs().max() < 1.5


def test_shrinking_with_antialias_averages_and_without_samples() -> None:
    frames = torch.zeros(1, 3, 32, 32)
    frames[..., ::4] = 1.0  # one bright column in four
    clip = Clip("stripes", frames)
    averaged, sampled = (resize_clip(clip, (8, 8), antialias=flag).frames for flag in (True, False))
    assert (averaged[..., 2:-2] - 0.25).abs().max() < 0.03
    assert sampled.max() == 0.0  # between two dark columns


@pytest.mark.parametrize(("size", "expected"), [(12, (12, 16)), (48, (48, 64)), ((10, 11), (10, 11))])
def test_resizing_to_a_shorter_side_keeps_the_aspect(size: int, expected: tuple[int, int]) -> None:
    assert Resize(size)(coordinates(), seeded()).frames.shape[-2:] == expected


def test_the_centre_crop_is_in_the_centre() -> None:
    clip = CenterCrop(4)(coordinates(), seeded())
    assert clip.frames[0, 0, 0, 0] == 80
    assert clip.frames[0, 1, 0, 0] == 98
    with pytest.raises(ValueError, match="cannot crop"):
        CenterCrop(25)(coordinates(), seeded())
    with pytest.raises(ValueError, match="cannot crop"):
        RandomCrop(25)(coordinates(), seeded())


def test_playing_backwards_takes_labels_and_names_along() -> None:
    clip = coordinates()
    clip = replace(clip, labelled=torch.tensor([True, False, False]))
    turned = TimeReversal(probability=1.0)(clip, seeded())
    assert turned.frame_names == ("2", "1", "0")
    assert turned.labelled is not None and turned.labelled.tolist() == [False, False, True]
    assert turned.flow is None


def test_colours_change_as_worked_out_by_hand() -> None:
    frames = torch.tensor([0.2, 0.4, 0.6])[None, :, None, None].expand(1, 3, 4, 4)
    clip = Clip("even", frames)
    grey = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    jitter = ColourJitter(brightness=0.5, contrast=0.0, saturation=0.9, hue=0.0)
    numbers = torch.rand(5, generator=seeded(3)).tolist()  # applied, brightness, contrast, saturation, hue
    brightness, saturation = 0.5 + numbers[1], 0.1 + 1.8 * numbers[3]
    expected = brightness * (grey + saturation * (frames[0, :, 0, 0] - grey))
    assert torch.allclose(jitter(clip, seeded(3)).frames[0, :, 0, 0], expected.clamp(0, 1), atol=1e-5)


def test_colour_jitter_of_nothing_changes_nothing() -> None:
    clip = coordinates()
    none = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0)
    assert torch.equal(none(clip, seeded()).frames, clip.frames)
    never = ColourJitter(brightness=0.9, probability=0.0)
    assert torch.equal(never(clip, seeded()).frames, clip.frames)


def test_grey_stays_grey_when_the_hue_turns() -> None:
    clip = Clip("grey", torch.full((1, 3, 4, 4), 90, dtype=torch.uint8))
    turned = ColourJitter(brightness=0, contrast=0, saturation=0.5, hue=0.5)(clip, seeded(1))
    assert torch.equal(turned.frames, clip.frames)


def test_cached_features_cannot_follow_a_crop() -> None:
    clip = replace(coordinates(), features={"vit": torch.zeros(3, 4)})
    with pytest.raises(ValueError, match="transform before caching"):
        RandomCrop(8)(clip, seeded())


def test_impossible_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="scale of at most 1"):
        RandomResizedCrop(8, scale=(0.5, 2.0))
    with pytest.raises(ValueError, match="half a turn"):
        ColourJitter(hue=0.7)
