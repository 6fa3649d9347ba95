"""Foreground without labels, from what a ViT's class token looks at."""

from __future__ import annotations

from torch import Tensor


def foreground_from_cls_attention(attention: Tensor) -> Tensor:
    """Splits patches into background and foreground.

    Heads that single out a small part of the image weigh more: each by minus the log of the area it attends
    to above its mean. A patch is background when the weighted attention is below its mean.

    Args:
        attention: (N, heads, P) last-layer attention of the class token to the patches.

    Returns:
        (N, P) bool, True on the foreground.

    Source: after Siméoni et al., "Unsupervised Object Localization: Observing the Background to Discover
        Objects" (FOUND), CVPR 2023, section 3.1. Deviation: the weighted attention itself is thresholded;
        FOUND goes on to compare every patch with the least attended one.
    """
    above = attention > attention.mean(dim=-1, keepdim=True)
    area = above.float().mean(dim=-1).clamp_min(1.0 / attention.shape[-1])  # (N, heads)
    weight = -area.log()
    weighted = (attention * weight[..., None]).mean(dim=1)  # (N, heads, P) -> (N, P)
    return weighted >= weighted.mean(dim=-1, keepdim=True)
