"""Mean colours in the place of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vosssl.propagation.label_propagation import LabelPropagation, channel_map
from vosssl.propagation.propagation_floors import colour_propagation


class Blind(nn.Module):
    """The same feature everywhere, on a grid of stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.ones(1, 2, images.shape[2] // 4, images.shape[3] // 4)


def test_colours_follow_what_a_blind_network_loses_and_leave_it_alone() -> None:
    network = Blind()
    segmenter = LabelPropagation(network, feature_map=channel_map, size=None, multiple=4, mean=None)
    colours = colour_propagation(segmenter)
    for time in range(4):
        frame, labels = torch.full((3, 32, 64), 0.1), torch.zeros(32, 64, dtype=torch.uint8)
        frame[0, 8:24, 8 + 4 * time : 24 + 4 * time] = 0.9
        labels[8:24, 8 + 4 * time : 24 + 4 * time] = 1
        found = colours.step(frame, labels if time == 0 else None)
    assert float(((found == 1) & (labels == 1)).sum()) / float(((found == 1) | (labels == 1)).sum()) > 0.8
    assert network.calls == 1  # for the size of its grid
    assert len(segmenter.memory) == 0 and segmenter.object_ids == ()
