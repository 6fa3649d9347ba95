"""MobileSAM: masks of one image from points, boxes and masks, with a small image encoder.

`state_dict()` has the released checkpoint's keys in its order.

Source: Zhang et al., "Faster Segment Anything: Towards Lightweight SAM for Mobile Applications", 2023;
prompts and decoder: Kirillov et al., "Segment Anything", ICCV 2023, appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.backbones.tiny_vit import TinyViT
from vosssl.layers.channel_norm import ChannelNorm
from vosssl.layers.linear_stack import LinearStack
from vosssl.layers.prompt_encoder import ABSENT, PromptEncoder
from vosssl.layers.two_way_transformer import LinearPair, TwoWayTransformer
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD, as_float
from vosssl.ops.resize import Size, resize_masks, resize_to_longest
from vosssl.propagation.image_prompting import EncodedImage, MaskCandidates, PromptRows


class MaskDecoder(nn.Module):
    """Prompt tokens and an image embedding to masks, each with an estimate of its quality.

    Args:
        dim: width of tokens and embedding; a multiple of 8.
        candidates: masks of an ambiguous prompt; one more is for prompts that are not.
        depth: blocks of the transformer.
        heads: of its attentions.
        feed_forward_dim: width inside its feed-forward networks.
        iou_dim: width inside the network that estimates quality.
    """

    def __init__(
        self,
        dim: int = 256,
        *,
        candidates: int = 3,
        depth: int = 2,
        heads: int = 8,
        feed_forward_dim: int = 2048,
        iou_dim: int = 256,
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(
            dim, depth=depth, heads=heads, feed_forward_dim=feed_forward_dim, feed_forward=LinearPair
        )
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(candidates + 1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            ChannelNorm(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            LinearStack(dim, dim // 8, hidden_dim=dim) for _ in range(candidates + 1)
        )
        self.iou_prediction_head = LinearStack(dim, candidates + 1, hidden_dim=iou_dim)

    def forward(
        self,
        embedding: Tensor,
        positions: Tensor,
        tokens: Tensor,
        *,
        multimask: bool,
        present: Tensor | None = None,
    ) -> MaskCandidates:
        """Masks of P prompts.

        Args:
            embedding: (P or 1, dim, h, w) of the image, mask prompts added.
            positions: (1, dim, h, w) of its places.
            tokens: (P or 1, N, dim) of the prompts.
            multimask: the several masks of an ambiguous prompt, instead of the one of a clear prompt.
            present: (P, N) bool, False for tokens that mean nothing; None: all mean something.

        Returns:
            Logits (P, M, 4h, 4w) and quality (P, M).
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])  # (1 + M, dim)
        rows = max(embedding.shape[0], tokens.shape[0])
        asked = torch.cat(
            [own.expand(tokens.shape[0], -1, -1), tokens], dim=1
        )  # (P or 1, N, dim) -> (., 1 + M + N, dim)
        if present is not None:
            present = F.pad(present, (len(own), 0), value=True)
        answers, places = self.transformer(embedding, positions, asked.expand(rows, -1, -1), mask=present)
        size = embedding.shape[-2:]
        maps = places.transpose(1, 2).unflatten(-1, size)  # (P, h * w, dim) -> (P, dim, h, w)
        upscaled = self.output_upscaling(maps)  # -> (P, dim / 8, 4h, 4w)
        wanted = range(1, len(own) - 1) if multimask else range(1)
        kernels = [self.output_hypernetworks_mlps[mask](answers[:, 1 + mask]) for mask in wanted]
        logits = torch.einsum("pmc,pchw->pmhw", torch.stack(kernels, dim=1), upscaled)
        return MaskCandidates(logits, self.iou_prediction_head(answers[:, 0])[:, list(wanted)])


class MobileSAM(nn.Module):
    """The network: `embed` images, then `decode` prompts; or, for one image, see `ImagePrompter`.

    Args:
        image_size: side of the square that images are padded to, in pixels.
        widths, depths, heads, windows, strides, expansion, classes: of the image encoder, see `TinyViT`.
        dim: width of embedding and tokens.
        mask_dim: channels of a mask prompt on its way to the embedding.
        candidates, decoder_depth, decoder_heads, feed_forward_dim, iou_dim: see `MaskDecoder`.

    Raises:
        ValueError: an image size that is no multiple of the encoder's stride.
    """

    def __init__(
        self,
        *,
        image_size: int = 1024,
        widths: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        strides: Sequence[int] = (2, 2, 1),
        expansion: int = 4,
        classes: int = 1000,
        dim: int = 256,
        mask_dim: int = 16,
        candidates: int = 3,
        decoder_depth: int = 2,
        decoder_heads: int = 8,
        feed_forward_dim: int = 2048,
        iou_dim: int = 256,
    ) -> None:
        super().__init__()
        self.image_encoder = TinyViT(
            widths=widths,
            depths=depths,
            heads=heads,
            windows=windows,
            strides=strides,
            expansion=expansion,
            neck_width=dim,
            classes=classes,
        )
        self.prompt_encoder = PromptEncoder(dim, mask_dim=mask_dim)
        self.mask_decoder = MaskDecoder(
            dim,
            candidates=candidates,
            depth=decoder_depth,
            heads=decoder_heads,
            feed_forward_dim=feed_forward_dim,
            iou_dim=iou_dim,
        )
        if image_size % self.image_encoder.stride:
            raise ValueError(
                f"image_size is {image_size}, expected a multiple of {self.image_encoder.stride} pixels"
            )
        self.image_size = image_size

    @property
    def embedding_size(self) -> Size:
        """(h, w) of embeddings."""
        side = self.image_size // self.image_encoder.stride
        return side, side

    @property
    def mask_prompt_size(self) -> Size:
        """(h, w) of masks as they are decoded and as they are given as prompts."""
        side = 4 * self.image_size // self.image_encoder.stride
        return side, side

    def embed(self, images: Tensor) -> Tensor:
        """Image embeddings.

        Args:
            images: (B, 3, H, W) RGB float in [0, 1], no side longer than `image_size`; padded to the right
                and below with the mean colour.

        Returns:
            (B, dim, h, w).

        Raises:
            ValueError: larger images.
        """
        height, width = images.shape[-2:]
        if max(height, width) > self.image_size:
            raise ValueError(
                f"images are {height} x {width}, expected sides of at most {self.image_size}; resize them"
            )
        mean, std = (images.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        padded = F.pad((images - mean) / std, (0, self.image_size - width, 0, self.image_size - height))
        return self.image_encoder(padded)

    def decode(self, embedding: Tensor, prompts: PromptRows, *, multimask: bool) -> MaskCandidates:
        """Masks of prompts, one row each.

        Args:
            embedding: (1, dim, h, w) of the image that all prompts ask about, or (P, dim, h, w).
            prompts: P rows, in pixels of the network's input.
            multimask: several masks for each prompt, or one.

        Returns:
            Logits (P, M, 4h, 4w) of the whole padded square, and quality (P, M).
        """
        square = (self.image_size, self.image_size)
        tokens = self.prompt_encoder.tokens(
            square, points=prompts.points, labels=prompts.labels, boxes=prompts.boxes
        )
        size = (embedding.shape[-2], embedding.shape[-1])
        masks = None if prompts.masks is None else prompts.masks.to(embedding.dtype)
        dense = self.prompt_encoder.maps(size, masks=masks)
        present = None
        if prompts.labels is not None and bool((prompts.labels == ABSENT).any()):
            present = F.pad(
                prompts.labels != ABSENT, (0, tokens.shape[1] - prompts.labels.shape[1]), value=True
            )
        return self.mask_decoder(
            embedding + dense,
            self.prompt_encoder.positions(size),
            tokens,
            multimask=multimask,
            present=present,
        )

    def forward(self, images: Tensor, prompts: PromptRows, multimask: bool = True) -> MaskCandidates:
        """`embed`, then `decode` with one prompt for each image: what training needs."""
        return self.decode(self.embed(images), prompts, multimask=multimask)

    def encode_image(self, image: Tensor) -> EncodedImage:
        """One image of any size, its longer side resized to `image_size`.

        Args:
            image: (3, H, W) RGB, uint8 (then resized as bytes, like the official code) or float in [0, 1].
        """
        size = (image.shape[-2], image.shape[-1])
        resized = resize_to_longest(image, self.image_size)
        weight = self.prompt_encoder.no_mask_embed.weight
        frame = as_float(resized).to(device=weight.device, dtype=weight.dtype)
        embedding = self.embed(frame[None])
        return EncodedImage((embedding,), size, (resized.shape[-2], resized.shape[-1]))

    def decode_prompts(self, image: EncodedImage, prompts: PromptRows, *, multimask: bool) -> MaskCandidates:
        """`decode` for prompts in pixels of the image."""
        return self.decode(image.features[0], prompts.scaled_to(image), multimask=multimask)

    def at_image_size(self, image: EncodedImage, logits: Tensor) -> Tensor:
        """(P, M, 4h, 4w) to (P, M, H, W): enlarged to the network's input, cut to the image, resized."""
        square = resize_masks(logits, (self.image_size, self.image_size))
        return resize_masks(square[..., : image.inner[0], : image.inner[1]], image.size)
