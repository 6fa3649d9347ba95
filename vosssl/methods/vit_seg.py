"""ViT segmentation head: the simplest supervised model, any ViT and a linear or small convolutional head.

Frames may be segmented one by one, or some together: blocks of joint space-time attention over the tokens of
a few frames let what moves be told from what does not.

Source: the linear head is that of DINOv2 (Oquab et al., 2023, section 7.4) without its batch norm; joint
space-time attention is that of TimeSformer (Bertasius et al., ICML 2021, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vosssl.backbones.vit import VisionTransformer
from vosssl.backbones.vit_layers import Block

HEAD_STD = 0.02  # of new matrices, as in the ViTs


class Tokens(NamedTuple):
    """Patch tokens (N, h*w, D) of frames, and their grid (h, w)."""

    patches: Tensor
    grid: tuple[int, int]


class ConvHead(nn.Sequential):
    """1x1 convolution, then so many times twice the resolution and a 3x3 convolution, then the classes.

    Args:
        width_in: D of the feature maps (N, D, h, w).
        num_classes: C.
        width: channels in between, a multiple of 8.
        doublings: how often the resolution doubles.
    """

    def __init__(self, width_in: int, num_classes: int, *, width: int = 64, doublings: int = 1) -> None:
        layers: list[nn.Module] = [nn.Conv2d(width_in, width, 1), *_mixing(width)]
        for _ in range(doublings):
            layers += [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), *_mixing(width)]
        super().__init__(*layers, nn.Conv2d(width, num_classes, 1))


def _mixing(width: int) -> list[nn.Module]:
    return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.GELU()]


class ViTSeg(nn.Module):
    """A ViT with a segmentation head.

    Args:
        backbone: gives the patches' tokens.
        num_classes: C, with the background.
        head: `linear` classifies each patch; `conv` looks at neighbours and doubles the resolution.
        head_width: channels of the convolutional head.
        doublings: how often the convolutional head doubles the resolution.
        frozen: the backbone stays as it is.
        window: how many frames are looked at together, online the newest and those before it.
        space_time_blocks: blocks of attention over all tokens of these frames; 0 when `window` is 1.

    Raises:
        ValueError: a window of several frames without blocks that join them, or the reverse.
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        *,
        num_classes: int = 2,
        head: Literal["linear", "conv"] = "conv",
        head_width: int = 64,
        doublings: int = 1,
        frozen: bool = False,
        window: int = 1,
        space_time_blocks: int = 0,
    ) -> None:
        super().__init__()
        if window < 1 or (window > 1) != (space_time_blocks > 0):
            raise ValueError(
                f"window is {window} with {space_time_blocks} space-time blocks; expected a window above 1 "
                "with at least one block, or window 1 with none"
            )
        self.num_classes = num_classes
        self.window = window
        self.frozen = frozen
        self.backbone = backbone.requires_grad_(False) if frozen else backbone
        self.times = nn.Parameter(torch.zeros(window, 1, backbone.width)) if window > 1 else None
        self.space_time = nn.ModuleList(
            Block(backbone.width, backbone.heads, norm_eps=1e-6, layer_scale=None, key_bias=True, fused=True)
            for _ in range(space_time_blocks)
        )
        self.norm = nn.LayerNorm(backbone.width, eps=1e-6) if space_time_blocks else nn.Identity()
        self.head: nn.Module
        if head == "conv":
            self.head = ConvHead(backbone.width, num_classes, width=head_width, doublings=doublings)
        else:
            self.head = nn.Conv2d(backbone.width, num_classes, 1)
        self._initialise()

    def _initialise(self) -> None:
        if self.times is not None:
            nn.init.normal_(self.times, std=HEAD_STD)
        for module in self.space_time.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=HEAD_STD)
                nn.init.zeros_(module.bias)

    def train(self, mode: bool = True) -> ViTSeg:
        """A frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, clips: Tensor) -> Tensor:
        """Class logits of every frame of clips.

        Args:
            clips: (B, T, 3, H, W) RGB, normalised by IMAGENET_MEAN and _STD of ops.images; with space-time
                blocks T is at most the window.

        Returns:
            (B, T, C, h, w): a patch's side coarser than H and W with the linear head, finer by the doublings
            with the convolutional one.

        Raises:
            ValueError: another shape, or more frames than the window.
        """
        if clips.ndim != 5 or clips.shape[2] != 3:
            raise ValueError(f"clips are {tuple(clips.shape)}, expected (B, T, 3, H, W)")
        tokens = self.frame_features(clips.flatten(0, 1))
        if self.times is not None:
            joined = self._joined(tokens.patches.unflatten(0, clips.shape[:2]))
            tokens = Tokens(joined.flatten(0, 1), tokens.grid)  # (B, T, P, D) -> (B*T, P, D)
        return self._classified(tokens).unflatten(0, clips.shape[:2])

    def frame_features(self, images: Tensor) -> Tokens:
        """The backbone's tokens of frames (N, 3, H, W), each by itself."""
        grid = self.backbone.grid_size(images.shape[-2], images.shape[-1])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return Tokens(self.backbone(images).patches, grid)

    def newest_logits(self, past: Sequence[Tokens]) -> Tensor:
        """(N, C, h, w) logits of the newest of some frames, given their tokens, oldest first."""
        newest = past[-1]
        if self.times is not None:
            clips = torch.stack([tokens.patches for tokens in past], dim=1)  # (N, T, P, D)
            newest = Tokens(self._joined(clips)[:, -1], newest.grid)
        return self._classified(newest)

    def _joined(self, patches: Tensor) -> Tensor:
        """Tokens (B, T, P, D) after attention over all T*P of them; the last frame has the last time."""
        assert self.times is not None
        length = patches.shape[1]
        if length > self.window:
            raise ValueError(
                f"a clip has {length} frames, the window is {self.window}; train on clips of at most "
                f"{self.window} frames, or raise method.network.window"
            )
        tokens = (patches + self.times[-length:]).flatten(1, 2)  # (B, T, P, D) -> (B, T*P, D)
        for block in self.space_time:
            tokens = block(tokens)
        return self.norm(tokens).unflatten(1, patches.shape[1:3])

    def _classified(self, tokens: Tokens) -> Tensor:
        maps = tokens.patches.transpose(1, 2).unflatten(-1, tokens.grid)  # (N, P, D) -> (N, D, h, w)
        logits: Tensor = self.head(maps)
        return logits

    def adapted_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """A backbone's checkpoint as a start: its keys get the prefix, what is behind it stays as it is.

        Args:
            state: the entries of a checkpoint of this network or of its backbone alone.

        Returns:
            What to load, to be matched strictly.
        """
        own = self.state_dict()
        if any(key.startswith("backbone.") for key in state) or not state:
            return state
        omitted = self.backbone.omitted_keys
        prefixed = {f"backbone.{key}": value for key, value in state.items() if key not in omitted}
        return prefixed | {key: value for key, value in own.items() if not key.startswith("backbone.")}
