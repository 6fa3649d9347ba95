"""Object features to mask logits at stride 4, through the frame's skip connections; the sensory update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.convolution import Convolution
from vosssl.methods.cutie.layers import SensoryTransform, add_shared, chosen, chunks, concatenated, joined


class _SkipProjections(nn.Module):
    def __init__(self, widths_in: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(
            nn.Conv2d(width_in, width, 1) for width_in, width in zip(widths_in, widths, strict=True)
        )


class SensoryUpdate(SensoryTransform):
    """The sensory memory's update from every scale of the decoder.

    Args:
        widths: channels at stride 16, 8 and 4, there with the logits.
        sensory_width: S.
    """

    def __init__(self, widths: Sequence[int], sensory_width: int) -> None:
        nn.Module.__init__(self)  # the official order of keys has the transform last
        self.g16_conv = nn.Conv2d(widths[0], sensory_width, 1)
        self.g8_conv = nn.Conv2d(widths[1], sensory_width, 1)
        self.g4_conv = nn.Conv2d(widths[2], sensory_width, 1)
        self.transform = Convolution(2 * sensory_width, 3 * sensory_width)
        nn.init.xavier_normal_(self.transform.weight)

    def forward(
        self, maps16: Tensor, maps8: Tensor, maps4: Tensor, logits: Tensor, sensory: Tensor
    ) -> Tensor:
        """Updates.

        Args:
            maps16: (N, C16, h, w).
            maps8: (N, C8, 2h, 2w).
            maps4: (N, C4, 4h, 4w).
            logits: (N, 1, 4h, 4w).
            sensory: (N, S, h, w).

        Returns:
            (N, S, h, w).
        """
        # areas are averaged before channels are joined: the same numbers, a sixteenth of the copying
        finest = concatenated(F.avg_pool2d(maps4, 4), F.avg_pool2d(logits, 4).to(maps4.dtype))
        features = self.g16_conv(maps16) + self.g8_conv(F.avg_pool2d(maps8, 2)) + self.g4_conv(finest)
        return self.updated(features, sensory)


class _ResidualBlock(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.downsample = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        self.conv1 = Convolution(width_in, width)
        self.conv2 = Convolution(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.conv2(self.conv1(maps, rectified=True).relu_())
        return inner.add_(self.downsample(maps))


class UpsampleBlock(nn.Module):
    """Doubles the resolution, adds the frame's skip connection, and convolves.

    Args:
        width_in: channels of the input and of the skip connection.
        width: channels of the result.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.out_conv = _ResidualBlock(width_in, width)

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """(B*N, width_in, h, w) and (B, width_in, 2h, 2w) to (B*N, width, 2h, 2w)."""
        finer = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out_conv(add_shared(finer, skip))


class MaskDecoder(nn.Module):
    """Three scales with skip connections; one logit per object and place.

    Args:
        skip_widths: channels of the pixel encoder's maps of stride 8 and 4.
        width: channels of the objects' features at stride 16.
        widths: channels at stride 8 and 4.
        sensory_width: channels of the sensory memory.
    """

    def __init__(
        self, skip_widths: Sequence[int], *, width: int, widths: Sequence[int], sensory_width: int
    ) -> None:
        super().__init__()
        wide8, wide4 = widths
        self.sensory_update = SensoryUpdate((width, wide8, wide4 + 1), sensory_width)
        self.decoder_feat_proc = _SkipProjections(skip_widths, (width, wide8))
        self.up_16_8 = UpsampleBlock(width, wide8)
        self.up_8_4 = UpsampleBlock(wide8, wide4)
        self.pred = Convolution(wide4, 1)

    def project_skips(self, maps8: Tensor, maps4: Tensor) -> tuple[Tensor, Tensor]:
        """The frame's part of both steps: once, for however many objects."""
        project8, project4 = self.decoder_feat_proc.transforms
        return project8(maps8), project4(maps4)

    def forward(
        self,
        skips: tuple[Tensor, Tensor],
        features: Tensor,
        sensory: Tensor,
        *,
        update: bool = True,
        chunk_size: int = -1,
    ) -> tuple[Tensor, Tensor]:
        """Logits of objects, each against everything else.

        Args:
            skips: (B, width, 2h, 2w) and (B, widths[0], 4h, 4w) of `project_skips`.
            features: (B, N, width, h, w).
            sensory: (B, N, S, h, w).
            update: whether the sensory memory changes.
            chunk_size: at most so many objects at once; changes nothing but memory.

        Returns:
            (B, N, 4h, 4w) logits, and the sensory memory.
        """
        videos = len(features)
        all_logits, updated = [], []
        for part in chunks(features.shape[1], chunk_size):
            maps16 = chosen(features, part)  # (B, n, C, h, w) -> (B*n, C, h, w)
            maps8 = self.up_16_8(maps16, skips[0])
            maps4 = self.up_8_4(maps8, skips[1])
            logits = self.predict(maps4)
            if update:
                new = self.sensory_update(maps16, maps8, maps4, logits, chosen(sensory, part))
                updated.append(new.unflatten(0, (videos, -1)))
            all_logits.append(logits.squeeze(1).unflatten(0, (videos, -1)))
        return joined(all_logits), joined(updated) if update else sensory

    def predict(self, maps4: Tensor) -> Tensor:
        """(N, C4, 4h, 4w) to logits (N, 1, 4h, 4w); in full precision."""
        with torch.autocast(maps4.device.type, enabled=False):
            return self.pred(maps4.to(self.pred.weight.dtype), rectified=True)
