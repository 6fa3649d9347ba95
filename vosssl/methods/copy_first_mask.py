"""Copy the first mask to every frame: the floor of semi-supervised tables, and the template of a method.

A method file holds, in this order, its network (none here), its objective (none here) and its segmenter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vosssl.propagation.segmenter import Prompted, VideoSegmenter


class CopyFirstMask(VideoSegmenter):
    """Answers every frame with the masks that were given, as if nothing moved.

    A later prompt adds its objects and takes their pixels from the earlier ones; the pixels it leaves 0 say
    nothing about objects given before.

    Args:
        network: nothing; here because every segmenter takes its network first.
        device: where the masks are kept.
    """

    def __init__(self, network: None = None, *, device: torch.device | str = "cpu") -> None:
        super().__init__(device=device)
        self.forget()

    def forget(self) -> None:
        self._given: Tensor | None = None

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        if prompted is not None and prompted.masks is not None:
            self._given = self._merge(prompted)
        assert self._given is not None, "the border calls segment only after a prompt"
        return torch.cat(
            [1 - self._given.amax(dim=0, keepdim=True), self._given]
        )  # (N, H, W) -> (N + 1, H, W)

    def _merge(self, prompted: Prompted) -> Tensor:
        """The (N, H, W) float masks after a prompt, in the order of `object_ids`."""
        assert prompted.masks is not None
        new = prompted.masks.float()  # (n, H, W)
        merged = new.new_zeros(len(self.object_ids), *new.shape[-2:])
        if self._given is not None:
            merged[: len(self._given)] = self._given * ~prompted.masks.any(dim=0)
        for identity, mask in zip(prompted.ids, new, strict=True):
            merged[self.object_ids.index(identity)] = mask
        return merged
