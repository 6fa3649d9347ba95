"""Low-rank adaptation: a linear layer stays as it is, and a product of two thin matrices beside it learns.

The layer keeps its name: `qkv.weight` and `qkv.bias` are still there, `qkv.lora_down`, `qkv.lora_up` and
`qkv.lora_scale` come to them. `merged_state` adds the product to the weights and leaves the official names.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

UP, DOWN, SCALE = "lora_up", "lora_down", "lora_scale"


class LowRankLinear(nn.Linear):
    """A linear layer with a low-rank change of its weights; at first the change is nothing.

    Args:
        linear: the layer; its weights are taken over, not copied, and no longer learn.
        rank: of the change.
        alpha: the change counts alpha / rank times.
    """

    lora_scale: Tensor

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.requires_grad_(False)
        like = linear.weight.detach()
        self.lora_down = nn.Parameter(like.new_empty(rank, linear.in_features))
        self.lora_up = nn.Parameter(like.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))
        self.register_buffer(SCALE, like.new_tensor(alpha / rank))

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        change = F.linear(F.linear(inputs, self.lora_down), self.lora_up)  # (..., rank) between
        return super().forward(inputs) + change * self.lora_scale


def add_low_rank(network: nn.Module, match: str, *, rank: int = 8, alpha: float = 16.0) -> list[str]:
    """Gives linear layers a low-rank change that learns; changes the network in place.

    Args:
        network: whose layers.
        match: a regular expression that is searched in their names.
        rank: see `LowRankLinear`.
        alpha: see there.

    Returns:
        Names of the layers.

    Raises:
        ValueError: a rank below 1, or no layer of that name.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}, expected at least 1")
    found = [
        name
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear) and not isinstance(part, LowRankLinear) and re.search(match, name)
    ]
    if not found:
        raise ValueError(f"no linear layer of {type(network).__name__} has {match!r} in its name")
    for name in found:
        owner, _, own = name.rpartition(".")
        linear = network.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(network.get_submodule(owner), own, LowRankLinear(linear, rank=rank, alpha=alpha))
    return found


def merged_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with low-rank changes added to the weights they belong to.

    Args:
        state: of any network; it stays as it is.

    Returns:
        The entries in their order, those of the changes left out.
    """
    merged = {key: value for key, value in state.items() if key.rpartition(".")[2] not in (UP, DOWN, SCALE)}
    for key, up in state.items():
        owner, _, own = key.rpartition(".")
        if own == UP:
            weight, down, scale = (state[f"{owner}.{name}"] for name in ("weight", DOWN, SCALE))
            change = scale.double() * (up.double() @ down.double())
            merged[f"{owner}.weight"] = (weight.double() + change).to(weight.dtype)
    return merged


def has_low_rank(network: nn.Module) -> bool:
    """Whether any layer has a low-rank change."""
    return any(isinstance(part, LowRankLinear) for part in network.modules())
