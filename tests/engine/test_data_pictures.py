"""Pictures of data: colours of flow, places of ids, rows of a contact sheet."""

from __future__ import annotations

import math

import torch

from vosssl.engine.data_pictures import flow_colors, flow_peak, id_anchors, numbered_overlay, sample_grid


def flow_of(x: float, y: float) -> torch.Tensor:
    return torch.tensor([x, y], dtype=torch.float32)[:, None, None]


def test_the_hue_of_flow_is_its_direction_and_white_stands_still() -> None:
    def color(x: float, y: float) -> list[int]:
        return flow_colors(flow_of(x, y), peak=2.0).flatten().tolist()

    assert color(0, 0) == [255, 255, 255]
    assert color(2, 0) == color(7, 0) == [255, 0, 0]  # right is red, and longer than the peak is no more
    assert color(-2, 0) == [0, 255, 255]
    third = (2 * math.cos(2 * math.pi / 3), 2 * math.sin(2 * math.pi / 3))
    assert color(*third) == [0, 255, 0]
    assert color(1, 0) == [255, 128, 128]


def test_flow_that_is_not_finite_is_black_and_has_no_length() -> None:
    flow = torch.tensor([[[math.nan, 3.0]], [[0.0, 4.0]]])
    assert flow_peak(flow) == 5
    assert flow_colors(flow, 5)[:, 0, 0].tolist() == [0, 0, 0]
    assert flow_peak(flow[..., :1]) == 0


def test_an_id_is_written_on_its_object_even_where_the_centre_is_not_of_it() -> None:
    labels = torch.zeros(9, 9, dtype=torch.uint8)
    labels[0, :], labels[:, 0], labels[8, :] = 7, 7, 7  # a bracket: its centre of mass lies in the hole
    labels[4:6, 5:8] = 255
    ((identity, x, y),) = id_anchors(labels)
    assert identity == 7
    assert labels[y, x] == 7
    assert id_anchors(torch.zeros(3, 3, dtype=torch.uint8)) == []


def test_an_id_fits_into_the_corner_and_into_pictures_smaller_than_it() -> None:
    for size in ((40, 40), (5, 4)):
        labels = torch.zeros(size, dtype=torch.uint8)
        labels[-1, -1] = 123
        picture = numbered_overlay(torch.full((3, *size), 90, dtype=torch.uint8), labels)
        assert tuple(picture.shape) == (3, *size)
        assert (picture != 90).any()


def test_rows_are_frames_labels_and_flow_and_short_clips_leave_room_for_a_title() -> None:
    frames = torch.zeros(2, 3, 32, 48, dtype=torch.uint8)
    labels = torch.zeros(2, 32, 48, dtype=torch.uint8)
    flow = torch.zeros(2, 2, 32, 48)
    assert sample_grid(frames, width=48).shape[1:] == (32 + 4, 4 * 50 + 2)
    assert sample_grid(frames, labels=labels, flow=flow, width=48).shape[1:] == (3 * 34 + 2, 4 * 50 + 2)
    assert sample_grid(frames.repeat(9, 1, 1, 1), width=48).shape[2] == 8 * 50 + 2
