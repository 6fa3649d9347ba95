"""SAM 2's mask decoder: four masks of a prompt, how good each is, and whether the object is there at all.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, section 4 and appendix D.1; the
stability of masks: Kirillov et al., "Segment Anything", ICCV 2023, appendix B.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.channel_norm import ChannelNorm
from vosssl.layers.linear_stack import LinearStack
from vosssl.layers.two_way_transformer import TwoWayTransformer
from vosssl.ops.row_blocks import row_blocks

CANDIDATES = 4  # one for prompts that mean one thing, three for those that may mean a part, or the whole
STABILITY_MARGIN = 0.05  # in logits
STABLE = 0.98


class Candidates(NamedTuple):
    """What the decoder makes of each of N prompts.

    Attributes:
        masks: (N, 4, 4h, 4w) logits.
        quality: (N, 4) the predicted IoU in [0, 1].
        tokens: (N, 4, C), what became of the tokens that the masks were made with.
        object_score: (N, 1) logit of the object being in the image.
    """

    masks: Tensor
    quality: Tensor
    tokens: Tensor
    object_score: Tensor


class MaskDecoder(nn.Module):
    """The decoder.

    Args:
        dim: C of the image's features, of tokens and of prompts; a multiple of 8.
        heads: of the transformer's attentions.
        depth: blocks of the transformer.
        feed_forward_dim: inside the transformer.
    """

    def __init__(
        self, dim: int = 256, *, heads: int = 8, depth: int = 2, feed_forward_dim: int = 2048
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, depth=depth, heads=heads, feed_forward_dim=feed_forward_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(CANDIDATES, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            ChannelNorm(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(dim, dim // 8, 1)
        self.conv_s1 = nn.Conv2d(dim, dim // 4, 1)
        self.output_hypernetworks_mlps = nn.ModuleList(
            LinearStack(dim, dim // 8, hidden_dim=dim) for _ in range(CANDIDATES)
        )
        self.iou_prediction_head = LinearStack(dim, CANDIDATES, hidden_dim=dim)
        self.pred_obj_score_head = LinearStack(dim, 1, hidden_dim=dim)

    def forward(
        self,
        image: Tensor,
        positions: Tensor,
        skips: tuple[Tensor, Tensor],
        prompts: Tensor,
        *,
        present: Tensor | None = None,
    ) -> Candidates:
        """Masks of N prompts.

        Args:
            image: (N or 1, C, h, w) features, with the maps of mask prompts added.
            positions: (1, C, h, w) of the prompt encoder.
            skips: (N or 1, C / 8, 4h, 4w) and (N or 1, C / 4, 2h, 2w) features.
            prompts: (N or 1, P, C) tokens.
            present: (N, P) bool, False for tokens that do not exist; None: all exist.

        Returns:
            All four masks of each.
        """
        if image.shape[0] == 1:  # its projections are shared by all prompts
            return self._decode(image, positions, skips, prompts, present)
        fine, middle = skips
        parts = [
            self._decode(
                image[rows],
                positions,
                (_rows(fine, rows), _rows(middle, rows)),
                _rows(prompts, rows),
                None if present is None else present[rows],
            )
            for rows in row_blocks(image.shape[0], image)
        ]
        return Candidates(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _decode(
        self,
        image: Tensor,
        positions: Tensor,
        skips: tuple[Tensor, Tensor],
        prompts: Tensor,
        present: Tensor | None,
    ) -> Candidates:
        """As `forward`, all rows at once."""
        rows = max(image.shape[0], prompts.shape[0])
        own = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(rows, -1, -1), prompts.expand(rows, -1, -1)], dim=1)
        mask = None if present is None else F.pad(present, (len(own), 0), value=True)
        seen, places = self.transformer(image, positions, tokens, mask=mask)
        maps = self._upscale(places.transpose(1, 2).unflatten(2, image.shape[-2:]), skips)
        mask_tokens = seen[:, 2 : 2 + CANDIDATES]
        weights = torch.stack(
            [head(mask_tokens[:, index]) for index, head in enumerate(self.output_hypernetworks_mlps)], dim=1
        )  # (N, 4, C / 8)
        masks = (weights @ maps.flatten(2)).unflatten(2, maps.shape[-2:])  # (N, 4, 16hw) -> (N, 4, 4h, 4w)
        quality = self.iou_prediction_head(seen[:, 1]).sigmoid()
        return Candidates(masks, quality, mask_tokens, self.pred_obj_score_head(seen[:, 0]))

    def _upscale(self, maps: Tensor, skips: tuple[Tensor, Tensor]) -> Tensor:
        """(N, C, h, w) to (N, C / 8, 4h, 4w)."""
        twice, norm, activate, twice_again, _ = self.output_upscaling
        finer = activate(norm(twice(maps) + skips[1]))
        return activate(twice_again(finer) + skips[0])


def _rows(values: Tensor, rows: slice) -> Tensor:
    return values if values.shape[0] == 1 else values[rows]


class Chosen(NamedTuple):
    """One of four masks per prompt.

    Attributes:
        masks: (N, 1, 4h, 4w) logits.
        quality: (N, 1) predicted IoU.
        token: (N, C) that speaks for the object; with a mask that was replaced for being unstable, still the
            token of the mask it replaced.
    """

    masks: Tensor
    quality: Tensor
    token: Tensor


def choose(candidates: Candidates, *, multimask: bool | Tensor, require_stable: bool = True) -> Chosen:
    """The mask that prompts mean.

    Args:
        candidates: of N prompts.
        multimask: whether a prompt may mean several things: the best of masks 1 to 3 instead of mask 0;
            (N,) bool: for each prompt.
        require_stable: also take the best of 1 to 3 where mask 0 is less stable than 0.98.

    Returns:
        One mask each.
    """
    rows = torch.arange(len(candidates.masks), device=candidates.masks.device)
    best = candidates.quality[:, 1:].argmax(dim=1) + 1
    many = torch.as_tensor(multimask, device=best.device).expand(len(best))
    token = torch.where(many, best, 0)
    replaced = many | (stability(candidates.masks[:, 0]) < STABLE) if require_stable else many
    mask = torch.where(replaced, best, 0)
    return Chosen(
        candidates.masks[rows, mask][:, None],
        candidates.quality[rows, mask][:, None],
        candidates.tokens[rows, token],
    )


def stability(masks: Tensor) -> Tensor:
    """How little masks change with the threshold: the area above 0.05 over that above -0.05.

    Args:
        masks: (..., h, w) logits.

    Returns:
        (...) in [0, 1]; 1 where there is no area.
    """
    inner = (masks > STABILITY_MARGIN).sum(dim=(-2, -1))
    outer = (masks > -STABILITY_MARGIN).sum(dim=(-2, -1))
    return torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)
