"""Views for learning correspondence: two augmentations of the same frames, and the crops of CRW.

Pairs of frames and short clips at a random gap need no dataset of their own: `num_frames=2, stride=[1, 8]` of
any VideoClips. Patches are cut by the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.transforms import RandomResizedCrop, Transform
from vosssl.data.warps import PerFrame


class TwoViews:
    """The frames of a clip twice: T frames changed by one transform, then the same T by another.

    Args:
        first: transform of the first view.
        second: transform of the second view; None: the first, drawn anew. Both must give one size.
    """

    def __init__(self, first: Transform, second: Transform | None = None) -> None:
        self.first = first
        self.second = first if second is None else second

    def __call__(self, clip: Clip, generator: torch.Generator) -> Clip:
        """Clip of T frames -> clip of 2T frames, labels likewise; flow is dropped."""
        views = self.first(clip, generator), self.second(clip, generator)
        frames = [view.frames for view in views]
        if frames[0].shape != frames[1].shape:
            raise ValueError(
                f"two views of clip {clip.name} are {tuple(frames[0].shape)} and {tuple(frames[1].shape)}, "
                "expected one shape; give both transforms one size"
            )
        return replace(
            clip,
            frames=torch.cat(frames),  # 2 x (T, 3, H, W) -> (2T, 3, H, W)
            labels=_joined([view.labels for view in views]),
            labelled=_joined([view.labelled for view in views]),
            frame_names=views[0].frame_names + views[1].frame_names,
            flow=None,
            features={},
        )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def crw_crops(size: int = 256) -> PerFrame:
    """What CRW does to frames before it cuts patches: each is cropped on its own.

    Source: Jabri et al., "Space-time correspondence as a contrastive random walk", NeurIPS 2020, and its
        official loader.
    """
    return PerFrame(RandomResizedCrop(size, scale=(0.8, 0.95), ratio=(0.7, 1.3)))
