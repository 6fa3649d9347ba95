"""Warps keep labels on their frames, are functions of their generator, and cover what they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vosssl.clip import Clip
from vosssl.data.transforms import ColourJitter, HorizontalFlip
from vosssl.data.warps import (
    AffineCrop,
    PerFrame,
    PictureMotion,
    RandomGrey,
    cutie_picture,
    cutie_video,
    stcn_picture,
    stcn_video,
    warp_clip,
)
from vosssl.ops.planar import (
    affine_map,
    mapped_pixels,
    pixel_centres,
    thin_plate_spline,
    window_map,
)


def checkerboard(frames: int = 2, *, size: tuple[int, int] = (96, 128), square: int = 16) -> Clip:
    """White squares are object 1."""
    rows, columns = torch.arange(size[0])[:, None] // square, torch.arange(size[1]) // square
    labels = ((rows + columns) % 2).to(torch.uint8).expand(frames, -1, -1)
    return Clip("board", (labels * 255)[:, None].expand(-1, 3, -1, -1), labels)


def agreement(clip: Clip) -> float:
    """Share of pixels whose label fits their colour, among those that are clearly black or white."""
    assert clip.labels is not None
    grey = clip.frames.float().mean(1)
    clear = (grey < 25) | (grey > 230)
    assert clear.float().mean() > 0.2
    return float(((grey > 128) == (clip.labels == 1))[clear].float().mean())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_identity_changes_nothing() -> None:
    clip = checkerboard()
    places = mapped_pixels((96, 128), affine_map((96, 128))).expand(2, -1, -1, -1)
    same = warp_clip(clip, places)
    assert torch.equal(same.frames, clip.frames)
    assert same.labels is not None
    assert clip.labels is not None
    assert torch.equal(same.labels, clip.labels)


def test_a_shift_moves_frames_and_labels_and_fills_the_rest() -> None:
    frames = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4).expand(1, 3, 3, 4)
    clip = Clip("a", frames, frames[:, 0])
    places = mapped_pixels((3, 4), window_map(0, -1, (3, 4), (3, 4)))[None]
    moved = warp_clip(clip, places, colour=(200, 100, 50), label=255)
    assert moved.frames[0, :, :, 0].tolist() == [[200] * 3, [100] * 3, [50] * 3]
    assert moved.frames[0, 0, :, 1:].tolist() == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]
    assert moved.labels is not None
    assert moved.labels[0].tolist() == [[255, 0, 1, 2], [255, 4, 5, 6], [255, 8, 9, 10]]


def test_float_frames_stay_floats_between_0_and_1() -> None:
    clip = checkerboard(1)
    places = mapped_pixels((96, 128), affine_map((96, 128), angle=10))[None]
    whole, fraction = warp_clip(clip, places), warp_clip(replace(clip, frames=clip.frames / 255), places)
    assert fraction.frames.dtype == torch.float32
    torch.testing.assert_close(fraction.frames * 255, whole.frames.float(), atol=0.51, rtol=0)


def test_a_window_of_the_frame_is_enough_for_what_is_asked_of_it() -> None:
    frames = torch.randint(256, (2, 3, 40, 50), generator=generator(), dtype=torch.uint8)
    clip = Clip("noise", frames, frames[:, 0])
    for matrix in (affine_map((40, 50), angle=30, zoom=3), affine_map((40, 50), angle=70, zoom=0.2)):
        for offset in (0, 60):  # on the frame, and beyond it
            places = mapped_pixels((24, 20), torch.linalg.inv(matrix)) + offset
            shown = warp_clip(clip, torch.stack([places, places + 0.25]))
            grid = torch.stack([places, places + 0.25]) * torch.tensor([2 / 50, 2 / 40]) - 1
            fill = torch.tensor([124.0, 116.0, 104.0]).view(3, 1, 1)
            expected = torch.nn.functional.grid_sample(frames - fill, grid, align_corners=False) + fill
            assert (shown.frames - expected).abs().max() <= 0.51
            ids = torch.nn.functional.grid_sample(
                frames[:, :1].float(), grid, mode="nearest", align_corners=False
            )
            assert shown.labels is not None
            assert (shown.labels != ids[:, 0]).float().mean() < 0.01  # ties


def test_warping_leaves_its_input_as_it_was() -> None:
    for dtype in (torch.uint8, torch.float32):
        clip = Clip("ones", torch.ones(1, 3, 8, 8, dtype=dtype), torch.ones(1, 8, 8, dtype=torch.uint8))
        warp_clip(clip, mapped_pixels((4, 4), affine_map((8, 8)))[None], label=1)
        assert bool((clip.frames == 1).all())
        assert clip.labels is not None
        assert bool((clip.labels == 1).all())


@pytest.mark.parametrize(
    "transform",
    [
        AffineCrop(64, frame_degrees=15, frame_shear=10),
        AffineCrop((48, 80)),
        PictureMotion(64, num_frames=2, spline=1.0, zoom=(1.2, 1.5)),
        PictureMotion(64, num_frames=2, spline=0.0, zoom=(1.2, 1.5)),
    ],
)
def test_labels_stay_on_their_frames(transform: AffineCrop | PictureMotion) -> None:
    for seed in range(8):
        clip = checkerboard(2 if isinstance(transform, AffineCrop) else 1)
        filled = replace(clip, frames=clip.frames.clone())
        assert agreement(transform(filled, generator(seed))) > 0.995


def test_a_clip_moves_as_one_unless_its_frames_move_on_their_own() -> None:
    board = checkerboard(3)
    together = AffineCrop(40)(board, generator()).frames
    assert torch.equal(together[0], together[2])
    apart = AffineCrop(40, degrees=0, shear=0, frame_degrees=15)(board, generator()).frames
    assert not torch.equal(apart[0], apart[2])


def test_a_picture_becomes_frames_that_differ() -> None:
    still = checkerboard(1, size=(60, 90))
    clip = PictureMotion(32, num_frames=4)(still, generator())
    assert clip.frames.shape == (4, 3, 32, 32)
    assert clip.labels is not None
    assert clip.labels.shape == (4, 32, 32)
    assert len({frame.flatten().sum().item() for frame in clip.frames}) == 4


def test_a_picture_that_is_not_moved_fills_the_square() -> None:
    still = Clip("white", torch.full((1, 3, 30, 50), 255, dtype=torch.uint8), torch.ones(1, 30, 50).byte())
    calm = PictureMotion(60, zoom=(1, 1), frame_zoom=(1, 1), frame_degrees=0, frame_shear=0, spline=0)
    clip = calm(still, generator())
    assert clip.labels is not None
    assert bool((clip.labels == 1).all())
    assert int(clip.frames[:, :, 2:-2, 2:-2].min()) == 255


@pytest.mark.parametrize("preset", [stcn_video, cutie_video, stcn_picture, cutie_picture])
def test_presets_are_functions_of_their_generator(preset) -> None:  # type: ignore[no-untyped-def]
    clip = checkerboard(1 if preset in (stcn_picture, cutie_picture) else 3)
    transform = preset(32)
    first, again = transform(clip, generator(3)), transform(clip, generator(3))
    assert first.frames.shape == (3, 3, 32, 32)
    assert first.frames.dtype == torch.uint8
    assert torch.equal(first.frames, again.frames)
    assert first.labels is not None
    assert set(first.labels.unique().tolist()) <= {0, 1}
    assert not torch.equal(first.frames, transform(clip, generator(4)).frames)


def test_colours_of_frames_change_on_their_own() -> None:
    clip = Clip("grey", torch.full((3, 3, 4, 4), 128, dtype=torch.uint8))
    changed = PerFrame(ColourJitter(brightness=0.3))(clip, generator()).frames
    assert len({int(frame[0, 0, 0]) for frame in changed}) == 3


def test_frames_that_flip_on_their_own_take_their_labels_along() -> None:
    clip = checkerboard(12)
    changed = PerFrame(HorizontalFlip())(clip, generator())
    assert agreement(changed) == 1.0
    assert changed.labels is not None
    assert len({frame[0, 0].item() for frame in changed.labels}) == 2


def test_grey_comes_as_often_as_it_should() -> None:
    clip = Clip("red", torch.tensor([200, 10, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2))
    greys = 0
    for seed in range(400):
        pixel = RandomGrey(probability=0.25)(clip, generator(seed)).frames[0, :, 0, 0].tolist()
        assert pixel in ([200, 10, 30], [69, 69, 69])
        greys += pixel == [69, 69, 69]
    assert abs(greys - 100) < 4 * 75**0.5


def test_cached_features_cannot_be_warped() -> None:
    clip = replace(checkerboard(1), features={"vit": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match="transform before caching"):
        AffineCrop(16)(clip, generator())


def test_a_spline_filled_in_between_nodes_is_the_spline() -> None:
    motion = PictureMotion(384)
    bent = motion._bent(generator(5))
    rng = generator(5)
    columns, rows = (torch.randperm(384, generator=rng)[:12] for _ in range(2))
    seen = torch.stack([columns, rows], 1).double() / 384
    shown = seen + 0.02 * torch.randn(12, 2, generator=rng, dtype=torch.float64)
    exact = thin_plate_spline(pixel_centres((384, 384)).double() / 384, shown, seen) * 384
    assert (exact - pixel_centres((384, 384))).abs().max() > 2
    off = (bent - exact).abs()  # pixels
    assert off.mean() < 0.01
    assert (off > 0.1).float().mean() < 0.01  # near control points that are pulled apart
