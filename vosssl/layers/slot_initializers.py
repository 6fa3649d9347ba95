"""Where slots start: learned vectors, Gaussian noise, or hints about the objects of the first frame."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.mlp import MLP

ConditionKind = Literal["boxes", "centres", "masks"]


class RandomInit(nn.Module):
    """Slots drawn from one learned Gaussian, afresh in every call; any number of them.

    Args:
        num_slots: K unless the call says otherwise.
        dim: slot width D.
        initial_std: standard deviation before training; D^-0.5 when left out.
    """

    needs_noise = True

    def __init__(self, num_slots: int, dim: int, *, initial_std: float | None = None) -> None:
        super().__init__()
        std = dim**-0.5 if initial_std is None else initial_std
        self.num_slots = num_slots
        self.dim = dim
        self.mean = nn.Parameter(torch.zeros(1, 1, dim))
        self.log_std = nn.Parameter(torch.full((1, 1, dim), std).log())

    def forward(
        self,
        batch_size: int,
        *,
        num_slots: int | None = None,
        noise: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Draws slots.

        Args:
            batch_size: B.
            num_slots: K.
            noise: (B, K, D) standard normal; drawn here when left out.
            condition: unused.

        Returns:
            (B, K, D).
        """
        if noise is None:
            noise = torch.randn(batch_size, num_slots or self.num_slots, self.dim, device=self.mean.device)
        return self.mean + noise.to(self.mean) * self.log_std.exp()


class LearnedInit(nn.Module):
    """Slots that are parameters, the same for every clip.

    Args:
        num_slots: K.
        dim: slot width D.
        initial_std: standard deviation before training; D^-0.5 when left out.
    """

    needs_noise = False

    def __init__(self, num_slots: int, dim: int, *, initial_std: float | None = None) -> None:
        super().__init__()
        std = dim**-0.5 if initial_std is None else initial_std
        self.num_slots = num_slots
        self.dim = dim
        self.slots = nn.Parameter(torch.randn(1, num_slots, dim) * std)

    def forward(
        self,
        batch_size: int,
        *,
        num_slots: int | None = None,
        noise: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """The first `num_slots` learned slots, (B, K, D).

        Raises:
            ValueError: more slots asked for than were learned.
        """
        count = self.num_slots if num_slots is None else num_slots
        if count > self.num_slots:
            raise ValueError(
                f"{count} slots asked for, but {self.num_slots} were learned; use RandomInit for any number"
            )
        return self.slots[:, :count].expand(batch_size, -1, -1)


class ConditionalInit(nn.Module):
    """Slots made from hints about the objects of the first frame, and one background slot from a zero hint.

    Args:
        num_slots: K, background included.
        dim: slot width D.
        kind: what a hint is: a box (4 numbers), a centre (2) or a mask.
        hidden_dim: hidden width of the MLP that turns a hint into a slot.
        mask_size: masks are averaged down to this (h, w) and flattened before the MLP.

    Source: Kipf et al., SAVi, ICLR 2022, section 2 and appendix A.
        Deviation: masks are read by the same MLP instead of a CNN.
    """

    needs_noise = False

    def __init__(
        self,
        num_slots: int,
        dim: int,
        *,
        kind: ConditionKind = "boxes",
        hidden_dim: int = 256,
        mask_size: tuple[int, int] = (16, 16),
    ) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.dim = dim
        self.kind = kind
        self.mask_size = (mask_size[0], mask_size[1])
        widths = {"boxes": 4, "centres": 2, "masks": mask_size[0] * mask_size[1]}
        self.embed = MLP(widths[kind], dim, hidden_dims=(hidden_dim,))

    def forward(
        self,
        batch_size: int,
        *,
        num_slots: int | None = None,
        noise: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Turns hints into slots.

        Args:
            batch_size: B.
            num_slots: K; missing objects get zero hints, as SAVi pads them.
            noise: unused.
            condition: (B, N, 4) boxes, (B, N, 2) centres or (B, N, H, W) masks of N < K objects, as
                `condition_from_labels` gives them.

        Returns:
            (B, K, D), background first.

        Raises:
            ValueError: no condition, or more objects than slots.
        """
        if condition is None:
            raise ValueError(f"these slots start from {self.kind} of the first frame; pass condition=")
        count = self.num_slots if num_slots is None else num_slots
        if condition.shape[1] >= count:
            raise ValueError(
                f"{condition.shape[1]} objects and background need more than {count} slots; raise num_slots"
            )
        hints = condition.to(self.embed.first.weight)
        if self.kind == "masks":
            hints = F.adaptive_avg_pool2d(hints, self.mask_size).flatten(2)  # (B, N, H, W) -> (B, N, h*w)
        hints = F.pad(hints, (0, 0, 1, count - 1 - hints.shape[1]))  # (B, N, c) -> (B, K, c), zeros around
        return self.embed(hints)


def condition_from_labels(labels: Tensor, *, kind: ConditionKind, objects: int) -> Tensor:
    """Hints for `ConditionalInit` from the labels of first frames.

    Args:
        labels: (B, H, W) uint8, 0 background, 1..254 objects, 255 void.
        kind: boxes (top, left, bottom, right) or centres (row, column), as fractions of the image; or masks.
        objects: N; ids 1..N are read, absent ones get zeros.

    Returns:
        (B, N, 4), (B, N, 2) or (B, N, H, W), float32.
    """
    ids = torch.arange(1, objects + 1, device=labels.device, dtype=torch.int32)
    masks = labels[:, None].to(torch.int32) == ids[:, None, None]  # (B, N, H, W)
    if kind == "masks":
        return masks.float()
    top, bottom = _extent(masks.any(dim=3))
    left, right = _extent(masks.any(dim=2))
    if kind == "boxes":
        return torch.stack((top, left, bottom, right), dim=-1)
    return torch.stack(((top + bottom) / 2, (left + right) / 2), dim=-1)


def _extent(present: Tensor) -> tuple[Tensor, Tensor]:
    """First and one-past-last true position of (B, N, L) as fractions of L; zeros where nothing is true."""
    length = present.shape[-1]
    first = present.int().argmax(dim=-1)
    last = length - present.flip(-1).int().argmax(dim=-1)
    exists = present.any(dim=-1)
    return first / length * exists, last / length * exists
