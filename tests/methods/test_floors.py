"""Trivial baselines do what their names say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.video import clip_video
from vosssl.layers.slot_network import Encoded
from vosssl.methods.floors import (
    ColourKMeansSegmenter,
    GridSegmenter,
    colour_kmeans_floor,
    colour_positions,
    default_floors,
    feature_kmeans_floor,
    grid_labels,
)


def scene(length: int = 4) -> Clip:
    """A red square that moves over blue."""
    labels = torch.zeros(length, 32, 48, dtype=torch.uint8)
    for time in range(length):
        labels[time, 8:24, 8 + 4 * time : 24 + 4 * time] = 1
    colours = torch.tensor([[0, 0, 255], [255, 0, 0]], dtype=torch.uint8)
    return Clip("scene", colours[labels.long()].permute(0, 3, 1, 2).contiguous(), labels)


def encode(frames: Tensor) -> Encoded:
    """Mean colours of 4 x 4 pixels."""
    features = torch.nn.functional.avg_pool2d(frames, 4).flatten(2).transpose(1, 2)
    return Encoded(features, features, (frames.shape[2] // 4, frames.shape[3] // 4))


def same_partition(labels: Tensor, truth: Tensor) -> float:
    """Share of pixels that agree under the better of the two namings of two segments."""
    agree = (labels == labels.amax()) == (truth == 1)
    return max(float(agree.float().mean()), 1 - float(agree.float().mean()))


def test_grid_blocks_are_numbered_in_reading_order() -> None:
    labels = grid_labels((4, 6), rows=2, columns=3)
    assert labels[::2, ::2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert torch.bincount(labels.flatten()).tolist() == [0, 4, 4, 4, 4, 4, 4]


def test_positions_go_to_their_weight_and_colours_to_one() -> None:
    points = colour_positions(torch.full((1, 3, 5, 10), 255, dtype=torch.uint8), position_weight=0.5)
    assert points.shape == (1, 50, 5)
    assert points[0, :, :3].min() == 1
    assert float(points[0, :, 4].max()) == pytest.approx(0.45)


def test_colour_kmeans_separates_colours_and_keeps_identity() -> None:
    clip = scene()
    labelled = list(colour_kmeans_floor(clusters=2, position_weight=0.0)(clip_video(clip)))
    labels = torch.stack([labels for _, labels in labelled])
    assert clip.labels is not None
    assert same_partition(labels, clip.labels) == 1.0


def test_feature_kmeans_separates_features() -> None:
    clip = scene()
    labelled = list(feature_kmeans_floor(encode, clusters=2)(clip_video(clip)))
    labels = torch.stack([labels for _, labels in labelled])
    assert clip.labels is not None
    assert same_partition(labels, clip.labels) > 0.95


def test_online_kmeans_follows_the_object() -> None:
    clip = scene()
    segmenter = ColourKMeansSegmenter(clusters=2, position_weight=0.1)
    labels = torch.stack([segmenter.step(frame) for frame in clip.frames])
    assert clip.labels is not None
    assert same_partition(labels, clip.labels) == 1.0


@pytest.mark.parametrize("segmenter", [GridSegmenter(rows=2, columns=2), ColourKMeansSegmenter(clusters=4)])
def test_every_pixel_belongs_to_a_segment(segmenter: GridSegmenter | ColourKMeansSegmenter) -> None:
    labels = segmenter.step(scene().frames[0])
    assert labels.dtype == torch.uint8
    assert int(labels.min()) >= 1 and int(labels.max()) <= 4
    assert segmenter.object_ids == (1, 2, 3, 4)


def test_a_floor_takes_no_prompt() -> None:
    with pytest.raises(ValueError, match="takes no prompt at all"):
        GridSegmenter().step(scene().frames[0], torch.zeros(32, 48, dtype=torch.uint8))


def test_the_table_has_its_floors() -> None:
    assert "k-means own features" not in default_floors(clusters=3)
    floors = default_floors(clusters=3, encode=encode)
    assert {"one segment", "grid 2x3", "k-means own features"} <= floors.keys()
    for floor in floors.values():
        frame, labels = next(iter(floor(clip_video(scene()))))
        assert frame.name == "00000"
        assert labels.shape == (32, 48)
