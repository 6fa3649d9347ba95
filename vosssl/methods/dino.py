"""DINO: a ViT that teaches itself; with iBOT's masked patches and correspondence over time as options.

The student sees all crops of a scene, its slow average, the teacher, only the large ones; the student shall
say of each what the teacher says of another. What is kept afterwards is the teacher's ViT.

Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021; Zhou et al.,
"iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

from vosssl.backbones.vit import Features, VisionTransformer
from vosssl.clip import Batch
from vosssl.data.multi_crop import LOCAL, MATCHES
from vosssl.layers.projection_head import ProjectionHead
from vosssl.losses.correspondence import correspondence, match_targets
from vosssl.losses.self_distillation import (
    distillation_targets,
    masked_distillation,
    moved_centre,
    self_distillation,
)
from vosssl.ops.block_masks import block_masks
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD, as_float


@dataclass(frozen=True)
class Crops:
    """What one training step looks at.

    Attributes:
        large: (2, B, 3, S, S) RGB, uint8 or in [0, 1].
        small: (n, B, 3, s, s), or None.
        masks: (2*B, P) bool, patches of the large crops that the student does not see, or None.
        heads: whether prototypes are needed.
        frozen_prototypes: whether they stay as they are.
    """

    large: Tensor
    small: Tensor | None = None
    masks: Tensor | None = None
    heads: bool = True
    frozen_prototypes: bool = False


class Views(NamedTuple):
    """What student and teacher say of the crops; None what was not asked for.

    Attributes:
        student: (2 + n, B, K) logits, large crops first.
        teacher: (2, B, K).
        student_patches: (2*B, P, K).
        teacher_patches: (2*B, P, K).
        patches: (2, B, P, D) tokens of the student's ViT.
        grid: (h, w) of the large crops.
    """

    student: Tensor | None
    teacher: Tensor | None
    student_patches: Tensor | None
    teacher_patches: Tensor | None
    patches: Tensor
    grid: tuple[int, int]


class DropPath(nn.Module):
    """Leaves out a residual branch for some samples, in training only.

    Args:
        probability: of leaving it out.

    Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        if not self.training or self.probability == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.probability
        return branch * kept / (1 - self.probability)


class Dino(nn.Module):
    """Student and teacher, each a ViT with a head for all tokens, and the centres of the teacher's logits.

    Called with images it is the teacher's ViT.

    Args:
        patch_size: side of a patch in pixels.
        width: of the tokens.
        depth: blocks.
        heads: of attention.
        grid: patches a side of the large crops.
        hidden_dim, bottleneck_dim, prototypes: of the heads.
        drop_path: largest probability of leaving out a branch of the student, reached in its last block.

    Attributes:
        patch_size: side of a patch in pixels.
    """

    mean: Tensor
    std: Tensor
    centre: Tensor
    patch_centre: Tensor
    followed: Tensor

    def __init__(
        self,
        *,
        patch_size: int = 16,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        grid: int = 14,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        prototypes: int = 65536,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.student = VisionTransformer(
            patch_size=patch_size,
            width=width,
            depth=depth,
            heads=heads,
            positions="size",
            pretrain_grid=grid,
            mask_token=True,
        )
        self.student_head = ProjectionHead(
            width, hidden_dim=hidden_dim, bottleneck_dim=bottleneck_dim, prototypes=prototypes
        )
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.student_head).requires_grad_(False)
        for index, block in enumerate(self.student.blocks if drop_path else ()):
            parts: Any = block
            parts.ls1 = DropPath(drop_path * index / max(1, depth - 1))
            parts.ls2 = DropPath(drop_path * index / max(1, depth - 1))
        self.register_buffer("centre", torch.zeros(1, prototypes))
        self.register_buffer("patch_centre", torch.zeros(1, prototypes))
        self.register_buffer("followed", torch.zeros((), dtype=torch.int64))  # steps the teacher has seen
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> Dino:
        """The teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        self.teacher_head.eval()
        return self

    def forward(self, views: Tensor | Crops) -> Features | Views:
        """Features of images as the teacher's ViT gives them, or everything about a batch of crops.

        Args:
            views: (N, 3, H, W) normalised images, or crops.
        """
        if isinstance(views, Tensor):
            features: Features = self.teacher(views)
            return features
        large = self._normalised(views.large).flatten(0, 1)  # (2, B, 3, S, S) -> (2*B, 3, S, S)
        seen: Features = self.student(large, masks=views.masks)
        grid = self.student.grid_size(*large.shape[-2:])
        patches = seen.patches.unflatten(0, (2, -1))
        if not views.heads:
            return Views(None, None, None, None, patches, grid)
        whole = [seen.cls.unflatten(0, (2, -1))]  # (2*B, D) -> (2, B, D)
        if views.small is not None:
            small = self._normalised(views.small)
            whole.append(self.student(small.flatten(0, 1)).cls.unflatten(0, small.shape[:2]))
        frozen = views.frozen_prototypes
        with torch.no_grad():
            target: Features = self.teacher(large)
            teacher = self.teacher_head(target.cls).unflatten(0, (2, -1))
            teacher_patches = None if views.masks is None else self.teacher_head(target.patches)
        return Views(
            student=self.student_head(torch.cat(whole), frozen_prototypes=frozen),
            teacher=teacher,
            student_patches=None
            if views.masks is None
            else self.student_head(seen.patches, frozen_prototypes=frozen),
            teacher_patches=teacher_patches,
            patches=patches,
            grid=grid,
        )

    @torch.no_grad()
    def follow(self, step: int, momentum: float) -> None:
        """Moves the teacher towards the student, once per optimiser step however often it is asked.

        Args:
            step: optimiser steps taken.
            momentum: weight of the past.
        """
        if int(self.followed) >= step:
            return
        self.followed.fill_(step)
        for teacher, student in ((self.teacher, self.student), (self.teacher_head, self.student_head)):
            torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)

    def _normalised(self, images: Tensor) -> Tensor:
        return (as_float(images) - self.mean) / self.std


class Objective:
    """DINO's distillation, iBOT's masked patches and correspondence of patches; a weight of 0 leaves one out.

    The momentum and the temperatures follow `steps`, not the clock.

    Args:
        steps: of the run.
        distillation_weight: of DINO's loss over crops.
        masked_weight: of iBOT's loss over hidden patches.
        correspondence_weight: of the loss that finds each patch of one large crop in the other, see
            `MultiCrop(patch_size=...)`.
        student_temperature: of its logits.
        teacher_temperature: at the start and after the warm-up.
        teacher_warmup: steps of that warm-up.
        momentum: of the teacher, at the start and at the end; half a cosine between.
        centre_momentum: of the centres.
        frozen_prototypes: steps in which the student's prototypes stay; DINO takes one epoch.
        mask_share: least and most of a crop's patches that are hidden.
        mask_probability: of hiding any.
        correspondence_temperature: of correspondence.
    """

    def __init__(
        self,
        *,
        steps: int,
        distillation_weight: float = 1.0,
        masked_weight: float = 0.0,
        correspondence_weight: float = 0.0,
        student_temperature: float = 0.1,
        teacher_temperature: Sequence[float] = (0.04, 0.07),
        teacher_warmup: int = 0,
        momentum: Sequence[float] = (0.996, 1.0),
        centre_momentum: float = 0.9,
        frozen_prototypes: int = 0,
        mask_share: Sequence[float] = (0.1, 0.5),
        mask_probability: float = 0.5,
        correspondence_temperature: float = 0.1,
    ) -> None:
        if max(distillation_weight, masked_weight, correspondence_weight) <= 0:
            raise ValueError("all weights of the objective are 0, expected at least one above")
        self.steps = steps
        self.distillation_weight = distillation_weight
        self.masked_weight = masked_weight
        self.correspondence_weight = correspondence_weight
        self.student_temperature = student_temperature
        self.teacher_temperatures = (teacher_temperature[0], teacher_temperature[1])
        self.teacher_warmup = teacher_warmup
        self.momenta = (momentum[0], momentum[1])
        self.centre_momentum = centre_momentum
        self.frozen_prototypes = frozen_prototypes
        self.mask_share = mask_share
        self.mask_probability = mask_probability
        self.correspondence_temperature = correspondence_temperature

    def momentum(self, step: int) -> float:
        """Of the teacher at a step."""
        first, last = self.momenta
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))

    def teacher_temperature(self, step: int) -> float:
        """Of the teacher's logits at a step."""
        first, last = self.teacher_temperatures
        return last if step >= self.teacher_warmup else first + (last - first) * step / self.teacher_warmup

    def crops(self, batch: Batch, step: int, patch_size: int) -> Crops:
        """The crops of a batch from `MultiCrop`."""
        large = batch.frames.transpose(0, 1)  # (B, 2, ...) -> (2, B, ...)
        small = batch.features.get(LOCAL)  # (B, 2, n / 2, 3, s, s)
        masks = None
        if self.masked_weight:
            grid = (large.shape[-2] // patch_size, large.shape[-1] // patch_size)
            seeds = torch.cat([batch.seeds, batch.seeds + 1])
            masks = block_masks(seeds, grid, share=self.mask_share, probability=self.mask_probability)
        return Crops(
            large=large,
            small=None if small is None else small.flatten(1, 2).transpose(0, 1),  # -> (n, B, 3, s, s)
            masks=None if masks is None else masks.to(large.device),
            heads=self.distillation_weight > 0 or self.masked_weight > 0,
            frozen_prototypes=step < self.frozen_prototypes,
        )

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted losses of one batch; moves the teacher first and the centres last.

        Raises:
            ValueError: a batch that is not of two large crops, or lacks what a loss needs.
        """
        if batch.frames.shape[1] != 2:
            raise ValueError(
                f"a batch has clips of {batch.frames.shape[1]} frames, expected the two large crops of "
                "vosssl.data.multi_crop.MultiCrop"
            )
        # it may be wrapped, to exchange gradients, or compiled
        model = next(part for part in network.modules() if isinstance(part, Dino))
        if step:
            model.follow(step, self.momentum(step - 1))
        crops = self.crops(batch, step, model.patch_size)
        views: Views = network(crops)
        losses = self._distillation(model, views, crops, step) if crops.heads else {}
        if self.correspondence_weight:
            losses["correspondence"] = self.correspondence_weight * self._correspondence(views, batch)
        return losses

    def _distillation(self, model: Dino, views: Views, crops: Crops, step: int) -> dict[str, Tensor]:
        assert views.student is not None
        assert views.teacher is not None
        sharpness = self.teacher_temperature(step)
        losses: dict[str, Tensor] = {}
        if self.distillation_weight:
            targets = distillation_targets(views.teacher, model.centre, temperature=sharpness)
            loss = self_distillation(views.student, targets, temperature=self.student_temperature)
            losses["distillation"] = self.distillation_weight * loss
            self._recentre(model.centre, views.teacher)
        if views.student_patches is not None and views.teacher_patches is not None:
            assert crops.masks is not None
            targets = distillation_targets(views.teacher_patches, model.patch_centre, temperature=sharpness)
            loss = masked_distillation(
                views.student_patches, targets, crops.masks, temperature=self.student_temperature
            )
            losses["masked"] = self.masked_weight * loss
            self._recentre(model.patch_centre, views.teacher_patches)
        return losses

    def _correspondence(self, views: Views, batch: Batch) -> Tensor:
        matches = batch.features.get(MATCHES)
        if matches is None:
            raise ValueError(
                "correspondence needs to know where patches are seen; give MultiCrop patch_size=…, or the "
                "objective correspondence_weight=0"
            )
        there, back = (match_targets(matches[:, index], views.grid) for index in range(2))
        first, second = views.patches
        losses = [
            correspondence(first, second, there, temperature=self.correspondence_temperature),
            correspondence(second, first, back, temperature=self.correspondence_temperature),
        ]
        return torch.stack(losses).mean()

    def _recentre(self, centre: Tensor, logits: Tensor) -> None:
        """Moves a centre towards the mean of a batch over all processes."""
        mean = logits.float().flatten(0, -2).mean(dim=0, keepdim=True)  # (..., K) -> (1, K)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)
            mean = mean / torch.distributed.get_world_size()
        centre.copy_(moved_centre(centre, mean, momentum=self.centre_momentum))
