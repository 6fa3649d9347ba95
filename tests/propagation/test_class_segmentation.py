"""Networks of classes: what they learn by, and how they segment video."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.propagation.class_segmentation import ClassObjective, ClassSegmenter, normalised


class Brightness(nn.Module):
    """Bright is class 1: logits from the mean of the last two frames, at a quarter of the resolution."""

    num_classes = 2
    window = 2

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(self, clips: Tensor) -> Tensor:
        return torch.stack([self.logits(clip) for clip in clips])

    def logits(self, frames: Tensor) -> Tensor:
        light = nn.functional.avg_pool2d(frames.mean(dim=1, keepdim=True), 4) * self.gain
        return torch.cat([-light, light], dim=1)

    def frame_features(self, images: Tensor) -> Tensor:
        return images

    def newest_logits(self, past: list[Tensor]) -> Tensor:
        assert len(past) <= self.window
        return self.logits(torch.stack(past).mean(dim=0))


def halves(*, left: int, right: int) -> Tensor:
    """(3, 12, 16) uint8, two grey halves."""
    frame = torch.full((3, 12, 16), left, dtype=torch.uint8)
    frame[..., 8:] = right
    return frame


def test_the_segmenter_needs_no_prompt_and_names_classes() -> None:
    segmenter = ClassSegmenter(Brightness(), stride=8)  # 12 rows are padded to 16 with a middling grey
    labels = segmenter.step(halves(left=0, right=255))
    assert segmenter.object_ids == (1,)
    assert labels.shape == (12, 16)
    assert not labels[:, :6].any() and labels[:, 10:].all()
    assert torch.allclose(segmenter.probabilities.sum(dim=0), torch.ones(12, 16), atol=1e-5)
    with pytest.raises(ValueError, match="takes no prompt at all"):
        segmenter.step(halves(left=0, right=255), torch.zeros(12, 16, dtype=torch.uint8))


def test_the_window_slides_and_reset_forgets_it() -> None:
    segmenter = ClassSegmenter(Brightness())
    dark, bright = halves(left=0, right=0), halves(left=255, right=255)
    assert not segmenter.step(dark).any()
    mixed = segmenter.step(bright)  # the mean of both
    after = segmenter.probabilities.clone()
    assert segmenter.step(bright).all() and mixed.shape == (12, 16)
    assert not torch.equal(after, segmenter.probabilities)
    alone = segmenter.probabilities.clone()
    segmenter.reset()
    segmenter.step(bright)
    assert torch.allclose(alone, segmenter.probabilities)


def test_the_objective_gives_each_weighted_term_and_ignores_void() -> None:
    frames = torch.stack([halves(left=0, right=255)] * 2)[None]  # (1, 2, 3, 12, 16)
    labels = torch.zeros(1, 2, 12, 16, dtype=torch.uint8)
    labels[..., 8:] = 7
    network = Brightness()
    terms = ClassObjective(cross_entropy=2, dice=0, focal=1, iou=1)(network, Batch(frames, labels), 0)
    single = ClassObjective(dice=0)(network, Batch(frames, labels), 0)
    assert set(terms) == {"cross_entropy", "focal", "iou"}
    assert terms["cross_entropy"].item() == pytest.approx(2 * single["cross_entropy"].item())
    wrong = labels.clone()
    wrong[:, :, :, :8] = 255
    voided = ClassObjective(dice=0)(network, Batch(255 - frames, wrong), 0)
    assert voided["cross_entropy"].item() > 1  # the right half is wrong, the left one does not count


def test_clips_without_labels_and_senseless_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.train\.annotations"):
        ClassObjective()(Brightness(), Batch(torch.zeros(1, 1, 3, 8, 8), names=("dog",)), 0)
    for weights in ({"cross_entropy": 0.0, "dice": 0.0}, {"dice": -1.0}):
        with pytest.raises(ValueError, match="expected none below 0"):
            ClassObjective(**weights)


def test_normalised_frames_have_the_mean_and_spread_of_imagenet() -> None:
    grey = torch.tensor([0.485, 0.456, 0.406])[:, None, None].expand(3, 2, 2)
    assert normalised(grey).abs().max() < 1e-6
    white = normalised(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert white[0, 0].item() == pytest.approx((1 - 0.485) / 0.229)
