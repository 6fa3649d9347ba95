"""A running average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of the trained parameters, as a network of its own.

    Early on the decay is min(decay, (1 + step) / (10 + step)), so that short runs forget where they started.
    Frozen parameters are shared with the network, not copied; buffers are copied as they are.

    Args:
        network: the network to follow; neither wrapped nor compiled.
        decay: weight of the past, in [0, 1).

    Attributes:
        network: the averaged network; its state dict has the same keys as the one it follows.

    Raises:
        ValueError: decay outside [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(
                f"ema is {decay}, expected a decay in [0, 1) such as 0.999, or None for no average"
            )
        self.decay = decay
        shared = {id(weight): weight for weight in network.parameters() if not weight.requires_grad}
        self.network = copy.deepcopy(network, shared).requires_grad_(False).eval()
        pairs = list(zip(self.network.parameters(), network.parameters(), strict=True))
        self._averages: list[Tensor] = [average for average, live in pairs if average is not live]
        self._weights: list[Tensor] = [live for average, live in pairs if average is not live]
        self._buffer_pairs = list(zip(self.network.buffers(), network.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the network.

        Args:
            step: optimiser steps taken before this one.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        if self._averages:
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for average, live in self._buffer_pairs:
            average.copy_(live)
