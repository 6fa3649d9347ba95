"""Overlays, colours, grids and contact sheets; and which object each slot holds."""

from __future__ import annotations

import pytest
import torch

from vosssl.engine.drawing import (
    BACKGROUND_COLOR,
    as_bytes,
    color_labels,
    component_pictures,
    contact_sheet,
    contours,
    evenly_spaced,
    id_colors,
    mask_pictures,
    overlay,
    slot_grid,
    slot_labels,
    tile,
)
from vosssl.engine.inspected_clip import InspectedClip
from vosssl.engine.slot_identity import Switch, slot_identity


def small_clip(*, slots: int = 3, length: int = 4, name: str = "clip") -> InspectedClip:
    masks = torch.rand(length, slots, 4, 6, generator=torch.Generator().manual_seed(1))
    return InspectedClip(
        name,
        torch.zeros(length, 3, 16, 24, dtype=torch.uint8),
        torch.ones(length, 16, 24, dtype=torch.uint8),
        truth=torch.zeros(length, 16, 24, dtype=torch.uint8),
        masks=masks,
        attention=masks,
        metrics={"video/mbo": 0.5},
    )


def test_every_id_has_a_colour_of_its_own_and_background_is_grey() -> None:
    colors = id_colors()
    assert colors.shape == (256, 3)
    assert colors.dtype == torch.uint8
    assert tuple(colors[0].tolist()) == BACKGROUND_COLOR
    assert len({tuple(row) for row in colors.tolist()}) == 256


def test_the_first_twenty_four_colours_are_easy_to_tell_apart() -> None:
    colors = id_colors()[:25].float()
    distance = torch.cdist(colors, colors) + 1000 * torch.eye(25)
    assert distance.min() > 40


def test_an_overlay_leaves_background_alone_and_blends_objects() -> None:
    frame = torch.full((3, 1, 3), 100, dtype=torch.uint8)
    labels = torch.tensor([[0, 1, 1]], dtype=torch.uint8)
    drawn = overlay(frame, labels, alpha=0.5, contour=False)
    red = id_colors()[1].float()
    assert drawn[:, 0, 0].tolist() == [100, 100, 100]
    assert torch.equal(drawn[:, 0, 1], ((red + 100) / 2).round().to(torch.uint8))


def test_a_contour_is_drawn_in_full_colour_inside_the_object_only() -> None:
    frame = torch.zeros(3, 5, 5, dtype=torch.uint8)
    labels = torch.zeros(5, 5, dtype=torch.uint8)
    labels[1:4, 1:4] = 2
    drawn = overlay(frame, labels, alpha=0.25)
    assert torch.equal(drawn[:, 1, 1], id_colors()[2])
    assert drawn[:, 0, 1].tolist() == [0, 0, 0]
    assert torch.equal(drawn[:, 2, 2], (id_colors()[2] * 0.25).round().to(torch.uint8))


def test_contours_touch_both_sides_of_a_border() -> None:
    labels = torch.tensor([[1, 1, 2, 2]], dtype=torch.uint8)
    assert contours(labels).tolist() == [[False, True, True, False]]


def test_a_whole_clip_is_drawn_like_its_frames() -> None:
    frames = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    labels = torch.randint(0, 5, (3, 8, 8), dtype=torch.uint8)
    each = torch.stack([overlay(frame, label) for frame, label in zip(frames, labels, strict=True)])
    assert torch.equal(overlay(frames, labels), each)


def test_swapping_two_ids_swaps_their_colours() -> None:
    labels = torch.randint(1, 3, (6, 6), dtype=torch.uint8)
    one, two = color_labels(labels), color_labels(3 - labels)
    assert torch.equal(one[:, labels == 1].unique(dim=1), two[:, labels == 2].unique(dim=1))
    assert not torch.equal(one, two)


def test_an_overlay_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="resize"):
        overlay(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(5, 5, dtype=torch.uint8))
    with pytest.raises(ValueError, match="alpha"):
        overlay(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8), alpha=2)


def test_float_images_become_bytes_and_nan_becomes_black() -> None:
    assert as_bytes(torch.tensor([0.0, 0.5, 1.0, 2.0, float("nan")])).tolist() == [0, 128, 255, 255, 0]


def test_masks_are_shown_relative_to_the_strongest_value() -> None:
    drawn = mask_pictures(torch.tensor([[[0.0, 0.25], [0.5, 0.5]]]), (2, 2))
    assert drawn[0, 0].tolist() == [[0, 128], [255, 255]]


def test_a_grid_has_gaps_and_refuses_mixed_sizes() -> None:
    black = torch.zeros(3, 4, 5, dtype=torch.uint8)
    sheet = tile([[black, black], [black]], gap=2)
    assert sheet.shape == (3, 14, 16)
    assert sheet[0, 2, 2] == 0
    assert sheet[0, 0, 0] == sheet[0, 9, 10] == 250  # gap, and the empty place at the end
    with pytest.raises(ValueError, match="one size"):
        tile([[black, torch.zeros(3, 5, 5, dtype=torch.uint8)]])
    with pytest.raises(ValueError, match="one size"):
        tile([])


def test_slot_labels_name_the_strongest_slot() -> None:
    masks = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]])  # (K=2, 1, 2)
    assert slot_labels(masks, (1, 2)).tolist() == [[1, 2]]


def test_the_grid_for_tensorboard_shows_masks_and_attention_of_each_slot() -> None:
    clip = small_clip(slots=3, length=10)
    assert clip.masks is not None
    grid = slot_grid(clip.frames, clip.masks, attention=clip.attention, truth=clip.truth, columns=5, width=24)
    assert grid.shape == (
        3,
        9 * (16 + 2) + 2,
        5 * (24 + 2) + 2,
    )  # frame, truth, overlay, 3 x (mask, attention)
    assert grid.dtype == torch.uint8


def test_a_contact_sheet_holds_clips_of_different_lengths() -> None:
    sheet = contact_sheet(
        [small_clip(length=2), small_clip(length=7, name="räksmörgås")], columns=4, width=24
    )
    assert sheet.dtype == torch.uint8
    assert sheet.shape[2] == 4 * 26 + 2
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_evenly_spaced_frames_keep_both_ends() -> None:
    assert evenly_spaced(3, 8) == [0, 1, 2]
    assert evenly_spaced(90, 4) == [0, 30, 59, 89]


def test_an_inspected_clip_says_what_does_not_fit() -> None:
    frames = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    labels = torch.zeros(2, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="truth of clip a"):
        InspectedClip("a", frames, labels, truth=labels[:1])
    with pytest.raises(ValueError, match="3 values of J for 2 frames"):
        InspectedClip("a", frames, labels, frame_metrics={"J": [0.1, 0.2, 0.3]})
    with pytest.raises(ValueError, match="attention of clip a"):
        InspectedClip("a", frames, labels, masks=torch.rand(2, 3, 2, 2), attention=torch.rand(2, 4, 2, 2))
    with pytest.raises(ValueError, match="slot_ids"):
        InspectedClip("a", frames, labels, masks=torch.rand(2, 3, 2, 2), slot_ids=(1, 2))


def strip(*rows: str) -> torch.Tensor:
    """Frames of one row of pixels, a digit each."""
    return torch.tensor([[[int(digit) for digit in row]] for row in rows], dtype=torch.uint8)


def test_two_slots_that_trade_objects_are_two_switches() -> None:
    truth = strip("0011220", "0011220")
    identity = slot_identity(strip("0011220", "0022110"), truth, num_slots=3)
    assert identity.matched.tolist() == [[0, 1, 2], [0, 2, 1]]
    assert identity.switches == [Switch(1, 1, 2, 2, 1), Switch(1, 2, 1, 1, 2)]
    torch.testing.assert_close(identity.areas[0], torch.tensor([3 / 7, 2 / 7, 2 / 7]))


def test_an_object_that_comes_back_to_its_slot_is_no_switch() -> None:
    slots, truth = strip("011", "000", "011"), strip("011", "000", "011")
    identity = slot_identity(slots, truth, num_slots=2)
    assert identity.matched.tolist() == [[0, 1], [0, -1], [0, 1]]
    assert identity.switches == []


def test_an_object_taken_over_by_an_idle_slot_is_a_switch() -> None:
    identity = slot_identity(strip("0011", "0022"), strip("0011", "0011"), num_slots=3)
    assert identity.switches == [Switch(1, 2, 1, 1, None)]


def test_void_and_unlabelled_frames_match_nothing() -> None:
    truth = torch.tensor([[[255, 255, 1, 1]], [[1, 1, 1, 1]]], dtype=torch.uint8)
    labelled = torch.tensor([True, False])
    identity = slot_identity(strip("0011", "0000"), truth, num_slots=2, labelled=labelled)
    assert identity.matched.tolist() == [[-1, 1], [-1, -1]]
    assert identity.ious[0, 1] == 1


def test_several_slots_can_be_background() -> None:
    identity = slot_identity(strip("001122"), strip("000011"), num_slots=3)
    assert identity.matched.tolist() == [[0, 0, 1]]


def test_renaming_slots_renames_their_matches_only() -> None:
    generator = torch.Generator().manual_seed(0)
    slots = torch.randint(0, 4, (5, 6, 6), generator=generator)
    truth = torch.randint(0, 3, (5, 6, 6), generator=generator).to(torch.uint8)
    order = torch.tensor([2, 0, 3, 1])
    before = slot_identity(slots, truth, num_slots=4, min_iou=0)
    after = slot_identity(order[slots], truth, num_slots=4, min_iou=0)
    assert torch.equal(after.areas[:, order], before.areas)
    assert torch.equal(after.matched[:, order], before.matched)
    assert len(after.switches) == len(before.switches)


def test_components_of_features_are_colours_of_the_strongest_directions() -> None:
    features = torch.zeros(2, 4, 4, 5)
    features[:, :, 2:, 1] = 8.0  # the strongest direction tells right from left, and alone
    pictures = component_pictures(features)
    assert pictures.shape == (2, 3, 4, 4) and pictures.dtype == torch.uint8
    assert (pictures[:, 0, :, 2:] == 255).all() and (pictures[:, 0, :, :2] == 0).all()
    assert component_pictures(features[..., :2])[:, 2].max() == 0  # two components only
