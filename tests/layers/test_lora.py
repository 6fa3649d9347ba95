"""Low-rank adaptation: nothing at first, exact when merged, names kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vosssl.layers.lora import LowRankLinear, add_low_rank, has_low_rank, merged_state


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4, bias=False))


def test_it_begins_as_the_layer_it_changes() -> None:
    network, inputs = small(), torch.randn(5, 6)
    before = network(inputs)
    assert add_low_rank(network, r"^[02]$", rank=2) == ["0", "2"]
    assert torch.equal(network(inputs), before) and has_low_rank(network)


def test_the_change_of_a_layer_solved_by_hand() -> None:
    linear = nn.Linear(2, 2, bias=False)
    nn.init.eye_(linear.weight)
    layer = LowRankLinear(linear, rank=1, alpha=3.0)
    with torch.no_grad():
        layer.lora_down.copy_(torch.tensor([[1.0, 2.0]]))
        layer.lora_up.copy_(torch.tensor([[1.0], [-1.0]]))
    assert layer(torch.tensor([1.0, 1.0])).tolist() == [1.0 + 9.0, 1.0 - 9.0]


def test_merged_weights_compute_the_same_under_the_first_names() -> None:
    plain, network = small(), small()
    add_low_rank(network, r"^0$|^2$", rank=3, alpha=6.0)
    for part in network.modules():
        if isinstance(part, LowRankLinear):
            nn.init.normal_(part.lora_up)
    merged = merged_state(network.state_dict())
    assert list(merged) == list(plain.state_dict())
    plain.load_state_dict(merged)
    inputs = torch.randn(5, 6)
    assert torch.allclose(plain(inputs), network(inputs), atol=1e-5)
    assert not torch.allclose(plain(inputs), small()(inputs), atol=1e-2)


def test_only_the_change_learns() -> None:
    network = small()
    add_low_rank(network, r"^0$", rank=2)
    learns = [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert learns == ["0.lora_down", "0.lora_up", "2.weight"]


def test_a_rank_of_nothing_and_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        add_low_rank(small(), "0", rank=0)
    with pytest.raises(ValueError, match="no linear layer"):
        add_low_rank(small(), "qkv")
