"""SegFormer: a Mix Transformer encoder and a head of linear layers; images to classes, frame by frame.

`state_dict()` has the keys of the published Hugging Face checkpoints in their order.

Source: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
NeurIPS 2021.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.backbones.mit import MixTransformer
from vosssl.ops.resize import resize_masks

log = logging.getLogger(__name__)


class _Projection(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width_in, width)


class AllMLPHead(nn.Module):
    """Each level through a linear layer and up to the first level's size, all fused by another.

    Args:
        widths: channels of the levels.
        width: channels between the layers.
        num_classes: C.
        dropout: of the fused features, in training.
    """

    def __init__(self, widths: Sequence[int], *, width: int, num_classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.linear_c = nn.ModuleList(_Projection(level, width) for level in widths)
        self.linear_fuse = nn.Conv2d(len(widths) * width, width, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Feature maps (N, D, h, w), the finest first, to logits (N, C, h, w) at the finest's size."""
        size = (levels[0].shape[-2], levels[0].shape[-1])
        lifted = []
        for maps, project in zip(levels, self.linear_c, strict=True):
            assert isinstance(project, _Projection)
            tokens = project.proj(maps.flatten(2).transpose(1, 2))  # (N, D, h, w) -> (N, h*w, width)
            lifted.append(resize_masks(tokens.transpose(1, 2).unflatten(-1, maps.shape[-2:]), size))
        fused = self.linear_fuse(torch.cat(lifted[::-1], dim=1))  # the coarsest comes first
        return self.classifier(self.dropout(F.relu(self.batch_norm(fused))))


class SegFormer(nn.Module):
    """The whole network.

    Args:
        widths: channels of the encoder's four levels.
        depths: their numbers of blocks.
        head_width: channels of the head.
        num_classes: C, with the background.
        drop_path: see MixTransformer; 0.1 in the published trainings.
        dropout: of the head, in training.
    """

    window = 1  # every frame by itself

    def __init__(
        self,
        *,
        widths: Sequence[int] = (32, 64, 160, 256),
        depths: Sequence[int] = (2, 2, 2, 2),
        head_width: int = 256,
        num_classes: int = 2,
        drop_path: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        encoder = MixTransformer(widths=widths, depths=depths, drop_path=drop_path)
        self.segformer = nn.ModuleDict({"encoder": encoder})
        self.decode_head = AllMLPHead(widths, width=head_width, num_classes=num_classes, dropout=dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of images or of every frame of clips.

        Args:
            images: (..., 3, H, W) RGB, normalised by IMAGENET_MEAN and _STD of ops.images; any size.

        Returns:
            (..., C, h, w), a quarter of H and W, rounded up.
        """
        logits = self.decode_head(self.frame_features(images.flatten(0, -4)))  # (N, C, h, w)
        return logits.unflatten(0, images.shape[:-3])

    def frame_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the encoder's four levels for (N, 3, H, W)."""
        levels: tuple[Tensor, ...] = self.segformer["encoder"](images)
        return levels

    def newest_logits(self, past: Sequence[tuple[Tensor, ...]]) -> Tensor:
        """(N, C, h, w) logits of the newest of some frames' features."""
        logits: Tensor = self.decode_head(past[-1])
        return logits

    def adapted_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """A published checkpoint as a start: what it lacks is taken from here, and said.

        The encoder trained on ImageNet (`nvidia/mit-b0`) has no head but a classifier of images, which is
        left out; a model trained on other classes has a last layer of another size, which starts anew.

        Args:
            state: the checkpoint's entries.

        Returns:
            What to load, to be matched strictly.
        """
        own = self.state_dict()
        adapted = {key: value for key, value in state.items() if not key.startswith("classifier.")}
        last = ("decode_head.classifier.weight", "decode_head.classifier.bias")
        fresh: list[str] = []
        if not any(key.startswith("decode_head.") for key in adapted):
            fresh = [key for key in own if key.startswith("decode_head.")]
        elif all(key in adapted and adapted[key].shape[0] != own[key].shape[0] for key in last):
            fresh = list(last)
        if fresh:
            log.info("not in these weights, so trained from scratch: %s", ", ".join(fresh))
        return adapted | {key: own[key] for key in fresh}
