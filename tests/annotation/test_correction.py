"""How far a correction is carried."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.propagation.clickable import ColourSegmenter, square_labels, squares
from vosssl.annotation.correction import Correction, agree, less_sure
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.tracking_steps import TrackedFrame


def test_masks_agree_when_all_that_were_said_do() -> None:
    labels = square_labels(0)
    said = {1: labels == 1, 2: labels == 2}
    assert agree(labels, labels, said)
    assert not agree(labels, square_labels(1), said)
    without = torch.where(labels == 2, 0, labels)
    assert not agree(without, without, said)  # the second is out of sight: it may come back
    assert agree(without, without, {**said, 2: labels > 9}) and not agree(labels, labels, {2: labels > 9})


def test_the_confidence_of_no_object_may_lack_more_than_a_little() -> None:
    assert not less_sure({1: 0.9, 2: 0.85}, {1: 0.6, 2: 0.89}, [1, 2])
    assert less_sure({1: 0.9, 2: 0.7}, {1: 0.9, 2: 0.89}, [1, 2])
    assert less_sure({}, {1: 0.6}, [1]) and not less_sure({}, {1: 0.6}, [])  # lost; said to be absent
    assert not less_sure({1: 0.3}, {}, [1])


def test_a_lost_object_does_not_replace_one_that_was_held(tmp_path: Path) -> None:
    with ClickAndTrack(squares(), ColourSegmenter(), folder=tmp_path) as work:
        work.mask(0, square_labels(0) == 1)
        work.accept()
        list(work.track(0))
        work.mask(6, square_labels(6) == 1, identity=1)
        work.accept()
        worth, nothing = Correction(work, 6), torch.zeros(32, 48, dtype=torch.uint8)
        assert worth(TrackedFrame(5, square_labels(3), {1: 1.0}))
        assert not worth(TrackedFrame(4, nothing, {}))
        found = list(work.track(6, reverse=True, worth=lambda tracked: tracked.frame > 4))
        assert [tracked.frame for tracked in found] == [6, 5]
        assert torch.equal(work.labels(4) == 1, square_labels(4) == 1)
