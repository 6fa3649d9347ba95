"""Labels at the size of their frame, or an explanation of what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor

from vosssl.ops.resize import Size, resize_labels


def fit_labels(
    labels: Tensor, size: Size, *, where: str | Path, on_wrong_size: Literal["error", "resize"]
) -> Tensor:
    """Labels at the size of their frame.

    Args:
        labels: (h, w) ids.
        size: (H, W) of the frame.
        where: they come from, for the message.
        on_wrong_size: `resize` stretches labels of another size by the nearest pixel.

    Returns:
        (H, W) ids.

    Raises:
        ValueError: another size; says both.
    """
    if tuple(labels.shape) == tuple(size):
        return labels
    if on_wrong_size == "resize":
        return resize_labels(labels, size)
    raise ValueError(
        f"labels {where} are {labels.shape[1]} wide and {labels.shape[0]} high, their frame is {size[1]} "
        f"wide and {size[0]} high; fix the file, or pass on_wrong_size=resize "
        "(predict.on_wrong_size=resize, or ++data.val.on_wrong_size=resize) to stretch it"
    )
