"""A stack of linear layers, the one of slot models: `layers` counts norms and activations too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        input_dim: width of the input.
        output_dim: width of the output.
        hidden_dims: widths between.
        layer_norm: normalise the input first.
        final_activation: ReLU after the last layer as well.
        residual: add the input (before the norm) to the output.

    Raises:
        ValueError: residual with different widths.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        hidden_dims: Sequence[int],
        layer_norm: bool = False,
        final_activation: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if residual and input_dim != output_dim:
            raise ValueError(f"a residual MLP keeps its width, got {input_dim} -> {output_dim}")
        self.residual = residual
        layers: list[nn.Module] = [nn.LayerNorm(input_dim)] if layer_norm else []
        for narrow, wide in pairwise([input_dim, *hidden_dims, output_dim]):
            linear = nn.Linear(narrow, wide)
            zero_bias(linear)
            layers += [linear, nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*(layers if final_activation else layers[:-1]))

    @property
    def first(self) -> nn.Linear:
        """The first linear layer."""
        return cast(nn.Linear, next(layer for layer in self.layers if isinstance(layer, nn.Linear)))

    @property
    def last(self) -> nn.Linear:
        """The last linear layer."""
        return cast(nn.Linear, [layer for layer in self.layers if isinstance(layer, nn.Linear)][-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        outputs = self.layers(inputs)
        return inputs + outputs if self.residual else outputs


def zero_bias(layer: nn.Module) -> None:
    """Starts a layer's bias at zero, as the official slot models start theirs."""
    for name, parameter in layer.named_parameters(recurse=False):
        if name == "bias":
            nn.init.zeros_(parameter)
