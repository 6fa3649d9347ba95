"""The two-way transformer of Segment Anything: tokens look at an image, and the image at the tokens.

Source: Kirillov et al., "Segment Anything", ICCV 2023, appendix A ("Lightweight mask decoder").
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.linear_stack import LinearStack
from vosssl.layers.projected_attention import ProjectedAttention

FeedForward = Callable[[int, int], nn.Module]  # width, inner width -> the network between them


class LinearPair(nn.Module):
    """Two linear layers with ReLU between, under the names of the first Segment Anything."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        return self.lin2(F.relu(self.lin1(tokens)))


def linear_layers(dim: int, hidden_dim: int) -> LinearStack:
    """The same two layers under SAM 2's names."""
    return LinearStack(dim, dim, hidden_dim=hidden_dim, depth=2)


class TwoWayBlock(nn.Module):
    """Tokens attend to each other, then to the image; the image attends to them. A norm follows each step.

    Args:
        dim: width of tokens and image.
        heads: of all attentions.
        feed_forward_dim: width inside the tokens' feed-forward network.
        cross_dim: inner width of the attentions between tokens and image.
        feed_forward: makes that network; decides its names.
        first: this block sees tokens that are nothing but their positions: these are not added again.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        feed_forward_dim: int,
        cross_dim: int,
        feed_forward: FeedForward,
        first: bool,
    ) -> None:
        super().__init__()
        self.first = first
        self.self_attn = ProjectedAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = ProjectedAttention(dim, heads, inner_dim=cross_dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = feed_forward(dim, feed_forward_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = ProjectedAttention(dim, heads, inner_dim=cross_dim)

    def forward(
        self,
        tokens: Tensor,
        image: Tensor,
        *,
        token_positions: Tensor,
        image_positions: Tensor,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One round of looks.

        Args:
            tokens: (B, P, dim).
            image: (B or 1, h * w, dim).
            token_positions: (B, P, dim).
            image_positions: (1, h * w, dim).
            mask: (B, P) bool, False for tokens that do not exist; None: all exist.

        Returns:
            Tokens (B, P, dim) and image (B, h * w, dim).
        """
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, mask=mask)
        else:
            placed = tokens + token_positions
            tokens = tokens + self.self_attn(placed, placed, tokens, mask=mask)
        tokens = self.norm1(tokens)
        placed_image = image + image_positions
        seen = self.cross_attn_token_to_image(tokens + token_positions, placed_image, image)
        tokens = self.norm2(tokens + seen)
        tokens = self.norm3(tokens + self.mlp(tokens))
        told = self.cross_attn_image_to_token(placed_image, tokens + token_positions, tokens, mask=mask)
        return tokens, self.norm4(image + told)


class TwoWayTransformer(nn.Module):
    """Blocks of both ways, then a last look of the tokens at the image.

    Args:
        dim: width of tokens and image.
        depth: number of blocks.
        heads: of all attentions.
        feed_forward_dim: width inside the tokens' feed-forward networks.
        cross_dim: inner width of the attentions between tokens and image; None: half of `dim`, as published.
        feed_forward: makes the feed-forward networks; decides their names.
    """

    def __init__(
        self,
        dim: int = 256,
        *,
        depth: int = 2,
        heads: int = 8,
        feed_forward_dim: int = 2048,
        cross_dim: int | None = None,
        feed_forward: FeedForward = linear_layers,
    ) -> None:
        super().__init__()
        cross_dim = dim // 2 if cross_dim is None else cross_dim
        self.layers = nn.ModuleList(
            TwoWayBlock(
                dim,
                heads,
                feed_forward_dim=feed_forward_dim,
                cross_dim=cross_dim,
                feed_forward=feed_forward,
                first=index == 0,
            )
            for index in range(depth)
        )
        self.final_attn_token_to_image = ProjectedAttention(dim, heads, inner_dim=cross_dim)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image: Tensor, positions: Tensor, tokens: Tensor, *, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Lets tokens and image look at each other.

        Args:
            image: (B or 1, dim, h, w); with 1 all rows of tokens ask about the same map, and its first
                projections are computed once.
            positions: (1, dim, h, w) of the image's places.
            tokens: (B, P, dim).
            mask: (B, P) bool, False for tokens that do not exist (to batch different numbers of them); None:
                all exist.

        Returns:
            Tokens (B, P, dim) and image (B, h * w, dim), row-major.
        """
        places = image.flatten(2).transpose(1, 2)  # (B, dim, h, w) -> (B, h * w, dim)
        image_positions = positions.flatten(2).transpose(1, 2)
        given = tokens
        for block in self.layers:
            tokens, places = block(
                tokens, places, token_positions=given, image_positions=image_positions, mask=mask
            )
        seen = self.final_attn_token_to_image(tokens + given, places + image_positions, places)
        return self.norm_final_attn(tokens + seen), places
