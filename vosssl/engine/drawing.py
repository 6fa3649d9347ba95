"""Pictures of clips, label maps and slots as uint8 tensors: overlays, grids for TensorBoard, contact sheets.

One colour per id everywhere: slot k carries id k + 1 unless somebody says otherwise, id 0 is background and
255 is void. (Label PNGs on disk keep the DAVIS palette, which other programs expect.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.data.encode import rasterise_text
from vosssl.engine.inspected_clip import InspectedClip
from vosssl.ops.resize import Size, resize_image, resize_labels, resize_masks

BACKGROUND_COLOR = (128, 128, 128)
VOID_COLOR = (235, 235, 225)
PAPER, INK = (250, 250, 250), (32, 32, 36)

# Chosen greedily, each as far as possible in OKLab from grey and from all before it (lightness 0.5 to 0.9,
# chroma 0.10 to 0.235), then the eight strongest put first. The closest pair is 0.11 apart.
DISTINCT_COLORS = (
    (224, 64, 64),
    (16, 112, 255),
    (16, 160, 16),
    (255, 176, 16),
    (144, 32, 192),
    (16, 224, 255),
    (240, 96, 224),
    (112, 255, 96),
    (255, 192, 255),
    (160, 144, 255),
    (144, 192, 128),
    (255, 144, 144),
    (176, 16, 112),
    (16, 160, 208),
    (192, 128, 32),
    (96, 112, 16),
    (96, 96, 176),
    (192, 112, 160),
    (16, 255, 208),
    (224, 224, 16),
    (32, 160, 128),
    (160, 80, 32),
    (240, 48, 144),
    (48, 208, 80),
)


def id_colors(*, device: torch.device | str = "cpu") -> Tensor:
    """The colour of every id: grey for 0, nearly white for void, the distinct colours for the first 24.

    Later ids repeat the 24 in ever darker rounds, so that no two ids share a colour.

    Args:
        device: where the table is wanted.

    Returns:
        (256, 3) uint8 RGB.
    """
    distinct = torch.tensor(DISTINCT_COLORS, dtype=torch.float32)
    rounds = torch.arange(11).float()  # 11 rounds of 24 reach beyond 254
    table = (distinct * (1 - 0.06 * rounds)[:, None, None]).flatten(0, 1)  # (11, 24, 3) -> (264, 3)
    ends = torch.tensor([BACKGROUND_COLOR, VOID_COLOR], dtype=torch.float32)
    return torch.cat([ends[:1], table[:254], ends[1:]]).round().to(torch.uint8).to(device)


def as_bytes(image: Tensor) -> Tensor:
    """An image as uint8.

    Args:
        image: any shape, uint8 or float in [0, 1]; values outside are clipped, NaN is black.

    Returns:
        The same shape, uint8.
    """
    if image.dtype == torch.uint8:
        return image
    return (image.float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)


def color_labels(labels: Tensor) -> Tensor:
    """A label map in the colours of its ids.

    Args:
        labels: (..., H, W) uint8 ids.

    Returns:
        (..., 3, H, W) uint8 RGB.
    """
    return id_colors(device=labels.device)[labels.long()].movedim(-1, -3)  # (..., H, W, 3) -> (..., 3, H, W)


def contours(labels: Tensor) -> Tensor:
    """The pixels with a neighbour (left, right, above, below) of another id.

    Args:
        labels: (..., H, W) uint8 ids.

    Returns:
        (..., H, W) bool.
    """
    edges = torch.zeros_like(labels, dtype=torch.bool)
    beside, below = labels[..., :-1] != labels[..., 1:], labels[..., :-1, :] != labels[..., 1:, :]
    edges[..., :-1] |= beside
    edges[..., 1:] |= beside
    edges[..., :-1, :] |= below
    edges[..., 1:, :] |= below
    return edges


def overlay(frame: Tensor, labels: Tensor, *, alpha: float = 0.5, contour: bool = True) -> Tensor:
    """A frame tinted with its labels; background (0) stays as it is.

    Args:
        frame: (..., 3, H, W) uint8 or float in [0, 1].
        labels: (..., H, W) uint8 ids.
        alpha: 0 shows the frame, 1 only colours.
        contour: whether the border of each region is drawn in full colour.

    Returns:
        (..., 3, H, W) uint8.

    Raises:
        ValueError: when frame and labels differ in shape, or alpha is not in [0, 1].
    """
    if frame.ndim < 3 or frame.shape[-3] != 3 or frame.shape[:-3] + frame.shape[-2:] != labels.shape:
        raise ValueError(
            f"frame is {tuple(frame.shape)} and labels are {tuple(labels.shape)}, "
            "expected (..., 3, H, W) and (..., H, W); resize the labels with resize_labels"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, expected a number from 0 to 1")
    image = as_bytes(frame).float()
    weight = alpha * (labels != 0).float()  # (..., H, W)
    if contour:
        weight = torch.where(contours(labels) & (labels != 0) & (labels != VOID), 1.0, weight)
    weight = weight.unsqueeze(-3)  # (..., H, W) -> (..., 1, H, W)
    return (image * (1 - weight) + color_labels(labels).float() * weight).round().to(torch.uint8)


def mask_pictures(masks: Tensor, size: Size) -> Tensor:
    """Soft masks as grey pictures, one block of equal pixels per patch, white at the strongest value of all.

    Args:
        masks: (..., h, w) float, not negative.
        size: (H, W) of each picture.

    Returns:
        (..., 3, H, W) uint8.
    """
    grey = as_bytes(masks / masks.max().clamp(min=1e-12)) if masks.numel() else masks.to(torch.uint8)
    return resize_labels(grey, size).unsqueeze(-3).expand(*masks.shape[:-2], 3, *size)


def component_pictures(features: Tensor) -> Tensor:
    """Features of a clip as colours: their first three principal components, over all frames together.

    Args:
        features: (T, h, w, D) float.

    Returns:
        (T, 3, h, w) uint8; red is the strongest component, each from its 1st to its 99th percentile.
    """
    rows = features.flatten(0, 2).float()
    rows = rows - rows.mean(0)
    _, directions = torch.linalg.eigh(rows.T @ rows)  # in rising order
    axes = directions[:, -3:].flip(1)  # (D, up to 3), the strongest first
    axes = torch.where(axes.sum(0) < 0, -axes, axes)  # of the two signs always the same
    values = rows @ axes
    ends = values[:: max(1, len(values) // 100_000)].quantile(torch.tensor([0.01, 0.99]), dim=0)  # (2, 3)
    shown = torch.zeros(len(values), 3, dtype=torch.uint8)
    shown[:, : values.shape[1]] = as_bytes((values - ends[0]) / (ends[1] - ends[0]).clamp(min=1e-12))
    return shown.unflatten(0, features.shape[:3]).permute(0, 3, 1, 2).contiguous()  # -> (T, 3, h, w)


def tile(rows: Sequence[Sequence[Tensor] | Tensor], *, gap: int = 2) -> Tensor:
    """Puts pictures of one size side by side, rows below each other; shorter rows end in paper.

    Args:
        rows: sequences of (3, H, W) uint8, or (N, 3, H, W) tensors.
        gap: pixels between and around them.

    Returns:
        (3, R * (H + gap) + gap, N * (W + gap) + gap) uint8.

    Raises:
        ValueError: when there is no picture, or when sizes differ.
    """
    shapes = {tuple(picture.shape) for row in rows for picture in row}
    if len(shapes) != 1:
        raise ValueError(
            f"a grid needs pictures of one size, got {sorted(shapes) or 'none'}; resize them first"
        )
    _, height, width = shapes.pop()
    columns = max(len(row) for row in rows)
    first = next(picture for row in rows for picture in row)
    sheet = _paper((len(rows) * (height + gap) + gap, columns * (width + gap) + gap), device=first.device)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = gap + r * (height + gap), gap + c * (width + gap)
            sheet[:, top : top + height, left : left + width] = picture
    return sheet


def slot_grid(
    frames: Tensor,
    masks: Tensor,
    *,
    attention: Tensor | None = None,
    truth: Tensor | None = None,
    columns: int = 8,
    width: int = 96,
) -> Tensor:
    """Slots over time for TensorBoard: frames, truth, overlay, then each slot's mask above its attention.

    Args:
        frames: (T, 3, H, W) uint8 or float in [0, 1].
        masks: (T, K, h, w) float, decoder masks.
        attention: (T, K, h', w') float, slot attention.
        truth: (T, H, W) uint8 ids.
        columns: frames shown at most, evenly spaced.
        width: of each picture, pixels.

    Returns:
        (3, H', W') uint8. The bar left of a slot's rows has its colour.
    """
    size: Size = (frames.shape[-2], frames.shape[-1])
    predicted = torch.stack([slot_labels(mask, size) for mask in masks])
    clip = InspectedClip("", as_bytes(frames), predicted, truth=truth, masks=masks, attention=attention)
    return tile(_slot_rows(clip, columns=columns, width=width))


def slot_labels(masks: Tensor, size: Size) -> Tensor:
    """The labels that soft slot masks stand for: the strongest slot's number plus one.

    Args:
        masks: (K, h, w) float.
        size: (H, W) wanted.

    Returns:
        (H, W) uint8, ids 1..K.
    """
    return (resize_masks(masks.float(), size).argmax(dim=0) + 1).to(torch.uint8)  # (K, H, W) -> (H, W)


def contact_sheet(clips: Sequence[InspectedClip], *, columns: int = 8, width: int = 96) -> Tensor:
    """Clips below each other, each as its name and rows of frames, truth, overlay, and slot masks.

    Args:
        clips: at least one.
        columns: frames shown per clip at most, evenly spaced.
        width: of each picture, pixels.

    Returns:
        (3, H, W) uint8.

    Raises:
        ValueError: when there is no clip.
    """
    if not clips:
        raise ValueError("contact_sheet got no clips, expected at least one")
    blocks = []
    for clip in clips:
        without_attention = replace(clip, attention=None)
        scores = "  ".join(f"{name} {value:.2f}" for name, value in clip.metrics.items())
        grid = tile(_slot_rows(without_attention, columns=columns, width=width)).cpu()
        blocks.append(titled(f"{clip.name}   {scores}", grid))
    return stacked(blocks)


def titled(text: str, picture: Tensor) -> Tensor:
    """A picture (3, H, W) uint8 below one line of text, which is cut at its width: (3, H', W) uint8."""
    return torch.cat([_heading(text, width=picture.shape[2]), picture], dim=1)


def packed(blocks: Sequence[Tensor], *, width: int) -> list[Tensor]:
    """Pictures (3, h, w) uint8 side by side, as rows of at most `width` pixels where they can be."""
    rows: list[list[Tensor]] = []
    for block in blocks:
        if rows and sum(picture.shape[2] for picture in rows[-1]) + block.shape[2] <= width:
            rows[-1].append(block)
        else:
            rows.append([block])
    return [_beside(row) for row in rows]


def stacked(blocks: Sequence[Tensor]) -> Tensor:
    """At least one picture (3, h, w) uint8 below each other, narrower ones widened by paper: (3, H, W)."""
    widest = max(block.shape[2] for block in blocks)
    return torch.cat([_widen(block, widest) for block in blocks], dim=1)


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` of the indices below `length`, first and last included where there are two or more."""
    if length <= count:
        return list(range(length))
    return torch.linspace(0, length - 1, count).round().long().tolist()


def _slot_rows(clip: InspectedClip, *, columns: int, width: int) -> list[list[Tensor]]:
    """The rows of one clip's block: a narrow coloured bar is painted into the first picture of slot rows."""
    shown = evenly_spaced(len(clip), columns)
    size = (max(1, round(width * clip.frames.shape[-2] / clip.frames.shape[-1])), width)
    frames = as_bytes(resize_image(clip.frames[shown].float() / 255, size))  # (C, 3, H, W)
    rows = [list(frames)]
    if clip.truth is not None:
        rows.append(list(overlay(frames, resize_labels(clip.truth[shown], size))))
    rows.append(list(overlay(frames, resize_labels(clip.predicted[shown], size))))
    if clip.features is not None:
        rows.append(list(resize_labels(clip.features[shown], size)))
    if clip.masks is not None:
        slot_colors = id_colors(device=frames.device)[list(clip.slot_ids)]  # (K, 3)
        masks = mask_pictures(clip.masks[shown], size)
        attention = None if clip.attention is None else mask_pictures(clip.attention[shown], size)
        for k, color in enumerate(slot_colors):
            rows.append([_with_bar(picture, color) for picture in masks[:, k]])
            if attention is not None:
                rows.append([_with_bar(picture, color) for picture in attention[:, k]])
    return rows


def _with_bar(picture: Tensor, color: Tensor) -> Tensor:
    """The picture with its left edge in the slot's colour."""
    painted = picture.clone()
    painted[:, :, : max(2, picture.shape[2] // 24)] = color[:, None, None]
    return painted


def _paper(size: Size, *, device: torch.device | str = "cpu") -> Tensor:
    return torch.tensor(PAPER, dtype=torch.uint8, device=device)[:, None, None].repeat(1, *size)


def _heading(text: str, *, width: int) -> Tensor:
    """(3, h, width) uint8, one line of dark text on paper, cut at the right."""
    ink = rasterise_text(text, size=12)[:, : width - 6].float() / 255  # (h, w)
    sheet = _paper((ink.shape[0] + 6, width)).float()
    inked = sheet[:, 4 : 4 + ink.shape[0], 4 : 4 + ink.shape[1]]
    inked += (torch.tensor(INK).float()[:, None, None] - inked) * ink
    return sheet.round().to(torch.uint8)


def _beside(blocks: Sequence[Tensor]) -> Tensor:
    """Pictures beside each other, lower ones made higher by paper."""
    highest = max(block.shape[1] for block in blocks)
    papers = [_paper((highest - block.shape[1], block.shape[2])) for block in blocks]
    columns = [torch.cat(pair, dim=1) for pair in zip(blocks, papers, strict=True)]
    return torch.cat(columns, dim=2)


def _widen(block: Tensor, width: int) -> Tensor:
    sheet = _paper((block.shape[1], width))
    sheet[:, :, : block.shape[2]] = block
    return sheet
