"""Feature reconstruction: slots have to explain what a frozen backbone sees, now or some frames ahead."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_reconstruction(reconstruction: Tensor, features: Tensor) -> Tensor:
    """Mean squared error over everything.

    Args:
        reconstruction: (..., C).
        features: (..., C) target; carries no gradient.

    Returns:
        A scalar.

    Source: Seitzer et al. (DINOSAUR), ICLR 2023, equation 1.
    """
    return F.mse_loss(reconstruction, features.detach())


def future_reconstruction(future: Tensor, features: Tensor, *, steps: Sequence[int]) -> dict[int, Tensor]:
    """Mean squared error of the frames some steps ahead, each predicted from the slots of a frame.

    Both are normalised over channels first, as the backbone's own final norm does to its tokens. The last
    `max(steps)` frames are not used as sources, so that every step is judged on the same slots.

    Args:
        future: (B, T, S, P, C) predictions made at each frame for each of S steps.
        features: (B, T, P, C) target; carries no gradient.
        steps: S steps, such as (0, 1) for the present and the next frame.

    Returns:
        A scalar per step; average them for the loss.

    Raises:
        ValueError: a clip too short for the steps, or another number of steps than predictions.
    """
    sources = future.shape[1] - max(steps)
    if sources < 1 or len(steps) != future.shape[2]:
        raise ValueError(
            f"{future.shape[1]} frames with {future.shape[2]} predictions each cannot be judged at steps "
            f"{tuple(steps)}; use longer clips or the steps of the time decoder"
        )
    predicted = F.layer_norm(future[:, :sources], future.shape[-1:])
    observed = F.layer_norm(features.detach(), features.shape[-1:])
    return {
        step: F.mse_loss(predicted[:, :, index], observed[:, step : step + sources])
        for index, step in enumerate(steps)
    }


def pixel_reconstruction(reconstruction: Tensor, target: Tensor) -> Tensor:
    """SAVi's loss: squared error summed over positions and channels, averaged over frames.

    Args:
        reconstruction: (B, T, P, C).
        target: (B, T, P, C), pixels or optical flow.

    Returns:
        A scalar.

    Source: Kipf et al., SAVi, ICLR 2022, section 2 (the sum is that of the official code).
    """
    return torch.square(reconstruction - target.detach()).sum(dim=(-2, -1)).mean()
