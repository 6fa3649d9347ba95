"""MobileSAM as graphs: `embed` an image, `decode` prompts, for `ImagePrompter` and `MaskGenerator`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vosssl.layers.prompt_encoder import ABSENT, PADDING, boxes_as_points
from vosssl.ops.images import as_float
from vosssl.ops.resize import Size, resize_masks, resize_to_longest
from vosssl.propagation.graph_folder import PLANE, Example, Export, ExportedNetwork, Graph, random_frames
from vosssl.propagation.image_prompting import EncodedImage, MaskCandidates, PromptRows


def prompt_export(network: nn.Module, prompter: Any, examples: Sequence[Example]) -> Export:
    """Graphs of MobileSAM.

    Args:
        network: in evaluation mode.
        prompter: its `ImagePrompter`.
        examples: sizes of images, brought to the network's, and numbers of prompts.

    Returns:
        `embed`: image (1, 3, H, W) in [0, 1], no side longer than the network's, to embedding (1, C, h, w).
        `decode`: embedding, points (P, N, 2) in pixels of the network's input, labels (P, N) int64, which
        also say corners of boxes (2, 3), padding (-1) and points that do not exist (-2), masks (P, 1, 4h,
        4w) and given (P,) bool, to logits (P, 4, 4h, 4w) and quality (P, 4): mask 0 is the single one.
    """
    sam: Any = network
    images = [
        {"image": resize_to_longest(frame[0], sam.image_size)[None]} for frame in random_frames(examples)
    ]
    with torch.no_grad():
        embedding = sam.embed(images[0]["image"])
    decoding = [
        _prompts(sam, embedding, example.objects, 2 + index) for index, example in enumerate(examples)
    ]
    prompts = {0: "prompts"}
    points = {**prompts, 1: "points"}
    free = {"points": points, "labels": points, "masks": prompts, "given": prompts}
    node = {
        "_target_": "vosssl.methods.exported.prompts.ExportedPrompts",
        "image_size": int(sam.image_size),
        "mask_prompt_size": list(sam.mask_prompt_size),
    }
    return Export(
        [
            Graph("embed", network, _embed, images, ("embedding",), {"image": PLANE}),
            Graph("decode", network, _decode, decoding, ("logits", "quality"), free),
        ],
        node,
        f"image: RGB in [0, 1], longer side {sam.image_size} pixels; the graph normalises and pads",
    )


def _prompts(network: Any, embedding: Tensor, count: int, points: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(points)
    labels = torch.randint(0, 4, (count, points), generator=generator)
    labels[0, -1] = ABSENT
    return {
        "embedding": embedding,
        "points": network.image_size * torch.rand(count, points, 2, generator=generator),
        "labels": labels,
        "masks": torch.randn(count, 1, *network.mask_prompt_size, generator=generator),
        "given": torch.arange(count) % 2 == 1,
    }


def _embed(network: Any, image: Tensor) -> Tensor:
    return network.embed(image)


def _decode(
    network: Any, embedding: Tensor, points: Tensor, labels: Tensor, masks: Tensor, given: Tensor
) -> tuple[Tensor, Tensor]:
    encoder, side = network.prompt_encoder, network.image_size
    tokens = encoder.tokens((side, side), points=points, labels=labels)[:, :-1]  # padding comes in labels
    size = (embedding.shape[-2], embedding.shape[-1])
    places = embedding + encoder.maps(size, masks=masks, given=given)
    shared: dict[str, Any] = {"present": labels != ABSENT}
    several = network.mask_decoder(places, encoder.positions(size), tokens, multimask=True, **shared)
    single = network.mask_decoder(places, encoder.positions(size), tokens, multimask=False, **shared)
    logits, quality = (torch.cat(parts, dim=1) for parts in zip(single, several, strict=True))
    return logits, quality


class ExportedPrompts(ExportedNetwork):
    """A `PromptableNetwork` of graphs.

    Args:
        image_size: side of the network's input.
        mask_prompt_size: (h, w) of masks.
    """

    def __init__(self, *, image_size: int, mask_prompt_size: Sequence[int]) -> None:
        super().__init__()
        self.image_size = image_size
        self.mask_prompt_size: Size = (int(mask_prompt_size[0]), int(mask_prompt_size[1]))

    def encode_image(self, image: Tensor) -> EncodedImage:
        """(3, H, W) RGB, uint8 or float in [0, 1], its longer side resized to `image_size`."""
        resized = resize_to_longest(image, self.image_size)
        embedding = self.graphs("embed", image=as_float(resized)[None].to(self.anchor.device))[0]
        return EncodedImage(
            (embedding,), (image.shape[-2], image.shape[-1]), (resized.shape[-2], resized.shape[-1])
        )

    def decode_prompts(self, image: EncodedImage, prompts: PromptRows, *, multimask: bool) -> MaskCandidates:
        """Answers prompts in pixels of the image."""
        scaled = prompts.scaled_to(image)
        count = next(len(value) for value in scaled if value is not None)
        masks, given = scaled.masks, torch.ones(count, dtype=torch.bool)
        if masks is None:
            masks, given = torch.zeros(count, 1, *self.mask_prompt_size), ~given
        points, labels = _points(scaled, count)
        logits, quality = self.graphs(
            "decode", embedding=image.features[0], points=points, labels=labels, masks=masks, given=given
        )
        wanted = slice(1, None) if multimask else slice(0, 1)
        return MaskCandidates(logits[:, wanted], quality[:, wanted])

    def at_image_size(self, image: EncodedImage, logits: Tensor) -> Tensor:
        """(P, M, 4h, 4w) to (P, M, H, W): enlarged to the network's input, cut to the image, resized."""
        square = resize_masks(logits, (self.image_size, self.image_size))
        return resize_masks(square[..., : image.inner[0], : image.inner[1]], image.size)


def _points(prompts: PromptRows, count: int) -> tuple[Tensor, Tensor]:
    """Points (P, N, 2) and labels (P, N) of clicks, padding where there is no box, corners."""
    points, labels = [], []
    if prompts.points is not None and prompts.labels is not None:
        points.append(prompts.points)
        labels.append(prompts.labels.long())
        if prompts.boxes is None:
            points.append(prompts.points.new_zeros(count, 1, 2))
            labels.append(torch.full((count, 1), PADDING, device=prompts.points.device))
    if prompts.boxes is not None:
        corners, kinds = boxes_as_points(prompts.boxes)
        points.append(corners)
        labels.append(kinds.long())
    if not points:  # a mask alone
        return torch.zeros(count, 1, 2), torch.full((count, 1), ABSENT)
    return torch.cat(points, dim=1), torch.cat(labels, dim=1)
