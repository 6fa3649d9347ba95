"""What a supervised segmentation head learns from: cross-entropy, focal, Dice and IoU, void pixels left out.

All take logits and labels of one size; labels are classes, and 255 counts nowhere. Where every pixel is void
they are 0, with a gradient of 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.clip import VOID


def class_labels(labels: Tensor, num_classes: int) -> Tensor:
    """What label maps say about classes.

    Args:
        labels: (..., H, W) uint8 ids, 255 void.
        num_classes: C with the background. 2: whatever object it is, it is foreground; more: ids are classes.

    Returns:
        (..., H, W) int64: 0 .. C - 1, or 255.

    Raises:
        ValueError: fewer than two classes, or an id that is no class.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, expected 2 (background and foreground) or more")
    classes = labels.long()
    if num_classes == 2:
        return torch.where(classes == VOID, classes, classes.clamp(max=1))
    largest = int(torch.where(classes == VOID, 0, classes).max()) if classes.numel() else 0
    if largest >= num_classes:
        raise ValueError(
            f"labels hold class {largest}, but num_classes is {num_classes}; expected classes "
            f"0..{num_classes - 1}: raise method.network.num_classes, or take 2 for objects against the rest"
        )
    return classes


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not void.

    Args:
        logits: (N, C, H, W).
        classes: (N, H, W) int64, 255 void.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that do not belong together.
    """
    _require_shapes(logits, classes)
    total = F.cross_entropy(logits.float(), classes, ignore_index=VOID, reduction="sum")
    return total / (classes != VOID).sum().clamp(min=1)


def focal(logits: Tensor, classes: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Cross-entropy that trusts easy pixels: each is weighted by (1 - p)^gamma, p that of its true class.

    Args:
        logits: (N, C, H, W).
        classes: (N, H, W) int64, 255 void.
        gamma: 0 is the plain cross-entropy.

    Returns:
        A scalar, the mean over the pixels that are not void.

    Raises:
        ValueError: shapes that do not belong together.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4, without alpha.
    """
    _require_shapes(logits, classes)
    surprise = F.cross_entropy(logits.float(), classes, ignore_index=VOID, reduction="none")  # (N, H, W)
    weight = (1 - torch.exp(-surprise)).clamp(min=0) ** gamma if gamma else torch.ones_like(surprise)
    return (weight * surprise).sum() / (classes != VOID).sum().clamp(min=1)


def dice(logits: Tensor, classes: Tensor, *, smooth: float = 1.0) -> Tensor:
    """One minus the soft Dice coefficient of each object class in each image, averaged.

    Args:
        logits: (N, C, H, W), class 0 the background.
        classes: (N, H, W) int64, 255 void.
        smooth: pixels added above and below, so that a class that is neither there nor predicted costs 0.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: shapes that do not belong together.

    Source: Milletari et al., "V-Net", 3DV 2016, section 3, with plain sums below the line instead of squares.
    """
    shared, predicted, true = _areas(logits, classes)
    return (1 - (2 * shared + smooth) / (predicted + true + smooth)).mean()


def iou(logits: Tensor, classes: Tensor, *, smooth: float = 1.0) -> Tensor:
    """One minus the soft intersection over union of each object class in each image, averaged.

    Args:
        logits: (N, C, H, W), class 0 the background.
        classes: (N, H, W) int64, 255 void.
        smooth: as for `dice`.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: shapes that do not belong together.

    Source: Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks", ISVC 2016.
    """
    shared, predicted, true = _areas(logits, classes)
    return (1 - (shared + smooth) / (predicted + true - shared + smooth)).mean()


def _areas(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Soft area that prediction and truth share, and of each alone: (N, C - 1) each, void cut out."""
    _require_shapes(logits, classes)
    known = (classes != VOID)[:, None]  # (N, 1, H, W)
    objects = torch.arange(1, logits.shape[1], device=logits.device)[:, None, None]
    soft = logits.float().softmax(dim=1)[:, 1:] * known
    hard = (classes[:, None] == objects).to(soft.dtype)  # (N, C - 1, H, W)
    return (soft * hard).sum(dim=(2, 3)), soft.sum(dim=(2, 3)), hard.sum(dim=(2, 3))


def _require_shapes(logits: Tensor, classes: Tensor) -> None:
    expected = (logits.shape[0], *logits.shape[2:])
    if logits.ndim != 4 or logits.shape[1] < 2 or tuple(classes.shape) != expected:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, classes {tuple(classes.shape)}; expected (N, C, H, W) with "
            "two classes or more, and (N, H, W) of the same size: resize the logits to the labels"
        )
