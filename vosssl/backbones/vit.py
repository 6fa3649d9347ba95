"""Vision transformers of DINO, DINOv2 and DINOv3: one network, the three families' facts stated side by side.

`state_dict()` has the official checkpoints' keys in their order. Images of any size go in; patch, class and
register tokens come out, with intermediate layers and the last block's queries, keys, values and attention on
request.

Source: An Image is Worth 16x16 Words (Dosovitskiy et al., 2021); DINO (Caron et al., 2021); DINOv2 (Oquab et
al., 2023); Vision Transformers Need Registers (Darcet et al., 2023); DINOv3 (Siméoni et al., 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vosssl.backbones.vit_layers import (
    Block,
    PatchEmbed,
    Projected,
    RotaryPositions,
    Rotation,
    initialise,
    merge_heads,
    resize_positions,
)

Positions = Literal["scale", "size", "rotary"]
Layout = Literal["official", "timm"]


class Features(NamedTuple):
    """Tokens of one layer, split by role.

    Attributes:
        patches: (N, h*w, D), row by row.
        cls: (N, D).
        registers: (N, R, D); R is 0 for models without registers.
    """

    patches: Tensor
    cls: Tensor
    registers: Tensor


class LastBlock(NamedTuple):
    """What the last block computes.

    Attributes:
        output: its result, before the final norm.
        queries: as the `qkv` layer gives them, heads side by side: before scaling and before any rotation.
        keys, values: likewise.
        rotated_keys: keys as attention sees them; None for models without rotary positions.
        attention: softmax over [cls, registers, patches]: (N, heads, 1 + R + h*w) of the class token, or
            (N, heads, 1 + R + h*w, 1 + R + h*w) of every token; None if not asked for.
    """

    output: Features
    queries: Features
    keys: Features
    values: Features
    rotated_keys: Features | None
    attention: Tensor | None


class DenseFeatures(NamedTuple):
    """What object-centric learning reads from a frozen backbone.

    Attributes:
        patches: (N, h*w, D) output of the last block before the final norm.
        keys: (N, h*w, D) keys of the last block, before any rotation.
        grid: (h, w).
        cls_attention: (N, heads, h*w) last attention of the class token to the patches (the rest of its mass
            is on itself and the registers), or None.
    """

    patches: Tensor
    keys: Tensor
    grid: tuple[int, int]
    cls_attention: Tensor | None


class VisionTransformer(nn.Module):
    """A ViT whose parameters carry the official names; build it with `dino`, `dinov2` or `dinov3`.

    Args:
        patch_size: side of a patch in pixels.
        width: D, channels of a token.
        depth: number of blocks.
        heads: attention heads; must divide `width`.
        positions: `scale` resizes the learned embedding as DINO does, by the scale factor (h + 0.1) /
            pretrain_grid without antialiasing; `size` resizes to (h, w) with antialiasing, as DINOv2 with
            registers and timm do; `rotary` has no embedding and rotates queries and keys.
        pretrain_grid: patches a side that the learned embedding was trained with.
        registers: R, extra tokens behind the class token.
        register_name: their official name.
        mask_token: whether there is one; it stands for the patches that `forward` is told to hide.
        layer_scale: initial gain of the residual branches; None leaves them unscaled.
        norm_eps: epsilon of every LayerNorm.
        key_bias: False masks the bias of the keys.
        whole_patches: True refuses images whose sides are no multiple of `patch_size`; False drops the rest.
        layout: `timm` has the keys of timm's feature extractor in VideoSAUR's and SlotContrast's checkpoints:
            position embedding first, no mask token, no final norm (only `dense`, `last_block` and raw
            `intermediate` can be called).
        fused: False computes every attention explicitly.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        positions: Positions = "scale",
        pretrain_grid: int = 14,
        registers: int = 0,
        register_name: Literal["register_tokens", "storage_tokens"] = "register_tokens",
        mask_token: bool = False,
        layer_scale: float | None = None,
        norm_eps: float = 1e-6,
        key_bias: bool = True,
        whole_patches: bool = False,
        layout: Layout = "official",
        fused: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}; choose heads that divide it")
        self.patch_size = patch_size
        self.width = width
        self.heads = heads
        self.registers = registers
        self.positions = positions
        self.whole_patches = whole_patches
        self.omitted_keys = frozenset({"norm.weight", "norm.bias", "mask_token"} if layout == "timm" else ())
        tokens: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width)}
        if positions != "rotary":
            tokens["pos_embed"] = (1, 1 + pretrain_grid**2, width)
        if registers:
            tokens[register_name] = (1, registers, width)
        if mask_token and layout == "official":
            tokens["mask_token"] = (1, width)
        for name in sorted(tokens, key="pos_embed".__ne__) if layout == "timm" else tokens:
            self.register_parameter(name, nn.Parameter(torch.zeros(tokens[name])))
        self.register_name = register_name
        self.patch_embed = PatchEmbed(patch_size, width)
        self.rope_embed = RotaryPositions(width // heads) if positions == "rotary" else None
        self.blocks = nn.ModuleList(
            Block(width, heads, norm_eps=norm_eps, layer_scale=layer_scale, key_bias=key_bias, fused=fused)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps) if layout == "official" else None
        initialise(self)

    def forward(self, images: Tensor, *, masks: Tensor | None = None) -> Features:
        """Tokens of the last block after the final norm.

        Args:
            images: (N, 3, H, W) RGB, normalised by IMAGENET_MEAN and _STD of ops.images. Any H and W of at
                least a patch (DINOv2: multiples of it). Cast to the weights' dtype.
            masks: (N, h*w) bool, patches that are hidden: the mask token stands there. None hides nothing.

        Returns:
            The features, h = H // patch_size, w = W // patch_size.

        Raises:
            ValueError: wrong shape or dtype; or a network built without its final norm.
        """
        tokens, rotation = self._embed(images, masks)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        return self._split(self._normed(tokens))

    def intermediate(
        self, images: Tensor, *, layers: Sequence[int], normed: bool = False
    ) -> tuple[Features, ...]:
        """Tokens right after some blocks; blocks behind the last of them are not run.

        Args:
            images: as for `forward`.
            layers: block numbers from 0; negative ones count from the end.
            normed: whether to apply the final norm to each (the official `get_intermediate_layers` does).

        Returns:
            One Features per entry of `layers`, in its order.

        Raises:
            ValueError: a layer that does not exist.
        """
        depth = len(self.blocks)
        if not layers or any(not -depth <= layer < depth for layer in layers):
            raise ValueError(f"layers are {list(layers)}, expected some of {-depth}..{depth - 1}")
        wanted = [layer % depth for layer in layers]
        tokens, rotation = self._embed(images)
        seen: dict[int, Features] = {}
        for number, block in enumerate(self.blocks[: max(wanted) + 1]):
            tokens = block(tokens, rotation)
            if number in wanted:
                seen[number] = self._split(self._normed(tokens) if normed else tokens)
        return tuple(seen[number] for number in wanted)

    def last_block(self, images: Tensor, *, attention: Literal["cls", "full"] | None = None) -> LastBlock:
        """The last block's output before the final norm, and the parts of its attention.

        Args:
            images: as for `forward`.
            attention: `cls` also gives the class token's attention (one row is computed, the rest stays
                fused); `full` the attention of every token.
        """
        last, before, parts = self._until_last_attention(images)
        weights = None
        if attention is not None:
            rows = parts.turned_queries[:, :, :1] if attention == "cls" else parts.turned_queries
            weights = last.attn.weights(rows, parts.turned_keys)  # (N, heads, 1 or T, T)
        attended = last.attn.read(parts.turned_queries, parts.turned_keys, parts.values)
        return LastBlock(
            output=self._split(last.finish(before, attended)),
            queries=self._split(merge_heads(parts.queries)),
            keys=self._split(merge_heads(parts.keys)),
            values=self._split(merge_heads(parts.values)),
            rotated_keys=None if self.rope_embed is None else self._split(merge_heads(parts.turned_keys)),
            attention=weights[:, :, 0] if weights is not None and attention == "cls" else weights,
        )

    def dense(self, images: Tensor, *, cls_attention: bool = False) -> DenseFeatures:
        """Block output and keys of the patches in one pass, without the work that neither of them needs.

        Args:
            images: as for `forward`.
            cls_attention: whether to give the class token's attention too.
        """
        prefix = 1 + self.registers
        last, before, parts = self._until_last_attention(images)
        attended = last.attn.read(parts.turned_queries[:, :, prefix:], parts.turned_keys, parts.values)
        weights = None
        if cls_attention:
            weights = last.attn.weights(parts.turned_queries[:, :, :1], parts.turned_keys)[:, :, 0, prefix:]
        return DenseFeatures(
            patches=last.finish(before[:, prefix:], attended),
            keys=merge_heads(parts.keys[:, :, prefix:]),
            grid=self.grid_size(*images.shape[-2:]),
            cls_attention=weights,
        )

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Patches (h, w) of an image of height x width pixels.

        Raises:
            ValueError: an image smaller than a patch, or a remainder where the model refuses one.
        """
        patch = self.patch_size
        if min(height, width) < patch:
            raise ValueError(f"image is {height}x{width}, expected at least one patch of {patch}x{patch}")
        if self.whole_patches and (height % patch or width % patch):
            fit = [max(1, round(side / patch)) * patch for side in (height, width)]
            raise ValueError(
                f"image is {height}x{width}, expected multiples of the patch size {patch}; "
                f"resize it to {fit[0]}x{fit[1]}"
            )
        return height // patch, width // patch

    def _embed(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Rotation | None]:
        """Tokens (N, 1 + R + h*w, D) before the first block, and the rotation that every block applies."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images are {tuple(images.shape)} {images.dtype}, expected (N, 3, H, W) floats: "
                "RGB in [0, 1], minus IMAGENET_MEAN, divided by IMAGENET_STD (vosssl.ops.images)"
            )
        grid = self.grid_size(*images.shape[-2:])
        patches = self.patch_embed(images.to(self.patch_embed.proj.weight.dtype))
        if masks is not None:
            patches = torch.where(masks[..., None], self.get_parameter("mask_token").to(patches), patches)
        cls: Tensor = self.get_parameter("cls_token")
        if self.positions != "rotary":
            square = images.shape[-2] == images.shape[-1]
            embedding = self.get_parameter("pos_embed")
            positions = resize_positions(embedding, grid, square=square, positions=self.positions)
            cls, patches = cls + positions[:, :1], patches + positions[:, 1:]
        extra = [self.get_parameter(self.register_name)] if self.registers else []
        prefix = torch.cat([cls, *extra], dim=1).expand(len(images), -1, -1)
        tokens = torch.cat([prefix, patches], dim=1)  # (N, 1 + R + h*w, D)
        return tokens, None if self.rope_embed is None else self.rope_embed(grid)

    def _until_last_attention(self, images: Tensor) -> tuple[Block, Tensor, Projected]:
        """The last block, its input (N, T, D) and what its attention is computed from."""
        tokens, rotation = self._embed(images)
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens, rotation)
        assert isinstance(last, Block)
        return last, tokens, last.attn.project(last.norm1(tokens), rotation)

    def _normed(self, tokens: Tensor) -> Tensor:
        if self.norm is None:
            raise ValueError(
                "this ViT has no final norm, like the one in slot models' checkpoints; call `dense` or "
                "`intermediate(..., normed=False)`, or build it with layout='official'"
            )
        return self.norm(tokens)

    def _split(self, tokens: Tensor) -> Features:
        prefix = 1 + self.registers
        return Features(patches=tokens[:, prefix:], cls=tokens[:, 0], registers=tokens[:, 1:prefix])


def dino(
    *,
    patch_size: int,
    width: int = 384,
    heads: int = 6,
    depth: int = 12,
    layout: Layout = "official",
    positions: Literal["scale", "size"] | None = None,
    fused: bool = True,
) -> VisionTransformer:
    """DINO: no LayerScale, no registers, 224 px pretraining.

    Args:
        patch_size: 16 or 8.
        width: 384 (ViT-S) or 768 (ViT-B).
        heads: 6 (ViT-S) or 12 (ViT-B).
        depth: number of blocks.
        layout: `official`, or `timm` for the ViT inside VideoSAUR's and SlotContrast's checkpoints.
        positions: how the embedding is resized; None does as the code behind `layout` does.
        fused: False computes attention explicitly.
    """
    return VisionTransformer(
        patch_size=patch_size,
        width=width,
        heads=heads,
        depth=depth,
        positions=positions or ("size" if layout == "timm" else "scale"),
        pretrain_grid=224 // patch_size,
        whole_patches=layout == "timm",
        layout=layout,
        fused=fused,
    )


def dinov2(
    *,
    patch_size: int = 14,
    width: int = 384,
    heads: int = 6,
    depth: int = 12,
    registers: int = 0,
    layout: Layout = "official",
    positions: Literal["scale", "size"] | None = None,
    fused: bool = True,
) -> VisionTransformer:
    """DINOv2: LayerScale, 518 px pretraining, with `registers=4` the models with registers.

    Args: as for `dino`; the released models with registers resize positions by size, those without by scale.
    """
    return VisionTransformer(
        patch_size=patch_size,
        width=width,
        heads=heads,
        depth=depth,
        positions=positions or ("size" if registers or layout == "timm" else "scale"),
        pretrain_grid=518 // patch_size,
        registers=registers,
        mask_token=True,
        layer_scale=1.0,
        whole_patches=True,
        layout=layout,
        fused=fused,
    )


def dinov3(
    *,
    patch_size: int = 16,
    width: int = 384,
    heads: int = 6,
    depth: int = 12,
    registers: int = 4,
    fused: bool = True,
) -> VisionTransformer:
    """DINOv3: rotary positions, storage tokens as registers, keys without bias, LayerNorm epsilon 1e-5.

    Args: as for `dino`.
    """
    return VisionTransformer(
        patch_size=patch_size,
        width=width,
        heads=heads,
        depth=depth,
        positions="rotary",
        registers=registers,
        register_name="storage_tokens",
        mask_token=True,
        layer_scale=1e-5,
        norm_eps=1e-5,
        key_bias=False,
        fused=fused,
    )
