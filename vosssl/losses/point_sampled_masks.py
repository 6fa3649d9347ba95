"""Cross-entropy and Dice of several objects' masks over time, at sampled points instead of all pixels.

Source: Cheng et al., "Putting the object back into video object segmentation", CVPR 2024, and its program:
both losses are summed over frames and averaged over points or objects.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.clip import VOID
from vosssl.losses.point_sampling import PointRule, doubtful_points
from vosssl.ops.resize import sample_points


class MaskLoss(NamedTuple):
    """Two scalars, not weighted.

    Attributes:
        cross_entropy: sum over frames of the mean over points.
        dice: sum over frames of the mean over objects.
    """

    cross_entropy: Tensor
    dice: Tensor


def truth_masks(labels: Tensor, count: int) -> Tensor:
    """Masks that logits of any size can be compared with.

    Args:
        labels: (T, H, W) uint8: 0 background, 1..N objects, 255 void. Other ids belong to nobody: background.
        count: N objects.

    Returns:
        (T, N + 2, H, W) float: background, objects, void; they sum to 1.
    """
    classes = torch.where((labels > count) & (labels != VOID), 0, labels.long())
    classes = torch.where(classes == VOID, count + 1, classes)
    masks = torch.zeros(len(labels), count + 2, *labels.shape[1:], device=labels.device)
    return masks.scatter_(1, classes.unsqueeze(1), 1.0)


def point_sampled_loss(
    logits: Tensor, truth: Tensor, rule: PointRule, *, generator: torch.Generator | None = None
) -> MaskLoss:
    """Compares logits with masks at points that are drawn where the logits are in doubt.

    Void counts in neither loss. Points near the picture's edge have a truth that sums to less than 1, since
    masks are 0 beyond it; they count as the program counts them.

    Args:
        logits: (T, N + 1, h, w), background first.
        truth: (T, N + 2, H, W) of `truth_masks`, of any size.
        rule: which points.
        generator: on the logits' device, see `doubtful_points`; None: the global one.

    Returns:
        Both losses.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if logits.ndim != 4 or truth.ndim != 4 or truth.shape[:2] != (len(logits), logits.shape[1] + 1):
        raise ValueError(
            f"logits are {tuple(logits.shape)} and truth is {tuple(truth.shape)}, expected (T, N + 1, h, w) "
            "and (T, N + 2, H, W): background, N objects, and of the truth void"
        )
    points = doubtful_points(logits, rule, generator=generator)  # (T, P, 2)
    with torch.no_grad():
        target = sample_points(truth, points)  # (T, N + 2, P)
    return mask_loss(sample_points(logits, points), target)


def mask_loss(logits: Tensor, truth: Tensor) -> MaskLoss:
    """Both losses at points.

    Args:
        logits: (T, N + 1, P), background first.
        truth: (T, N + 2, P) in [0, 1]: background, objects, void.

    Returns:
        The losses.
    """
    target, known = truth[:, :-1], 1 - truth[:, -1:]
    cross_entropy = F.cross_entropy(logits, target, reduction="none")  # (T, P), 0 where all is void
    return MaskLoss(
        cross_entropy=cross_entropy.sum(dim=0).mean(),
        dice=soft_dice(logits.softmax(dim=1)[:, 1:] * known, target[:, 1:]),
    )


def soft_dice(masks: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice coefficient of each object, smoothed by 1.

    Args:
        masks: (T, N, P) probabilities.
        target: (T, N, P) in [0, 1].

    Returns:
        A scalar: sum over frames of the mean over objects.
    """
    shared = (masks * target).sum(dim=2)
    areas = masks.sum(dim=2) + target.sum(dim=2)  # (T, N)
    return (1 - (2 * shared + 1) / (areas + 1)).sum(dim=0).mean()
