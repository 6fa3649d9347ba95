"""What was read from the pixel memory, fused with the frame, the sensory memory and the last masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vosssl.methods.cutie.layers import FeatureFusion, chosen, chunks, concatenated, joined, others
from vosssl.ops.resize import mean_of_cells


class PixelFuser(nn.Module):
    """Pixel fusion.

    Args:
        width: channels of the frame's features, the readout and the result.
        sensory_width: channels of the sensory memory.
        single_object: look at no masks of others: pre-training on one object.
    """

    def __init__(self, width: int, sensory_width: int, *, single_object: bool = False) -> None:
        super().__init__()
        self.single_object = single_object
        self.fuser = FeatureFusion(width, width, width)
        self.sensory_compress = nn.Conv2d(sensory_width + (1 if single_object else 2), width, 1)

    def project_shared(self, features: Tensor) -> Tensor:
        """The frame's part (B, width, h, w) -> (B, width, h, w)."""
        return self.fuser.project_shared(features)

    def forward(
        self, shared: Tensor, readout: Tensor, sensory: Tensor, masks: Tensor, *, chunk_size: int = -1
    ) -> Tensor:
        """Fuses objects that were read together.

        Args:
            shared: (B, width, h, w) of `project_shared`.
            readout: (B, N, width, h, w).
            sensory: (B, N, S, h, w).
            masks: (B, N, H, W) of the frame before; others are summed over these N.
            chunk_size: at most so many objects at once; changes nothing but memory.

        Returns:
            (B, N, width, h, w).
        """
        masks = mean_of_cells(masks, (sensory.shape[-2], sensory.shape[-1]))  # (B, N, H, W) -> (B, N, h, w)
        seen = masks.unsqueeze(2) if self.single_object else torch.stack([masks, others(masks)], dim=2)
        fused = []
        for part in chunks(masks.shape[1], chunk_size):
            own = chosen(sensory, part)  # (B, n, S, h, w) -> (B*n, S, h, w)
            carried = concatenated(own, chosen(seen, part).to(sensory.dtype))
            maps = self.sensory_compress(carried) + chosen(readout, part)
            fused.append(self.fuser(shared, maps).unflatten(0, (len(masks), -1)))
        return joined(fused)
