"""Layer norm over channels, place by place."""

from __future__ import annotations

import torch

from vosssl.layers.channel_norm import ChannelNorm


def test_a_place_is_normalised_over_its_channels_alone() -> None:
    maps = torch.tensor([[1.0, 3.0], [5.0, 3.0]]).t().reshape(1, 2, 1, 2)  # places (1, 3) and (5, 3)
    torch.testing.assert_close(
        ChannelNorm(2)(maps), torch.tensor([[[[-1.0, 1.0]], [[1.0, -1.0]]]]), atol=1e-5, rtol=0
    )


def test_memory_order_changes_no_value() -> None:
    torch.manual_seed(0)
    norm, maps = ChannelNorm(6), torch.randn(2, 6, 4, 5)
    norm.weight.data.normal_()
    found = norm(maps.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, norm(maps))
    assert found.is_contiguous(memory_format=torch.channels_last)
