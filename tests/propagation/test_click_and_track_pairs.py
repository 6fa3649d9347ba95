"""Every prompter with every segmenter, from a click to corrected tracks.

Their weights mean nothing, so masks are whatever they are; what is tested is that all of them can be told and
taken back the same things.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import vosssl
from tests.methods.cutie_models import tiny_cutie
from tests.methods.mobile_sam_models import tiny_mobile_sam
from tests.methods.sam2_models import tiny_sam2
from tests.methods.stcn_models import small
from tests.propagation.clickable import ColourNetwork, square_labels, squares
from vosssl.methods.cutie.segmenter import cutie_segmenter
from vosssl.methods.grab_cut import grab_cut_prompter
from vosssl.methods.sam2.image_prompts import sam2_prompter
from vosssl.methods.sam2.segmenter import SAM2Segmenter
from vosssl.methods.stcn import stcn_segmenter
from vosssl.propagation.click_and_track import ClickAndTrack
from vosssl.propagation.image_prompting import ImagePrompter
from vosssl.propagation.segmenter import Box, VideoSegmenter

SEGMENTERS: dict[str, Callable[[], VideoSegmenter]] = {
    "cutie": lambda: cutie_segmenter(tiny_cutie()),
    "stcn": lambda: stcn_segmenter(small()),
    "sam2": lambda: SAM2Segmenter(tiny_sam2(), image_size=64),
    "propagation": lambda: vosssl.create_segmenter("motion-features-propagation", device="cpu"),
    "copy": lambda: vosssl.create_segmenter("copy-first-mask"),
}
PROMPTERS: dict[str, Callable[[], ImagePrompter]] = {
    "mobile-sam": lambda: ImagePrompter(tiny_mobile_sam()),
    "sam2": lambda: sam2_prompter(tiny_sam2(), image_size=64),
    "grab-cut": grab_cut_prompter,
}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_segmenter_is_told_corrected_and_taken_back(name: str) -> None:
    prompter = ImagePrompter(ColourNetwork())
    with ClickAndTrack(squares(frames=6), SEGMENTERS[name](), prompter=prompter) as work:
        work.click(0, 5, 5)
        work.accept()
        assert [tracked.frame for tracked in work.track(0)] == list(range(6))
        work.click(3, 13, 20)
        work.accept()
        work.click(3, 10, 5, identity=1)
        work.accept()
        list(work.track(3))
        list(work.track(3, reverse=True))
        work.set_absent(5, 2)
        for frame in (0, 3):
            assert torch.equal(work.labels(frame) == 1, square_labels(frame) == 1)
        assert torch.equal(work.labels(3), square_labels(3)) and not bool((work.labels(5) == 2).any())
        before = [work.labels(frame) for frame in range(6)]
        work.remove(1)
        list(work.track(3))
        assert work.undo() == "tracking from frame 3" and work.undo() == "removal of object 1"
        assert all(torch.equal(work.labels(frame), before[frame]) for frame in range(6))


@pytest.mark.parametrize("name", PROMPTERS)
def test_a_prompter_answers_clicks_boxes_and_corrections(name: str) -> None:
    with ClickAndTrack(squares(frames=3), SEGMENTERS["copy"](), prompter=PROMPTERS[name]()) as work:
        drafts = [work.click(0, 5, 5), work.click(0, 30, 5, positive=False), work.box(0, Box(1, 1, 20, 16))]
        for draft in drafts:
            assert draft.mask.shape == (32, 48) and draft.score is not None and draft.logits is not None
        work.mask(0, square_labels(0) == 1)
        work.accept()
        list(work.track(0))
        assert work.click(2, 7, 5, identity=1).mask.shape == (32, 48)
