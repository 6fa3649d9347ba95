"""Masks of one image from prompts: encode the image once, then ask as often as one likes.

A network takes part by the three functions of `PromptableNetwork`; it knows how an image is fitted into its
input, everything else (pixels, ids of prompts, batches, what is wrong with a prompt) is here, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vosssl.layers.prompt_encoder import ABSENT, NEGATIVE, POSITIVE
from vosssl.ops.images import require_rgb
from vosssl.ops.resize import Size
from vosssl.propagation.segmenter import Box, Clicks

ENLARGED_AT_ONCE = 16  # prompts whose masks are brought to the image's size together: bounds the memory


class EncodedImage(NamedTuple):
    """What a network keeps of an image.

    Attributes:
        features: (1, C, h, w) each, whatever its decoder reads.
        size: (H, W) of the image.
        inner: (H, W) of the part of the network's input that the image fills, from the upper left corner.
    """

    features: tuple[Tensor, ...]
    size: Size
    inner: Size


class PromptRows(NamedTuple):
    """P prompts of one kind, as tensors; coordinates are x and y, a pixel's centre is an integer.

    Attributes:
        points: (P, N, 2) float, or None.
        labels: (P, N) int32 with the points: 1 on the object, 0 off it, -2 for no point (rows of several
            lengths).
        boxes: (P, 4) float left, top, right, bottom, or None.
        masks: (P, 1, h, w) logits of an earlier answer, or None.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def scaled_to(self, image: EncodedImage) -> PromptRows:
        """The same prompts in pixels of the network's input."""
        height, width = (inner / size for inner, size in zip(image.inner, image.size, strict=True))
        points = None if self.points is None else self.points * self.points.new_tensor([width, height])
        boxes = None if self.boxes is None else self.boxes * self.boxes.new_tensor([width, height] * 2)
        return self._replace(points=points, boxes=boxes)

    def part(self, rows: slice) -> PromptRows:
        """Some of the prompts."""
        return PromptRows(*(None if value is None else value[rows] for value in self))


class MaskCandidates(NamedTuple):
    """A network's answer to P prompts.

    Attributes:
        logits: (P, M, h, w) of masks at the decoder's resolution, object above 0.
        iou: (P, M), how well the network thinks each mask fits.
    """

    logits: Tensor
    iou: Tensor


class PromptableNetwork(Protocol):
    """A network that can be asked about an image: MobileSAM, SAM 2.

    Its answers can come back as mask prompts; where they have to be clamped for that, the network does it.
    """

    @property
    def mask_prompt_size(self) -> Size:
        """(h, w) of the logits that serve as mask prompts."""

    def encode_image(self, image: Tensor) -> EncodedImage:
        """(3, H, W) RGB, uint8 or float in [0, 1], any size, on the network's device."""

    def decode_prompts(self, image: EncodedImage, prompts: PromptRows, *, multimask: bool) -> MaskCandidates:
        """Answers prompts given in pixels of the image; `multimask`: several masks for each, else one."""

    def at_image_size(self, image: EncodedImage, logits: Tensor) -> Tensor:
        """(P, M, h, w) of `decode_prompts` to (P, M, H, W)."""


@dataclass(frozen=True)
class ImagePrompt:
    """What is known of one object in an image; at least one of the three.

    Attributes:
        clicks: on and off the object.
        box: around it.
        mask: (h, w) float logits: `PromptedMasks.low_res` of an earlier answer.
    """

    clicks: Clicks | None = None
    box: Box | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.clicks is None and self.box is None and self.mask is None:
            raise ValueError("the prompt is empty; give clicks, a box or a mask")


class PromptedMasks(NamedTuple):
    """Masks of P prompts, M for each.

    Attributes:
        logits: (P, M, H, W) at the image's size, object above 0.
        iou: (P, M), the network's own estimate of each mask's quality.
        low_res: (P, M, h, w) logits; one of them is the mask prompt of a further question.
    """

    logits: Tensor
    iou: Tensor
    low_res: Tensor

    @property
    def masks(self) -> Tensor:
        """(P, M, H, W) bool."""
        return self.logits > 0

    def best(self) -> PromptedMasks:
        """The mask of each prompt that the network trusts most: M becomes 1."""
        rows, columns = torch.arange(len(self.iou), device=self.iou.device), self.iou.argmax(dim=1)
        return PromptedMasks(*(values[rows, columns].unsqueeze(1) for values in self))


AnyPrompt = ImagePrompt | Clicks | Box


class ImagePrompter:
    """Set an image once, then ask for masks.

        prompter = ImagePrompter(vosssl.create_model("mobile-sam", weights="mobile-sam"))
        prompter.set_image(image)
        clicks = Clicks(torch.tensor([[120.5, 80.5]]), torch.tensor([True]))
        best = prompter.predict(clicks).best()
        labels = best.masks[0, 0].byte()  # a first frame's prompt of any segmenter
        better = prompter.predict(ImagePrompt(clicks=more, mask=best.low_res[0, 0]), multimask=False)

    Args:
        network: in evaluation mode, on any device.
        chunk_size: prompts that are decoded at once.
    """

    def __init__(self, network: PromptableNetwork, *, chunk_size: int = 64) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}, expected at least 1")
        self.network = network
        self.chunk_size = chunk_size
        self._image: EncodedImage | None = None

    @property
    def image(self) -> EncodedImage:
        """The image that was set, encoded."""
        if self._image is None:
            raise RuntimeError("no image was set; call set_image first")
        return self._image

    def reset(self) -> None:
        """Forgets the image."""
        self._image = None

    @torch.inference_mode()
    def set_image(self, image: Tensor) -> None:
        """Encodes an image; all that follows is about it.

        Args:
            image: (3, H, W) RGB, uint8 or float in [0, 1].

        Raises:
            ValueError: another shape, type or range. The image before stays set.
        """
        require_rgb(image, "image")
        self._image = self.network.encode_image(image)

    @torch.inference_mode()
    def predict(self, prompts: AnyPrompt | Sequence[AnyPrompt], *, multimask: bool = True) -> PromptedMasks:
        """Masks of prompts, each on its own.

        Args:
            prompts: one or several, of any mixture of kinds, in pixels of the image.
            multimask: several masks for each prompt, for prompts that can mean a thing or a part of it, such
                as one click; otherwise one mask for each.

        Returns:
            The masks in the order of the prompts.

        Raises:
            ValueError: no prompt; a point outside the image, a box beside it; a mask prompt of another shape.
            RuntimeError: no image was set.
        """
        image = self.image
        given = [prompts] if isinstance(prompts, ImagePrompt | Clicks | Box) else list(prompts)
        if not given:
            raise ValueError("there is no prompt; give clicks, a box or a mask for at least one object")
        wanted = [as_prompt(prompt) for prompt in given]
        for index, prompt in enumerate(wanted):
            self._check(prompt, index, image.size)
        kinds: dict[tuple[bool, ...], list[int]] = {}
        for index, prompt in enumerate(wanted):
            kind = (prompt.clicks is None, prompt.box is None, prompt.mask is None)
            kinds.setdefault(kind, []).append(index)
        answers = [
            self.decode(self._rows([wanted[index] for index in members]), multimask=multimask)
            for members in kinds.values()
        ]
        order = torch.tensor([index for members in kinds.values() for index in members]).argsort()
        low_res, iou = (
            torch.cat(values)[order.to(values[0].device)] for values in zip(*answers, strict=True)
        )
        logits = [self.network.at_image_size(image, part) for part in low_res.split(ENLARGED_AT_ONCE)]
        return PromptedMasks(torch.cat(logits), iou, low_res)

    @torch.inference_mode()
    def decode(self, rows: PromptRows, *, multimask: bool) -> MaskCandidates:
        """`predict` without checks and without the image's size: for many prompts of which few are kept.

        Args:
            rows: the prompts, on the network's device.
            multimask: see `predict`.

        Returns:
            Masks at the decoder's resolution, float32 whatever the network computes in.
        """
        count = next(len(values) for values in rows if values is not None)
        parts = [
            self.network.decode_prompts(
                self.image, rows.part(slice(start, start + self.chunk_size)), multimask=multimask
            )
            for start in range(0, count, self.chunk_size)
        ]
        return MaskCandidates(*(torch.cat(values).float() for values in zip(*parts, strict=True)))

    def _rows(self, prompts: Sequence[ImagePrompt]) -> PromptRows:
        """Prompts of one kind as tensors."""
        device = self.image.features[0].device
        points = labels = boxes = masks = None
        clicks = [prompt.clicks for prompt in prompts if prompt.clicks is not None]
        if clicks:
            points = torch.nn.utils.rnn.pad_sequence(
                [click.points.float().to(device) - 0.5 for click in clicks], batch_first=True
            )  # P of (n, 2) -> (P, N, 2)
            labels = torch.nn.utils.rnn.pad_sequence(
                [torch.where(click.positive.to(device).bool(), POSITIVE, NEGATIVE) for click in clicks],
                batch_first=True,
                padding_value=ABSENT,
            ).int()
        sides = [prompt.box for prompt in prompts if prompt.box is not None]
        if sides:
            corners = [[box.left, box.top, box.right, box.bottom] for box in sides]
            boxes = torch.tensor(corners, dtype=torch.float32, device=device)
        logits = [prompt.mask for prompt in prompts if prompt.mask is not None]
        if logits:
            masks = torch.stack(logits).float().unsqueeze(1).to(device)  # P of (h, w) -> (P, 1, h, w)
        return PromptRows(points, labels, boxes, masks)

    def _check(self, prompt: ImagePrompt, index: int, size: Size) -> None:
        height, width = size
        if prompt.clicks is not None:
            for x, y in prompt.clicks.points.tolist():
                if not (0 <= x <= width and 0 <= y <= height):  # NaN is neither
                    raise ValueError(
                        f"prompt {index} has a point at x {x:g}, y {y:g}, outside the image of {width} x "
                        f"{height}; points are x and y in pixels of the image"
                    )
        box = prompt.box
        if box is not None and not (
            box.left < width and box.top < height and box.right > 0 and box.bottom > 0
        ):
            raise ValueError(
                f"prompt {index} has {box}, which lies outside the image of {width} x {height}; sides are in "
                "pixels of the image"
            )
        mask, expected = prompt.mask, self.network.mask_prompt_size
        if mask is not None and (tuple(mask.shape) != expected or not mask.is_floating_point()):
            raise ValueError(
                f"prompt {index} has a mask of {tuple(mask.shape)} {mask.dtype}, expected float logits "
                f"{expected}: `low_res` of an earlier answer"
            )


def as_prompt(prompt: AnyPrompt) -> ImagePrompt:
    """Clicks alone or a box alone as a prompt."""
    if isinstance(prompt, Clicks):
        return ImagePrompt(clicks=prompt)
    if isinstance(prompt, Box):
        return ImagePrompt(box=prompt)
    if not isinstance(prompt, ImagePrompt):
        raise ValueError(f"a prompt is {type(prompt).__name__}, expected ImagePrompt, Clicks or Box")
    return prompt
