"""The Dice coefficient of regions, the same as J in one frame and another number as a mean over frames."""

from __future__ import annotations

from torch import Tensor


def dice_of_jaccard(jaccard: Tensor) -> Tensor:
    """Dice from intersection over union: 2 J / (1 + J).

    Args:
        jaccard: any shape, in [0, 1], of single frames; of means it is another number.

    Returns:
        The same shape: twice what both share over the sum of their sizes; 1 where both are empty, as J is.
    """
    return 2 * jaccard / (1 + jaccard)
