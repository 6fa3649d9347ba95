"""Random masks made of rectangular blocks of patches, for learning to fill in what is hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TRIES = 10  # rectangles drawn in vain before a mask is taken as it is
FEWEST = 4  # patches of a rectangle, where the mask is large enough for that


def block_masks(
    seeds: Tensor,
    grid: tuple[int, int],
    *,
    share: Sequence[float] = (0.1, 0.5),
    probability: float = 0.5,
    aspect: float = 0.3,
) -> Tensor:
    """Masks of several rectangles each, row n drawn from seed n alone.

    Args:
        seeds: (N,) int64.
        grid: (h, w) of patches.
        share: least and most of the patches that are hidden.
        probability: of hiding anything.
        aspect: least of the rectangles' height / width; the largest is its inverse.

    Returns:
        (N, h*w) bool on the CPU, True where hidden.

    Source: Bao et al., "BEiT", ICLR 2022, algorithm 1, with iBOT's shares.
    """
    masks = torch.zeros(len(seeds), *grid, dtype=torch.bool)
    for mask, seed in zip(masks, seeds.tolist(), strict=True):
        generator = torch.Generator().manual_seed(seed)
        if _uniform(0, 1, generator) < probability:
            _fill(mask, round(_uniform(share[0], share[1], generator) * mask.numel()), aspect, generator)
    return masks.flatten(1)  # (N, h, w) -> (N, h*w)


def _fill(mask: Tensor, wanted: int, aspect: float, generator: torch.Generator) -> None:
    """Adds rectangles to a mask (h, w) until nearly `wanted` patches are hidden, never more."""
    height, width = mask.shape
    vain = 0
    while vain < TRIES and (left := wanted - int(mask.sum())) > 0:
        vain += 1
        area = _uniform(min(FEWEST, left), left, generator)
        ratio = math.exp(_uniform(math.log(aspect), -math.log(aspect), generator))
        rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if not (0 < rows <= height and 0 < columns <= width):
            continue
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        start = int(torch.randint(width - columns + 1, (), generator=generator))
        block = mask[top : top + rows, start : start + columns]
        if 0 < int((~block).sum()) <= left:
            block.fill_(True)
            vain = 0


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
