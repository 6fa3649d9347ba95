"""SAM 2 on one image: what `ImagePrompter` and `MaskGenerator` ask a network for.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, and its code for images: they are
squashed to a square, nothing is remembered, and whether the object is there is not asked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vosssl.layers.prompt_encoder import ABSENT, boxes_as_points
from vosssl.methods.sam2.mask_decoder import choose
from vosssl.methods.sam2.network import SAM2
from vosssl.ops.images import as_float
from vosssl.ops.resize import Size, resize_image, resize_masks
from vosssl.propagation.image_prompting import EncodedImage, ImagePrompter, MaskCandidates, PromptRows

LARGEST_LOGIT = 32.0  # of a mask prompt: what training clamped them to


class SAM2Images:
    """The image side of a SAM 2.

        prompter = ImagePrompter(SAM2Images(vosssl.create_model("sam2.1-hiera-tiny", weights=...)))

    Args:
        network: in evaluation mode, on any device.
        image_size: side of the square in pixels, a multiple of 32; 1024 as published.

    Raises:
        ValueError: another size.
    """

    def __init__(self, network: SAM2, *, image_size: int = 1024) -> None:
        if image_size < 32 or image_size % 32:
            raise ValueError(f"image_size is {image_size}, expected a multiple of 32 pixels")
        self.network = network
        self.image_size = image_size

    @property
    def mask_prompt_size(self) -> Size:
        """(h, w) of masks as they are decoded and as they are given as prompts."""
        return self.image_size // 4, self.image_size // 4

    def encode_image(self, image: Tensor) -> EncodedImage:
        """(3, H, W) RGB, uint8 or float in [0, 1], to features at strides 16, 4 and 8."""
        weight, square = self.network.no_mem_embed, (self.image_size, self.image_size)
        frame = resize_image(as_float(image), square).to(device=weight.device, dtype=weight.dtype)
        encoded = self.network.encode_image(frame[None])
        features = self.network.condition_on_memory(encoded, None)
        return EncodedImage((features, *encoded.skips), (image.shape[-2], image.shape[-1]), square)

    def decode_prompts(self, image: EncodedImage, prompts: PromptRows, *, multimask: bool) -> MaskCandidates:
        """Three masks of each prompt, or one: if the single one is not stable, the best of the three."""
        features, *skips = image.features
        encoder, grid = self.network.sam_prompt_encoder, (features.shape[-2], features.shape[-1])
        points, labels = _with_corners(prompts.scaled_to(image))
        tokens = encoder.tokens(image.inner, points=points, labels=labels)
        masks = prompts.masks
        if masks is not None:
            masks = masks.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).to(features.dtype)
        present = None
        if labels is not None and bool((labels == ABSENT).any()):
            present = torch.cat(
                [labels != ABSENT, labels.new_ones(len(labels), 1).bool()], dim=1
            )  # + padding
        candidates = self.network.sam_mask_decoder(
            features + encoder.maps(grid, masks=masks),
            encoder.positions(grid),
            (skips[0], skips[1]),
            tokens,
            present=present,
        )
        if multimask:
            return MaskCandidates(candidates.masks[:, 1:], candidates.quality[:, 1:])
        chosen = choose(candidates, multimask=False)
        return MaskCandidates(chosen.masks, chosen.quality)

    def at_image_size(self, image: EncodedImage, logits: Tensor) -> Tensor:
        """(P, M, h, w) to (P, M, H, W)."""
        return resize_masks(logits, image.size)


def _with_corners(prompts: PromptRows) -> tuple[Tensor | None, Tensor | None]:
    """Points and labels with the corners of boxes in front of them."""
    points, labels = prompts.points, prompts.labels
    if prompts.boxes is None:
        return points, labels
    corners, kinds = boxes_as_points(prompts.boxes)
    if points is None or labels is None:
        return corners, kinds
    return torch.cat([corners, points], dim=1), torch.cat([kinds, labels.to(kinds)], dim=1)


def sam2_prompter(network: SAM2, *, image_size: int = 1024, chunk_size: int = 64) -> ImagePrompter:
    """A prompter of images.

    Args:
        network: in evaluation mode, on any device.
        image_size: see `SAM2Images`.
        chunk_size: see `ImagePrompter`.
    """
    return ImagePrompter(SAM2Images(network, image_size=image_size), chunk_size=chunk_size)
