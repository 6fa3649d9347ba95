"""Floors of segmentation into classes."""

from __future__ import annotations

import torch

from vosssl.clip import Clip
from vosssl.data.synthetic import SyntheticClips
from vosssl.methods.class_floors import SIDE, class_floors, mean_mask


def clip_of(labels: torch.Tensor) -> Clip:
    return Clip("clip", torch.zeros(len(labels), 3, *labels.shape[1:], dtype=torch.uint8), labels=labels)


def test_constant_floors_say_the_same_everywhere() -> None:
    floors = class_floors(num_classes=2)
    frame = torch.zeros(3, 6, 8, dtype=torch.uint8)
    assert set(floors) == {"all background", "all foreground"}
    assert not floors["all background"].step(frame).any()
    assert (floors["all foreground"].step(frame) == 1).all()
    assert floors["all foreground"].object_ids == (1,)
    assert (class_floors(num_classes=4)["all class 3"].step(frame) == 3).all()


def test_the_mean_mask_covers_what_is_often_foreground() -> None:
    labels = torch.zeros(5, SIDE, SIDE, dtype=torch.uint8)
    labels[:2, :, : SIDE // 2] = 3  # in two of five frames: no majority, and yet the best guess
    labels[4] = 255  # unknown: does not count
    mean = mean_mask([clip_of(labels)], 2)
    assert mean is not None
    guess = mean.argmax(dim=0)
    assert guess[:, : SIDE // 2].all() and not guess[:, SIDE // 2 :].any()


def test_without_labels_there_is_no_mean_mask() -> None:
    bare = Clip("bare", torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert mean_mask([bare], 2) is None
    assert "mean training mask" not in class_floors(clips=[bare])


def test_the_mean_mask_of_generated_videos_is_larger_in_the_middle() -> None:
    mean = mean_mask(SyntheticClips(size=16, frames=2, count=16), 2)
    assert mean is not None
    middle = mean[1, SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4].mean()
    assert middle > mean[1].mean()
