"""Slot decoders: from slots back to features or pixels, with a mask per slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.mlp import MLP, zero_bias
from vosssl.layers.positions import CoordinatePositions, resize_positions
from vosssl.layers.transformer import TransformerEncoder


class Decoded(NamedTuple):
    """What a decoder returns.

    Attributes:
        reconstruction: (N, P, C) features or pixels.
        masks: (N, K, P), sums to 1 over K.
        grid: (h, w) of the P positions, row-major; None means the grid that was asked for.
    """

    reconstruction: Tensor
    masks: Tensor
    grid: tuple[int, int] | None = None


class MLPDecoder(nn.Module):
    """Decodes every slot at every patch by one MLP and blends the slots by their alphas.

    Two exact rewrites make it cheaper than written: the first layer is applied to slots and positions apart,
    W (slot + position) = W slot + W position; and the masks, which sum to one, mix the last hidden layer
    instead of the outputs, sum_k m_k (W h_k + b) = W (sum_k m_k h_k) + b.

    Args:
        slot_dim: width D of the slots.
        output_dim: width C of the reconstruction.
        hidden_dims: hidden widths, at least one.
        grid: (h, w) of the position embedding.
        input_dim: width of a linear layer before positions are added; none when left out.

    Raises:
        ValueError: no hidden layer.

    Source: Seitzer et al., "Bridging the Gap to Real-World Object-Centric Learning" (DINOSAUR), ICLR 2023.
    """

    def __init__(
        self,
        slot_dim: int,
        output_dim: int,
        *,
        hidden_dims: Sequence[int],
        grid: tuple[int, int],
        input_dim: int | None = None,
    ) -> None:
        super().__init__()
        if not hidden_dims:
            raise ValueError("MLPDecoder got no hidden_dims, expected at least one hidden layer")
        width = slot_dim if input_dim is None else input_dim
        self.output_dim = output_dim
        self.grid = (grid[0], grid[1])
        self.pos_emb = nn.Parameter(torch.randn(1, 1, grid[0] * grid[1], width) * width**-0.5)
        self.inp_transform = nn.Identity() if input_dim is None else nn.Linear(slot_dim, input_dim)
        self.mlp = MLP(width, output_dim + 1, hidden_dims=hidden_dims)

    def forward(self, slots: Tensor, grid: tuple[int, int]) -> Decoded:
        """Slots (N, K, D) and a grid (h, w) -> reconstruction (N, h*w, C), masks (N, K, h*w)."""
        positions = resize_positions(self.pos_emb[0], self.grid, grid)  # (1, P, width)
        first, last = self.mlp.first, self.mlp.last
        slots = F.linear(self.inp_transform(slots), first.weight)[:, :, None]  # (N, K, 1, hidden)
        hidden = slots + F.linear(positions, first.weight, first.bias)  # (N, K, P, hidden)
        hidden = self.mlp.layers[1:-1](hidden)
        weight, alpha_weight = last.weight.split((self.output_dim, 1))
        bias, alpha_bias = last.bias.split((self.output_dim, 1))
        masks = F.linear(hidden, alpha_weight, alpha_bias).squeeze(-1).softmax(dim=1)  # (N, K, P)
        mixed = torch.einsum("nkp,nkph->nph", masks.to(hidden.dtype), hidden)
        return Decoded(F.linear(mixed, weight, bias), masks, grid)


class SlotMixer(nn.Module):
    """Decides per patch how the slots mix, then renders the mixture once: the cost hardly grows with K.

    Args:
        slot_dim: width D of the slots.
        output_dim: width C of the reconstruction.
        grid: (h, w) of the position embedding.
        hidden_dims: hidden widths of the renderer, whose last layer has the width of the last of them.
        blocks: transformer blocks of the allocator.
        heads: heads of the allocator.
        positions: whether the renderer sees the position added to the mixture, behind it, or not at all.
        layer_norms: normalise the queries and keys of the mixing attention.
        norm_memory: normalise the slots that the allocator reads; only with `layer_norms`.
        temperature: of the mixing softmax; D^0.5 when left out.

    Source: Sajjadi et al., "Object Scene Representation Transformer", NeurIPS 2022; sizes: Zadaianchuk et
        al. (VideoSAUR), NeurIPS 2023.
    """

    def __init__(
        self,
        slot_dim: int,
        output_dim: int,
        *,
        grid: tuple[int, int],
        hidden_dims: Sequence[int] = (1024, 1024, 1024),
        blocks: int = 2,
        heads: int = 4,
        positions: Literal["add", "concat", "none"] = "add",
        layer_norms: bool = True,
        norm_memory: bool = True,
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        self.grid = (grid[0], grid[1])
        self.positions = positions
        self.scale = slot_dim**-0.5 if temperature is None else 1.0 / temperature
        render_dim = hidden_dims[-1]
        mixed_dim = 2 * slot_dim if positions == "concat" else slot_dim
        self.pos_emb = nn.Parameter(torch.randn(1, grid[0] * grid[1], slot_dim) * slot_dim**-0.5)
        self.allocator = TransformerEncoder(slot_dim, blocks, heads=heads, memory_dim=slot_dim)
        self.renderer = MLP(mixed_dim, render_dim, hidden_dims=hidden_dims, final_activation=True)
        self.to_q = nn.Linear(slot_dim, slot_dim, bias=False)
        self.to_k = nn.Linear(slot_dim, slot_dim, bias=False)
        self.norm_k = nn.LayerNorm(slot_dim) if layer_norms else nn.Identity()
        self.norm_q = nn.LayerNorm(slot_dim) if layer_norms else nn.Identity()
        self.norm_memory = nn.LayerNorm(slot_dim) if layer_norms and norm_memory else nn.Identity()
        self.output_transform = nn.Linear(render_dim, output_dim)
        for linear in (self.to_q, self.to_k, self.output_transform):
            nn.init.xavier_uniform_(linear.weight)
        zero_bias(self.output_transform)

    def _first_layer(self, masks: Tensor, slots: Tensor, positions: Tensor) -> Tensor:
        """W (mixture + position) + b with the slots multiplied by W before they are mixed: K rows, not P."""
        first = self.renderer.first
        weight = first.weight
        if self.positions == "none":
            return masks @ F.linear(slots, weight) + first.bias
        slot_weight, position_weight = (
            weight.chunk(2, dim=1) if self.positions == "concat" else (weight, weight)
        )
        return masks @ F.linear(slots, slot_weight) + F.linear(positions, position_weight, first.bias)

    def forward(self, slots: Tensor, grid: tuple[int, int]) -> Decoded:
        """Slots (N, K, D) and a grid (h, w) -> reconstruction (N, h*w, C), masks (N, K, h*w)."""
        positions = resize_positions(self.pos_emb, self.grid, grid)  # (1, P, D)
        queries = self.allocator(positions, self.norm_memory(slots))  # (N, P, D)
        queries, keys = self.to_q(self.norm_q(queries)), self.to_k(self.norm_k(slots))
        masks = (queries @ keys.transpose(-2, -1) * self.scale).softmax(dim=-1)  # (N, P, K)
        hidden = self._first_layer(masks.to(queries.dtype), slots, positions)  # (N, P, hidden)
        hidden = self.renderer.layers[1:](hidden)
        return Decoded(self.output_transform(hidden), masks.transpose(-2, -1), grid)


class SpatialBroadcastDecoder(nn.Module):
    """Copies each slot to a coarse grid, adds coordinates, and upsamples it by transposed convolutions.

    Args:
        slot_dim: width D of the slots.
        output_dim: channels C of the reconstruction.
        channels: channels of the four convolutions.
        initial_size: (h, w) of the coarse grid at the training resolution.
        upsamplings: how many of the four convolutions double the resolution.
        scale: rows of the output per row of the grid that the slots were grouped on.

    Raises:
        ValueError: upsamplings outside 0..4.

    Source: Watters et al., "Spatial Broadcast Decoder", 2019; sizes: SAVi, ICLR 2022, appendix A.
    """

    def __init__(
        self,
        slot_dim: int,
        output_dim: int,
        *,
        channels: int = 64,
        initial_size: tuple[int, int] = (8, 8),
        upsamplings: int = 4,
        scale: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= upsamplings <= 4:
            raise ValueError(f"upsamplings is {upsamplings}, expected 0 to 4 (there are four convolutions)")
        self.output_dim = output_dim
        self.scale = scale
        self.factor = 2**upsamplings
        self.pos_embed = CoordinatePositions(slot_dim, (initial_size[0], initial_size[1]))
        layers: list[nn.Module] = []
        width = slot_dim
        for index in range(4):
            stride = 2 if index < upsamplings else 1
            convolution = nn.ConvTranspose2d(
                width, channels, kernel_size=5, stride=stride, padding=2, output_padding=stride - 1
            )
            zero_bias(convolution)
            layers += [convolution, nn.ReLU(inplace=True)]
            width = channels
        self.backbone = nn.Sequential(*layers)
        self.output_transform = nn.Conv2d(channels, output_dim + 1, kernel_size=1)
        zero_bias(self.output_transform)

    def forward(self, slots: Tensor, grid: tuple[int, int]) -> Decoded:
        """Slots (N, K, D) grouped on a grid (h, w) -> reconstruction (N, P, C) and masks (N, K, P).

        P is h * w * scale^2.

        Raises:
            ValueError: an output grid that the upsampling cannot reach.
        """
        height, width = grid[0] * self.scale, grid[1] * self.scale
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"an output of {height} x {width} is not a multiple of {self.factor}; resize the frames"
            )
        count = slots.shape[1]
        coarse = slots.flatten(0, 1)[:, :, None, None]  # (N, K, D) -> (N*K, D, 1, 1)
        coarse = coarse.expand(-1, -1, height // self.factor, width // self.factor)
        outputs = self.output_transform(self.backbone(self.pos_embed(coarse)))  # (N*K, C + 1, H, W)
        outputs = outputs.flatten(2).unflatten(0, (-1, count))  # (N, K, C + 1, P)
        values, alphas = outputs.split((self.output_dim, 1), dim=2)
        masks = alphas.softmax(dim=1)  # (N, K, 1, P)
        reconstruction = (values * masks).sum(dim=1).transpose(1, 2)  # (N, C, P) -> (N, P, C)
        return Decoded(reconstruction, masks.squeeze(2), (height, width))
