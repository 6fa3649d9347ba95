"""Averages over sizes."""

from __future__ import annotations

import pytest
import torch

from tests.fill import box_mask, noise_video
from tests.methods.stcn_models import small
from vosssl.methods.stcn import stcn_segmenter

VIDEO = noise_video(4, 48, 64, 1)
LABELS = box_mask(48, 64, [(4, 4, 24, 28), (26, 34, 44, 60)]).byte()


def test_probabilities_of_all_scales_are_averaged() -> None:
    network, scales = small(), (0.5, 1.0, 1.5)
    together = stcn_segmenter(network, scales=scales)
    alone = [stcn_segmenter(network, scales=[scale]) for scale in scales]
    for number, frame in enumerate(VIDEO):
        prompt = LABELS if number == 0 else None
        assert together.step(frame, prompt).shape == (48, 64)
        rows = []
        for segmenter in alone:
            segmenter.step(frame, prompt)
            rows.append(segmenter.probabilities)
        torch.testing.assert_close(together.probabilities, torch.stack(rows).mean(0), rtol=0, atol=1e-6)
    assert together.object_ids == (1, 2)


def test_a_reset_starts_all_of_them_anew() -> None:
    segmenter = stcn_segmenter(small(), scales=(0.5, 1.0))
    first = [segmenter.step(frame, LABELS if number == 0 else None) for number, frame in enumerate(VIDEO)]
    segmenter.reset()
    again = [segmenter.step(frame, LABELS if number == 0 else None) for number, frame in enumerate(VIDEO)]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


def test_no_scale_is_an_error() -> None:
    with pytest.raises(ValueError, match="positive factors"):
        stcn_segmenter(small(), scales=())
