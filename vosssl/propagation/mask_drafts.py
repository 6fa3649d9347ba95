"""Masks of single objects in single frames, as a person makes them: click by click, a box, or a mask.

A draft never changes; a further click gives another draft, so that the one before can be returned to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vosssl.ops.resize import Size, resize_image
from vosssl.propagation.image_prompting import EncodedImage, ImagePrompt, ImagePrompter
from vosssl.propagation.segmenter import Box, Clicks

SURE = 10.0  # logits of a given mask when it accompanies clicks; networks answer up to about twice that


@dataclass(frozen=True)
class Draft:
    """A mask that nobody has accepted yet.

    Attributes:
        frame: number of the frame.
        identity: of the object.
        mask: (H, W) bool.
        score: how well the network thinks that the mask fits, about 0 to 1; None where no network was asked.
        points: x, y and whether it lies on the object, of every click so far.
        box: around the object.
        given: whether the mask itself was given.
        logits: (h, w), the mask as a prompt of the next click; None where nothing is known yet.
    """

    frame: int
    identity: int
    mask: Tensor
    score: float | None = None
    points: tuple[tuple[float, float, bool], ...] = ()
    box: Box | None = None
    given: bool = False
    logits: Tensor | None = None

    @property
    def is_said(self) -> bool:
        """Whether anything was said about the object, unlike a draft that only shows what was tracked."""
        return bool(self.points) or self.box is not None or self.given


class Drafter:
    """Turns clicks and boxes into masks; a frame is encoded once, however many questions are about it.

    Args:
        prompter: answers; None: only whole masks can be given.
    """

    def __init__(self, prompter: ImagePrompter | None = None) -> None:
        self.prompter = prompter
        self._encoded: int | None = None

    def forget(self) -> None:
        """Makes the next question encode its frame, whichever it is about: another video."""
        self._encoded = None

    def tracked(self, frame: int, identity: int, mask: Tensor) -> Draft:
        """The draft that clicks correct: what is known of an object in a frame, (H, W) bool, may be empty."""
        return Draft(frame, identity, mask.bool())

    def ask(
        self,
        draft: Draft,
        image: Tensor,
        *,
        points: Sequence[tuple[float, float, bool]] = (),
        box: Box | None = None,
    ) -> Draft:
        """The draft after clicks, or a box, or both.

        Args:
            draft: so far; its clicks still count.
            image: (3, H, W), its frame.
            points: x and y in pixels of the frame, 0.5 in the middle of the first, and whether the point lies
                on the object.
            box: instead of the draft's box, cut to the frame; the draft's mask does not count any more.

        Raises:
            ValueError: a point or a box outside the frame, or there is no prompter.
        """
        height, width = image.shape[-2:]
        for x, y, _ in points:
            if not (0 <= x < width and 0 <= y < height):  # NaN is neither
                raise ValueError(
                    f"the point x {x:g}, y {y:g} lies outside the frame of {width} x {height} pixels"
                )
        if box is not None:
            if box.left >= width or box.top >= height or box.right <= 0 or box.bottom <= 0:
                raise ValueError(f"{box} lies outside the frame of {width} x {height} pixels")
            box = Box(max(box.left, 0), max(box.top, 0), min(box.right, width), min(box.bottom, height))
            draft = replace(draft, box=box, logits=None, mask=torch.zeros_like(draft.mask))
        said = tuple((float(x), float(y), bool(positive)) for x, y, positive in points)
        return self._asked(replace(draft, points=(*draft.points, *said)), image)

    def given(self, draft: Draft, mask: Tensor) -> Draft:
        """The draft that is this mask, whatever was said before.

        Raises:
            ValueError: a mask of another size, or not of 0 and 1.
        """
        if tuple(mask.shape) != tuple(draft.mask.shape):
            raise ValueError(
                f"the mask is {tuple(mask.shape)}, expected {tuple(draft.mask.shape)}, the frame's"
            )
        if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(
                "the mask has values beside 0 and 1; pass one object's mask, such as labels == 3"
            )
        return Draft(draft.frame, draft.identity, mask.bool().cpu(), given=True)

    def _asked(self, draft: Draft, image: Tensor) -> Draft:
        if self.prompter is None:
            raise ValueError(
                "clicks and boxes need a prompter, such as vosssl.create_prompter('mobile-sam'); masks do not"
            )
        if self._encoded != draft.frame:
            self._encoded = None
            self.prompter.set_image(image)
            self._encoded = draft.frame
        clicks = None
        if draft.points:
            points = torch.tensor([point[:2] for point in draft.points], dtype=torch.float32)
            clicks = Clicks(points, torch.tensor([point[2] for point in draft.points]))
        logits = draft.logits
        if logits is None and bool(draft.mask.any()):
            logits = mask_logits(draft.mask, self.prompter.image, self.prompter.network.mask_prompt_size)
        ambiguous = len(draft.points) == 1 and draft.box is None and logits is None
        prompt = ImagePrompt(clicks=clicks, box=draft.box, mask=logits)
        best = self.prompter.predict(prompt, multimask=ambiguous).best()
        return replace(
            draft, mask=best.masks[0, 0].cpu(), score=float(best.iou[0, 0]), logits=best.low_res[0, 0].clone()
        )


def mask_logits(mask: Tensor, image: EncodedImage, size: Size) -> Tensor:
    """A mask as the mask prompt of an image's network.

    Args:
        mask: (H, W) bool, of the image.
        image: as the network encoded it: its longer side fills the network's square.
        size: (h, w) of mask prompts.

    Returns:
        (h, w) float logits, negative where the image does not reach.
    """
    side = max(image.inner)
    inner = (round(size[0] * image.inner[0] / side), round(size[1] * image.inner[1] / side))
    soft = resize_image(mask.float()[None], inner)[0]
    logits = torch.full(size, -SURE)
    logits[: inner[0], : inner[1]] = (2 * soft - 1) * SURE
    return logits.to(image.features[0].device)
