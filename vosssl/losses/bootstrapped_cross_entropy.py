"""Cross-entropy of the hardest pixels only, more of them left out as training goes on.

Source: Cheng et al., "Rethinking Space-Time Networks with Improved Memory Coverage" (STCN), NeurIPS 2021, and
its code: all pixels until iteration 20,000, the worst 15 % from iteration 70,000, a line in between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.clip import VOID


def hard_share(step: int, *, start: int = 20_000, end: int = 70_000, share: float = 0.15) -> float:
    """The share of pixels that count at a step.

    Args:
        step: of the training.
        start: up to here all pixels count.
        end: from here on `share` of them do.
        share: in (0, 1].

    Returns:
        In [share, 1], falling along a line between start and end.

    Raises:
        ValueError: a share outside (0, 1], or an end before the start.
    """
    if not 0 < share <= 1 or end < start:
        raise ValueError(
            f"share is {share} from step {end} on, all before {start}; expected a share in (0, 1] and start "
            "<= end"
        )
    if step < start:
        return 1.0
    if step >= end:
        return share
    return share + (1 - share) * (end - step) / (end - start)


def bootstrapped_cross_entropy(logits: Tensor, classes: Tensor, *, share: float = 1.0) -> Tensor:
    """Mean cross-entropy over the hardest pixels of each sample.

    Args:
        logits: (N, C, H, W); a class that a sample does not have is -inf.
        classes: (N, H, W) int64, 255 void: a void pixel costs nothing, and is left out of the mean where it
            would be among the hardest.
        share: of the pixels of a sample that count, rounded down; at least one does.

    Returns:
        (N,), 0 where all is void.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if logits.ndim != 4 or tuple(classes.shape) != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits are {tuple(logits.shape)}, classes {tuple(classes.shape)}; expected (N, C, H, W) and "
            "(N, H, W)"
        )
    surprise = F.cross_entropy(logits.float(), classes, ignore_index=VOID, reduction="none")  # (N, H, W)
    surprise = surprise.flatten(1)
    known = (classes != VOID).flatten(1).sum(dim=1)  # (N,)
    count = max(1, int(surprise.shape[1] * share))
    hardest = surprise if count == surprise.shape[1] else torch.topk(surprise, count, dim=1, sorted=False)[0]
    return hardest.sum(dim=1) / known.clamp(min=1, max=count)
