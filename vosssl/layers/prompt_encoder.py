"""Prompts to tokens and maps, as in Segment Anything: points, boxes and low-resolution masks.

Source: Kirillov et al., "Segment Anything", ICCV 2023, appendix A ("Prompt encoder"); positions by Tancik et
al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains", NeurIPS 2020.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.channel_norm import ChannelNorm
from vosssl.ops.resize import Size, resize_image

PADDING, NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3  # labels of points
ABSENT = -2  # label of a point that does not exist: fills rows with fewer points than others


class FourierPositions(nn.Module):
    """Sines and cosines of random projections of a place; the projection comes with the weights.

    Args:
        frequencies: number of projections; codes are twice as wide.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, frequencies))

    def forward(self, places: Tensor) -> Tensor:
        """(..., 2) as x and y in [0, 1] over the image, to (..., 2 * frequencies)."""
        matrix = self.positional_encoding_gaussian_matrix
        angles = (2 * places.to(matrix) - 1) @ matrix * (2 * math.pi)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, size: Size) -> Tensor:
        """Codes of the centres of a map's places: (h, w) to (1, 2 * frequencies, h, w)."""
        matrix = self.positional_encoding_gaussian_matrix
        rows, columns = (
            (torch.arange(side, device=matrix.device, dtype=matrix.dtype) + 0.5) / side for side in size
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        codes: Tensor = self(torch.stack([x, y], dim=-1))  # (h, w, 2) -> (h, w, C)
        return codes.permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Points and boxes become tokens, masks become maps that are added to the image's features.

    Sizes are taken from what comes in: nothing is fixed to 1024 pixels.

    Args:
        dim: width of tokens and maps.
        mask_dim: channels of a mask before its last convolution; a multiple of 4.
    """

    def __init__(self, dim: int = 256, *, mask_dim: int = 16) -> None:
        super().__init__()
        self.pe_layer = FourierPositions(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(BOTTOM_RIGHT + 1))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_dim // 4, 2, stride=2),
            ChannelNorm(mask_dim // 4),
            nn.GELU(),
            nn.Conv2d(mask_dim // 4, mask_dim, 2, stride=2),
            ChannelNorm(mask_dim),
            nn.GELU(),
            nn.Conv2d(mask_dim, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def tokens(
        self,
        image_size: Size,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> Tensor:
        """Tokens of points, then of boxes.

        SAM 2 gives boxes as two points with the labels `TOP_LEFT` and `BOTTOM_RIGHT` in front of the others:
        `boxes_as_points`. A padding token follows the points wherever `boxes` is None.

        Args:
            image_size: (H, W) that coordinates refer to, in pixels.
            points: (B, P, 2) x and y; half a pixel is added. None: no points.
            labels: (B, P) with the points: `POSITIVE`, `NEGATIVE`, `TOP_LEFT`, `BOTTOM_RIGHT`, `PADDING`, or
                `ABSENT`, whose token means nothing and has to be masked out.
            boxes: (B, 4) left, top, right, bottom, or None.

        Returns:
            (B, P + 1, dim), (B, P + 2, dim) with boxes; (1, 0, dim) without points and boxes.

        Raises:
            ValueError: points without labels, or anything of another shape.
        """
        parts = []
        if points is not None:
            if (
                labels is None
                or points.ndim != 3
                or points.shape[-1] != 2
                or labels.shape != points.shape[:2]
            ):
                came = None if labels is None else tuple(labels.shape)
                raise ValueError(
                    f"points are {tuple(points.shape)} and labels {came}, expected (B, P, 2) and (B, P)"
                )
            if boxes is None:
                points = F.pad(points, (0, 0, 0, 1))  # (B, P, 2) -> (B, P + 1, 2)
                labels = F.pad(labels, (0, 1), value=PADDING)
            parts.append(self._point_tokens(points, labels, image_size))
        if boxes is not None:
            if boxes.ndim != 2 or boxes.shape[-1] != 4:
                raise ValueError(f"boxes are {tuple(boxes.shape)}, expected (B, 4): left, top, right, bottom")
            parts.append(self._point_tokens(*boxes_as_points(boxes), image_size))
        if not parts:
            return self.no_mask_embed.weight.new_zeros(1, 0, self.no_mask_embed.embedding_dim)
        return torch.cat(parts, dim=1)

    def maps(self, size: Size, *, masks: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        """What is added to the image's features.

        Args:
            size: (h, w) of these features.
            masks: (B, 1, H', W') logits, resized to (4h, 4w) with antialiasing where they differ; None: no
                mask for anyone.
            given: (B,) bool, False in rows that have no mask after all; None: all have one.

        Returns:
            (B, dim, h, w); (1, dim, h, w) without masks: a view, equal for everyone.

        Raises:
            ValueError: masks of another shape.
        """
        none = self.no_mask_embed.weight[..., None, None].expand(-1, -1, *size)  # (1, dim) -> (1, dim, h, w)
        if masks is None:
            return none
        if masks.ndim != 4 or masks.shape[1] != 1:
            raise ValueError(f"mask prompts are {tuple(masks.shape)}, expected (B, 1, H, W) logits")
        maps: Tensor = self.mask_downscaling(resize_image(masks, (4 * size[0], 4 * size[1])))
        return maps if given is None else torch.where(given[:, None, None, None], maps, none)

    def positions(self, size: Size) -> Tensor:
        """Codes of the places of the image's features: (h, w) to (1, dim, h, w)."""
        return self.pe_layer.grid(size)

    def _point_tokens(self, points: Tensor, labels: Tensor, image_size: Size) -> Tensor:
        height, width = image_size
        codes = self.pe_layer((points + 0.5) / points.new_tensor([width, height]))  # (B, P, 2) -> (B, P, dim)
        codes = codes * (labels >= 0)[..., None]  # padding has no place
        kinds = [self.not_a_point_embed, *self.point_embeddings]
        embeddings = torch.cat([kind.weight for kind in kinds])  # type: ignore[union-attr, misc]
        return codes + embeddings[(labels.long() + 1).clamp(min=0)]


def boxes_as_points(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Corners of boxes: (B, 4) left, top, right, bottom to points (B, 2, 2) and labels (B, 2)."""
    labels = torch.tensor([TOP_LEFT, BOTTOM_RIGHT], dtype=torch.int32, device=boxes.device)
    return boxes.unflatten(-1, (2, 2)), labels.expand(boxes.shape[0], -1)
