"""Slots keep apart what looks alike while labels are propagated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.propagation.test_slot_tracking import ColourSlots
from tests.propagation.test_slot_tracking import tracker as colour_tracker
from vosssl.layers.slot_initializers import ConditionalInit
from vosssl.methods.slots import Slots
from vosssl.ops.affinity import top_matches
from vosssl.propagation.label_propagation import Attend, LabelPropagation, channel_map
from vosssl.propagation.slot_gate import SlotGate, motion_embedding, slot_gated_propagation


class Pixels(nn.Module):
    """Features are colours of 4 x 4 patches and a constant."""

    def forward(self, images: Tensor) -> Tensor:
        means = F.avg_pool2d(images, 4)
        return torch.cat([means, torch.full_like(means[:, :1], 0.2)], dim=1)


def twins(time: int) -> tuple[Tensor, Tensor]:
    """A frame (3, 48, 64) with two equal red squares, one going right and one left, and its labels."""
    frame, labels = torch.full((3, 48, 64), 0.1), torch.zeros(48, 64, dtype=torch.uint8)
    for number, (top, left) in enumerate(((4, 4 + 4 * time), (28, 48 - 4 * time)), start=1):
        frame[:, top : top + 16, left : left + 12] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        labels[top : top + 16, left : left + 12] = number
    return frame, labels


class ExactSlots:
    """Posteriors of slots that know the truth, in the order of the frames."""

    def __init__(self) -> None:
        self.time = 0

    def reset(self) -> None:
        self.time = 0

    def __call__(self, frame: Tensor) -> Tensor:
        labels = twins(self.time)[1]
        self.time += 1
        return F.avg_pool2d(F.one_hot(labels.long(), 3).permute(2, 0, 1).float(), 4)


def followed(segmenter: LabelPropagation, frames: int = 9) -> list[float]:
    """IoU of the two squares in the last frame."""
    segmenter.reset()
    labels = segmenter.step(*twins(0))
    for time in range(1, frames):
        frame, truth = twins(time)
        labels = segmenter.step(frame)
    return [
        float(((labels == k) & (truth == k)).sum() / ((labels == k) | (truth == k)).sum()) for k in (1, 2)
    ]


def propagation(**options: Any) -> LabelPropagation:
    settings: dict[str, Any] = {
        "feature_map": channel_map,
        "size": None,
        "multiple": 4,
        "mean": None,
        **options,
    }
    return LabelPropagation(Pixels(), **settings)


def test_equal_squares_exchange_labels_unless_slots_keep_them_apart() -> None:
    attend = Attend(radius=8)
    assert min(followed(propagation(attend=attend))) < 0.5
    gated = propagation(attend=attend, gate=ExactSlots())
    assert min(followed(gated)) > 0.9
    assert min(followed(gated)) > 0.9, "a gate starts anew with every video"


def test_a_gate_without_strength_changes_nothing() -> None:
    plain, gated = propagation(), propagation(attend=Attend(gate_strength=0), gate=ExactSlots())
    for time in range(5):
        frame, truth = twins(time)
        prompt = truth if time == 0 else None
        assert torch.equal(plain.step(frame, prompt), gated.step(frame, prompt))


def test_strength_is_the_exponent_of_the_agreement() -> None:
    target, sources = torch.ones(1, 1, 1), torch.ones(1, 1, 1, 1)
    gates = (torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[[0.2, 0.8]]]]))
    for strength in (0.5, 1.0, 2.0):
        found = top_matches(target, sources, top_k=1, gates=gates, gate_strength=strength)
        torch.testing.assert_close(found.scores.exp(), torch.tensor([[torch.e]]) * 0.5**strength)


def test_the_gate_gives_the_posteriors_of_recurrent_slots() -> None:
    gate, online = SlotGate(colour_tracker()), colour_tracker()
    for _ in range(2):
        gate.reset()
        online.reset()
        for time in range(3):
            frame = twins(time)[0]
            online.step(frame)
            posteriors = gate(frame)
            torch.testing.assert_close(posteriors, online.masks)
            torch.testing.assert_close(posteriors.sum(0), torch.ones_like(posteriors[0]))


def test_slots_that_need_hints_cannot_gate() -> None:
    network = ColourSlots()
    network.initializer = ConditionalInit(3, 3, kind="centres")
    with pytest.raises(ValueError, match="start by themselves"):
        SlotGate(colour_tracker(network))


def test_our_slots_gate_their_own_features_or_those_of_a_vit(tmp_path: Path) -> None:
    from vosssl.backbones.vit import dino

    network = Slots(features=None, num_slots=4, slot_dim=16, width=8, dim=8, depth=1).eval()
    own = slot_gated_propagation(network, size=32)
    backbone = dino(patch_size=16, width=32, heads=2, depth=1)
    torch.save(backbone.state_dict(), tmp_path / "vit.pt")
    with_vit = slot_gated_propagation(
        network, backbone=backbone, backbone_weights=tmp_path / "vit.pt", size=48, multiple=16
    )
    for segmenter in (own, with_vit):
        labels = segmenter.step(*twins(0))
        labels = segmenter.step(twins(1)[0])
        assert labels.shape == (48, 64) and set(labels.unique().tolist()) <= {0, 1, 2}
    assert slot_gated_propagation(network, gate_strength=0).gate is None
    with pytest.raises(ValueError, match="no embedding of its own"):
        motion_embedding(Pixels())
