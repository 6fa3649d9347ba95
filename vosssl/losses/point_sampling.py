"""Where a segmentation is looked at in training: mostly where it is in doubt, not at every pixel.

Source: Kirillov et al., "PointRend: Image Segmentation as Rendering", CVPR 2020, section 3.1; with several
classes as in Cutie (Cheng et al., CVPR 2024): doubt is how close the two best classes are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.ops.resize import sample_points


class PointRule(NamedTuple):
    """How many points are looked at, and how they are found.

    Attributes:
        points: P, points of a frame.
        oversample: drawn evenly are so many times P candidates, of which
        importance: this share of P is chosen, the most doubtful first; the rest of P is drawn evenly anew.
    """

    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75


def checked_rule(rule: PointRule) -> PointRule:
    """The rule itself.

    Raises:
        ValueError: it draws fewer candidates than it chooses, or no point.
    """
    if rule.points < 1 or rule.oversample < 1 or not 0 <= rule.importance <= 1:
        raise ValueError(
            f"{rule.points} points with oversample {rule.oversample} and importance {rule.importance} were "
            "asked for, expected 1 point or more, oversample 1 or more and importance in [0, 1]"
        )
    return rule


def doubt(logits: Tensor) -> Tensor:
    """How little a decision is decided: 0 on the border of two classes, the lower the clearer.

    Args:
        logits: (B, C, P), two classes or more.

    Returns:
        (B, P), never above 0: minus the size of the second of two logits, else minus the lead of the largest.
    """
    if logits.shape[1] == 2:
        return -logits[:, 1].abs()
    best = logits.topk(2, dim=1).values  # (B, 2, P)
    return best[:, 1] - best[:, 0]


@torch.no_grad()
def doubtful_points(logits: Tensor, rule: PointRule, *, generator: torch.Generator | None = None) -> Tensor:
    """Points for the losses of some frames.

    Two draws are taken from the generator: the candidates (B, int(P * oversample), 2), then the even rest
    (B, P - int(importance * P), 2), where there is one.

    Args:
        logits: (B, C, H, W).
        rule: how many and how.
        generator: on the logits' device; None: the global one.

    Returns:
        (B, P, 2) as `sample_points` takes them, the doubtful ones first.
    """

    def even(count: int) -> Tensor:
        return torch.rand(len(logits), count, 2, generator=generator, device=logits.device)

    candidates = even(int(rule.points * rule.oversample))
    chosen = int(rule.importance * rule.points)
    places = doubt(sample_points(logits, candidates)).topk(chosen, dim=1).indices  # (B, chosen)
    doubtful = candidates.gather(1, places.unsqueeze(2).expand(-1, -1, 2))
    return doubtful if chosen == rule.points else torch.cat([doubtful, even(rule.points - chosen)], dim=1)
