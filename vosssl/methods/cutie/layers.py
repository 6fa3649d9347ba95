"""What several parts of Cutie are made of. B videos, N objects: maps of objects are (B*N, C, h, w) here."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vosssl.layers.convolution import Convolution


def add_shared(objects: Tensor, shared: Tensor) -> Tensor:
    """Adds what objects share to each of them, in place.

    Args:
        objects: (B*N, C, h, w), not needed any more as it is.
        shared: (B, C, h, w).

    Returns:
        (B*N, C, h, w).
    """
    if len(shared) == 1:  # keeps the layout, which is faster than five axes
        return objects.add_(shared)
    objects.unflatten(0, (len(shared), -1)).add_(shared.unsqueeze(1))  # (B, N, C, h, w) + (B, 1, C, h, w)
    return objects


def others(masks: Tensor) -> Tensor:
    """Where the other objects are, for each object: their sum, at most 1.

    Args:
        masks: (B, N, H, W) in [0, 1].

    Returns:
        (B, N, H, W).
    """
    return (masks.sum(dim=1, keepdim=True) - masks).clamp(0, 1)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` of `count` objects; one slice of all where size is below 1."""
    if size < 1:
        yield slice(None)  # says nothing about how many there are: exported graphs leave that free
        return
    for start in range(0, count, size):
        yield slice(start, start + size)


def chosen(maps: Tensor, part: slice) -> Tensor:
    """Some objects of (B, N, ...) as (B*n, ...); of one video with its layout, which a view would lose."""
    return maps[0, part] if len(maps) == 1 else maps[:, part].flatten(0, 1)


def joined(parts: list[Tensor]) -> Tensor:
    """Parts (B, n, ...) one behind the other (B, N, ...); a single part is not copied."""
    if len(parts) == 1:
        return parts[0]
    if parts[0].ndim == 5:  # (B, n, C, h, w): channels stay last in memory, as convolutions want them
        return torch.cat([part.movedim(2, -1) for part in parts], dim=1).movedim(-1, 2)
    return torch.cat(parts, dim=1)


def concatenated(*maps: Tensor) -> Tensor:
    """Maps (N, C_i, h, w) side by side; where nothing is learnt, channels are last in memory."""
    if torch.is_grad_enabled():
        return torch.cat(maps, dim=1)
    return torch.cat([part.permute(0, 2, 3, 1) for part in maps], dim=-1).permute(0, 3, 1, 2)


def gated_update(sensory: Tensor, values: Tensor) -> Tensor:
    """The sensory memory after an update: like a GRU's, with a forget gate of its own.

    Args:
        sensory: (N, S, h, w) before.
        values: (N, 3 S, h, w): logits of the forget gate and the update gate, new values before their tanh.

    Returns:
        (N, S, h, w).
    """
    forget, update, new = values.chunk(3, dim=1)
    update = update.sigmoid()
    return forget.sigmoid() * sensory * (1 - update) + update * new.tanh()


class SensoryTransform(nn.Module):
    """The convolution that turns features and the sensory memory into its gates; always in full precision.

    Args:
        width: channels of the features.
        sensory_width: S, channels of the memory.
    """

    def __init__(self, width: int, sensory_width: int) -> None:
        super().__init__()
        self.transform = Convolution(width + sensory_width, 3 * sensory_width)
        nn.init.xavier_normal_(self.transform.weight)

    def updated(self, features: Tensor, sensory: Tensor) -> Tensor:
        """(N, width, h, w) and the memory (N, S, h, w) to the memory after the update."""
        precision = self.transform.weight.dtype
        with torch.autocast(sensory.device.type, enabled=False):
            sensory = sensory.to(precision)
            values = self.transform(concatenated(features.to(precision), sensory))
            return gated_update(sensory, values)


class ChannelAttentionBlock(nn.Module):
    """Two convolutions whose result is weighed per channel before it is added to the input.

    Args:
        width: channels.

    Source: Wang et al., "ECA-Net: Efficient Channel Attention", CVPR 2020, section 3 (the kernel's width).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Convolution(width, width)
        self.conv2 = Convolution(width, width)
        kernel = int((math.log2(width) + 1) // 2)
        kernel += 1 - kernel % 2  # the next odd one
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, width, h, w) to the same shape."""
        inner = self.conv2(self.conv1(maps, rectified=True).relu_())
        means = inner.mean(dim=(2, 3)).unsqueeze(1)  # (N, C, h, w) -> (N, 1, C)
        gates = self.conv(means).sigmoid().transpose(1, 2).unsqueeze(-1)  # (N, 1, C) -> (N, C, 1, 1)
        return torch.addcmul(maps, inner, gates.to(inner.dtype))


class _Projections(nn.Module):
    def __init__(self, shared_width: int, object_width: int, width: int) -> None:
        super().__init__()
        self.x_transform = nn.Conv2d(shared_width, width, 1)
        self.g_transform = nn.Conv2d(object_width, width, 1)


class FeatureFusion(nn.Module):
    """Features of a frame added to features of its objects, then two blocks with channel attention.

    Args:
        shared_width: channels of the frame's features.
        object_width: channels of the objects' features.
        width: channels of the result.
    """

    def __init__(self, shared_width: int, object_width: int, width: int) -> None:
        super().__init__()
        self.distributor = _Projections(shared_width, object_width, width)
        self.block1 = ChannelAttentionBlock(width)
        self.block2 = ChannelAttentionBlock(width)

    def project_shared(self, features: Tensor) -> Tensor:
        """The frame's part (B, shared_width, h, w) -> (B, width, h, w): once, for however many objects."""
        return self.distributor.x_transform(features)

    def forward(self, shared: Tensor, objects: Tensor) -> Tensor:
        """Fuses.

        Args:
            shared: (B, width, h, w) of `project_shared`.
            objects: (B*N, object_width, h, w).

        Returns:
            (B*N, width, h, w).
        """
        fused = add_shared(self.distributor.g_transform(objects), shared)
        return self.block2(self.block1(fused))


class SinePositions(nn.Module):
    """Positions as sines and cosines; both axes of a map run from 0 to `scale`, whatever its size.

    Args:
        width: channels, a multiple of 4: the first half is the column's, the second the row's.
        scale: the last position.
        temperature: ratio of the longest wave to the shortest.
    """

    inv_freq: Tensor

    def __init__(self, width: int, *, scale: float = 32.0, temperature: float = 128.0) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"width is {width}, expected a multiple of 4: sine and cosine of two axes")
        half = width // 2
        self.scale = scale
        # a buffer, because the official checkpoints hold it
        self.register_buffer("inv_freq", 1 / temperature ** (torch.arange(0, half, 2).float() / half))

    def forward(self, height: int, width: int) -> Tensor:
        """(height * width, channels)."""
        rows, columns = self._axis(height), self._axis(width)
        codes = [columns.expand(height, -1, -1), rows.unsqueeze(1).expand(-1, width, -1)]
        return torch.cat(codes, dim=-1).flatten(0, 1)  # 2 x (h, w, C/2) -> (h*w, C)

    def _axis(self, length: int) -> Tensor:
        places = torch.arange(length, device=self.inv_freq.device, dtype=self.inv_freq.dtype)
        angles = (places / (length - 1 + 1e-6) * self.scale)[:, None] * self.inv_freq
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # -> (length, C/2)
