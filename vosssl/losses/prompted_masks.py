"""What a network of promptable masks learns from: focal, Dice, how good it thinks its masks are, and whether
the object is there.

All losses are per object, so that the caller decides how objects, steps and clips are averaged.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, appendix D.2.1, and its official
training program, which gives focal loss and Dice the ratio 20 : 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PromptLosses(NamedTuple):
    """Losses of N objects, not weighted; (N,) each.

    Attributes:
        focal: of the best candidate; 0 where the object is not there.
        dice: likewise.
        iou: how far off the predicted IoUs are, a mean over candidates; 0 where the object is not there.
        object_score: cross-entropy of the object being there.
    """

    focal: Tensor
    dice: Tensor
    iou: Tensor
    object_score: Tensor


def prompt_losses(
    logits: Tensor,
    quality: Tensor,
    object_score: Tensor,
    truth: Tensor,
    *,
    known: Tensor | None = None,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
    shared: float = 0.0,
) -> PromptLosses:
    """Compares what was decoded of prompts with the truth.

    Of several candidates only the one with the lowest weighted sum of focal loss and Dice learns; every
    predicted IoU does. Objects that are not there teach the object score alone.

    Args:
        logits: (N, M, H, W) of M candidates.
        quality: (N, M) predicted IoUs.
        object_score: (N, 1) logits.
        truth: (N, H, W) bool.
        known: (N, H, W) bool, False for void pixels, which count nowhere; None: all count.
        focal_weight, dice_weight: by which the best candidate is chosen.
        alpha, gamma: see `sigmoid_focal`.
        shared: part of focal loss and Dice that all candidates learn from alike, in [0, 1]; 0 as published.

    Returns:
        The losses.

    Raises:
        ValueError: shapes that do not belong together.
    """
    expected = (len(logits), *logits.shape[2:])
    if logits.ndim != 4 or tuple(truth.shape) != expected or quality.shape != logits.shape[:2]:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, quality {tuple(quality.shape)} and truth "
            f"{tuple(truth.shape)}; expected (N, M, H, W), (N, M) and (N, H, W) of one size"
        )
    present = truth.flatten(1).any(dim=1).to(logits.dtype)  # (N,)
    focal = sigmoid_focal(logits, truth, known=known, alpha=alpha, gamma=gamma)  # (N, M)
    dice = sigmoid_dice(logits, truth, known=known)
    best = (focal_weight * focal + dice_weight * dice).argmin(dim=1, keepdim=True)  # (N, 1)
    return PromptLosses(
        _of_candidates(focal, best, shared) * present,
        _of_candidates(dice, best, shared) * present,
        (quality - mask_iou(logits, truth, known=known)).abs().mean(dim=1) * present,
        F.binary_cross_entropy_with_logits(object_score[:, 0], present, reduction="none"),
    )


def _of_candidates(losses: Tensor, best: Tensor, shared: float) -> Tensor:
    """(N, M) losses to (N,): those of the `best` (N, 1), mixed with the mean of all."""
    return torch.lerp(losses.gather(1, best)[:, 0], losses.mean(dim=1), shared)


def sigmoid_focal(
    logits: Tensor, truth: Tensor, *, known: Tensor | None = None, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Binary cross-entropy that trusts easy pixels, a mean over pixels.

    Args:
        logits: (N, M, H, W).
        truth: (N, H, W) bool.
        known: as in `prompt_losses`.
        alpha: weight of the object's pixels; the others have 1 - alpha.
        gamma: exponent of the weight of each pixel, the probability of the wrong answer.

    Returns:
        (N, M).

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 3.2.
    """
    wrong = torch.where(truth[:, None], -logits, logits)  # log-odds of the wrong answer
    share = torch.where(truth, alpha, 1 - alpha)[:, None].to(logits.dtype)
    pixels = share * wrong.sigmoid() ** gamma * F.softplus(wrong)
    if known is None:
        return pixels.flatten(2).mean(dim=2)
    return (pixels * known[:, None]).flatten(2).sum(dim=2) / known.flatten(1).sum(1).clamp(min=1)[:, None]


def sigmoid_dice(logits: Tensor, truth: Tensor, *, known: Tensor | None = None) -> Tensor:
    """One minus the soft Dice coefficient of each mask, smoothed by 1.

    Args:
        logits: (N, M, H, W).
        truth: (N, H, W) bool.
        known: as in `prompt_losses`.

    Returns:
        (N, M) in [0, 1].

    Source: Milletari et al., "V-Net", 3DV 2016, section 3, with plain sums below the line.
    """
    soft = logits.sigmoid() if known is None else logits.sigmoid() * known[:, None]
    true = truth if known is None else truth & known
    shared = torch.einsum("nmhw,nhw->nm", soft, true.to(soft.dtype))
    areas = soft.flatten(2).sum(dim=2) + true.flatten(1).sum(dim=1)[:, None]
    return 1 - (2 * shared + 1) / (areas + 1)


def mask_iou(logits: Tensor, truth: Tensor, *, known: Tensor | None = None) -> Tensor:
    """What predicted IoUs should have been; without a gradient.

    Args:
        logits: (N, M, H, W); a pixel above 0 is the object's.
        truth: (N, H, W) bool.
        known: as in `prompt_losses`.

    Returns:
        (N, M) in [0, 1]; 0 where both are empty.
    """
    found, true = logits.detach() > 0, truth[:, None]
    if known is not None:
        found, true = found & known[:, None], true & known[:, None]
    either = (found | true).flatten(2).sum(dim=2)
    return (found & true).flatten(2).sum(dim=2).to(logits.dtype) / either.clamp(min=1)
