"""Clicks in the first frame instead of masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.sources import ClipVideo
from vosssl.engine.clicks import follow_clicks
from vosssl.propagation.segmenter import Clicks, Prompted, PromptKind, VideoSegmenter


class Squares(VideoSegmenter):
    """Says a square of 3 pixels around every positive click, and remembers it."""

    prompt_kinds: tuple[PromptKind, ...] = ("clicks",)  # type: ignore[misc]

    def forget(self) -> None:
        self.said: list[dict[int, Clicks]] = []

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        if prompted is not None:
            self.said = [*getattr(self, "said", []), prompted.clicks]
            self.rows = torch.zeros(len(self.object_ids) + 1, *frame.shape[1:])
            self.rows[0] = 0.5
            for row, identity in enumerate(self.object_ids, start=1):
                clicks = prompted.clicks[identity]
                for (x, y), positive in zip(clicks.points.long().tolist(), clicks.positive, strict=True):
                    self.rows[row, y - 1 : y + 2, x - 1 : x + 2] = float(positive)
        return self.rows


def video() -> ClipVideo:
    labels = torch.zeros(3, 16, 20, dtype=torch.uint8)
    labels[1:, 2:5, 3:6] = 1
    labels[1:, 8:11, 4:13] = 2
    return ClipVideo(Clip("video", torch.zeros(3, 3, 16, 20, dtype=torch.uint8), labels))


def test_the_first_click_lies_in_the_middle_and_the_next_where_the_error_is_widest() -> None:
    segmenter = Squares()
    found = [labels for _, labels in follow_clicks(segmenter, clicks=2)(video())]
    assert len(found) == 3 and not found[0].any()  # nothing is labelled in the first frame
    (said,) = segmenter.said
    assert said[1].points.tolist() == [[4.5, 3.5]]  # is all right after one click
    assert len(said[2].points) == 2 and said[2].positive.all()
    assert (found[1] == 1).sum() == 9 and (found[1] == 2).sum() == 18
    assert torch.equal(found[1], found[2])


def test_no_click_and_methods_without_clicks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        follow_clicks(Squares(), clicks=0)
    segmenter = Squares()
    segmenter.prompt_kinds = ("masks",)  # type: ignore[misc]
    with pytest.raises(ValueError, match="takes masks"):
        follow_clicks(segmenter, clicks=1)
