"""The largest few numbers of long rows."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 32  # candidates whose maximum stands for them in the first round


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest numbers of each row: first the best blocks, then the best inside them; exact, and faster.

    Args:
        scores: (n, M).
        count: at most so many a row; all of them when M is smaller.

    Returns:
        (n, count) values and their places in the row, in no order.
    """
    total = scores.shape[1]
    whole = total // BLOCK * BLOCK
    if whole // BLOCK <= 2 * count:
        values, places = scores.topk(min(count, total), dim=1, sorted=False)
        return values, places
    blocks = scores[:, :whole].unflatten(1, (-1, BLOCK))  # (n, M / BLOCK, BLOCK)
    best = blocks.amax(-1).topk(count, dim=1, sorted=False).indices  # (n, count)
    chosen = blocks.gather(1, best[..., None].expand(-1, -1, BLOCK)).flatten(1)  # (n, count * BLOCK)
    where = (best[..., None] * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)
    if whole < total:
        chosen = torch.cat([chosen, scores[:, whole:]], dim=1)
        rest = torch.arange(whole, total, device=scores.device).expand(len(scores), -1)
        where = torch.cat([where, rest], dim=1)
    values, places = chosen.topk(count, dim=1, sorted=False)
    return values, where.gather(1, places)
