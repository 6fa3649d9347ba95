"""Objects pointed out in given frames of a video, by clicks, boxes or masks, while it streams by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vosssl.clip import VOID, Frame
from vosssl.propagation.image_prompting import ImagePrompter
from vosssl.propagation.mask_drafts import Drafter
from vosssl.propagation.segmenter import Box, VideoSegmenter
from vosssl.propagation.tracking_steps import show


@dataclass(frozen=True)
class ObjectPrompt:
    """What is said of one object in one frame.

    Attributes:
        identity: the object's id, 1 to 254.
        frame: its number, 0 for the first.
        points: x, y in pixels of the frame, and whether the point lies on the object.
        box: around it.
        mask: (H, W) bool, instead of both.

    Raises:
        ValueError: nothing is said, or a mask beside other things; an id or frame that cannot be.
    """

    identity: int = 1
    frame: int = 0
    points: tuple[tuple[float, float, bool], ...] = ()
    box: Box | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        where = f"the prompt of object {self.identity} in frame {self.frame}"
        if not 0 < self.identity < VOID or self.frame < 0:
            raise ValueError(f"{where}: expected an object of 1..{VOID - 1} and a frame of 0 or more")
        if not self.points and self.box is None and self.mask is None:
            raise ValueError(f"{where} says nothing; give points, a box or a mask")
        if self.mask is not None and (self.points or self.box is not None):
            raise ValueError(f"{where} has a mask and points or a box; give the mask alone")


class ObjectPrompts:
    """Hands prompts to a segmenter in the frames that they are about; clicks on an object that is followed
    correct what was tracked.

    Args:
        prompts: in any order.
        prompter: turns clicks and boxes into masks; None: there are only masks.

    Attributes:
        waiting: no prompt was given yet.
        frame: number of the next frame.

    Raises:
        ValueError: no prompt, or two of one object in one frame.
    """

    def __init__(self, prompts: Sequence[ObjectPrompt], prompter: ImagePrompter | None = None) -> None:
        if not prompts:
            raise ValueError("there is no prompt; give points, a box or a mask of at least one object")
        self._prompts: dict[int, dict[int, ObjectPrompt]] = {}
        for prompt in prompts:
            here = self._prompts.setdefault(prompt.frame, {})
            if prompt.identity in here:
                raise ValueError(
                    f"object {prompt.identity} has two prompts in frame {prompt.frame}; make one of them"
                )
            here[prompt.identity] = prompt
        self._drafter = Drafter(prompter)
        self.waiting = True
        self.frame = 0

    @property
    def left(self) -> tuple[int, ...]:
        """Frames with prompts that have not come yet."""
        return tuple(frame for frame in sorted(self._prompts) if frame >= self.frame)

    def step(self, segmenter: VideoSegmenter, frame: Frame) -> Tensor:
        """(H, W) uint8 ids of the next frame: background until the first prompt, then the segmenter's.

        Raises:
            ValueError: a prompt outside the frame, or one whose mask is empty.
        """
        here = self._prompts.get(self.frame, {})
        if self.waiting and not here:
            self.frame += 1
            return torch.zeros(frame.image.shape[-2:], dtype=torch.uint8)
        followed = any(prompt.points and key in segmenter.object_ids for key, prompt in here.items())
        tracked = segmenter.step(frame.image) if followed else torch.zeros(frame.image.shape[-2:])
        masks: dict[int, Tensor] = {}
        for identity, prompt in here.items():
            mask = self._mask(prompt, frame.image, tracked == identity)
            masks = {key: other & ~mask for key, other in masks.items()} | {identity: mask}
        labels = show(segmenter, frame.image, masks)
        self.waiting = False
        self.frame += 1
        return labels

    def _mask(self, prompt: ObjectPrompt, image: Tensor, tracked: Tensor) -> Tensor:
        draft = self._drafter.tracked(prompt.frame, prompt.identity, tracked.cpu())
        if prompt.mask is not None:
            draft = self._drafter.given(draft, prompt.mask)
        else:
            draft = self._drafter.ask(draft, image, points=prompt.points, box=prompt.box)
        if not bool(draft.mask.any()):
            raise ValueError(
                f"the mask of object {prompt.identity} in frame {prompt.frame} is empty: no object was found "
                "there; move the points, or give a box or a mask"
            )
        return draft.mask
