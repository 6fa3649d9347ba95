"""A video of plain moving squares, a network that answers clicks on it, and a segmenter that follows it."""

from __future__ import annotations

import torch
from torch import Tensor

from vosssl.clip import Clip
from vosssl.data.video import Video, clip_video
from vosssl.ops.resize import resize_masks
from vosssl.propagation.image_prompting import EncodedImage, MaskCandidates, PromptRows
from vosssl.propagation.segmenter import Prompted, VideoSegmenter

HEIGHT, WIDTH, SIDE = 32, 48, 10
COLOURS = ((0, 0, 0), (250, 30, 30), (30, 30, 250), (30, 250, 30))


def square_labels(frame: int, *, objects: int = 2) -> Tensor:
    """(H, W) uint8: squares SIDE pixels wide that move one pixel to the right a frame, then jump back."""
    labels = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    for k in range(objects):
        top, left = 2 + 15 * k, (3 + 4 * k + frame) % (WIDTH - SIDE)
        labels[top : top + SIDE, left : left + SIDE] = k + 1
    return labels


def squares(*, frames: int = 8, objects: int = 2) -> Video:
    """The video of these labels, each square in a colour of its own."""
    labels = torch.stack([square_labels(index, objects=objects) for index in range(frames)])
    images = torch.tensor(COLOURS, dtype=torch.uint8)[labels.long()].permute(0, 3, 1, 2).contiguous()
    return clip_video(Clip("squares", images))


class ColourNetwork:
    """Answers clicks with all pixels of the clicked colours, boxes with all that is not black in them.

    Attributes:
        encoded: how many images were encoded.
        asked: the prompts of the last question.
    """

    mask_prompt_size = (16, 16)

    def __init__(self) -> None:
        self.encoded = 0
        self.asked = PromptRows()

    def encode_image(self, image: Tensor) -> EncodedImage:
        self.encoded += 1
        height, width = image.shape[-2:]
        return EncodedImage((image[None].float(),), (height, width), (round(64 * height / width), 64))

    def decode_prompts(self, image: EncodedImage, prompts: PromptRows, *, multimask: bool) -> MaskCandidates:
        self.asked = prompts
        (pixels,) = image.features[0]
        inside = torch.zeros(image.size, dtype=torch.bool)
        if prompts.boxes is not None:
            left, top, right, bottom = prompts.boxes[0].round().int().tolist()
            inside[top:bottom, left:right] = pixels[:, top:bottom, left:right].sum(0) > 0
        if prompts.points is not None and prompts.labels is not None:
            for (x, y), label in zip(prompts.points[0].tolist(), prompts.labels[0].tolist(), strict=True):
                colour = pixels[:, round(y), round(x), None, None]
                same = (pixels == colour).all(dim=0) & (pixels.sum(0) > 0)
                inside = inside | same if label == 1 else inside & ~same
        logits = torch.where(inside, 8.0, -8.0)[None, None]
        self.whole = logits
        return MaskCandidates(resize_masks(logits, self.mask_prompt_size), torch.full((1, 1), 0.9))

    def at_image_size(self, image: EncodedImage, logits: Tensor) -> Tensor:
        return self.whole


class ColourSegmenter(VideoSegmenter):
    """Follows colours that objects had in prompts; remembers nothing else.

    Attributes:
        prompts: ids of every prompt, in order; None for frames without.
        fails_at: raise at this step, once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[tuple[int, ...] | None] = []
        self.fails_at: int | None = None
        self.forget()

    def forget(self) -> None:
        self.colours: dict[int, Tensor] = {}

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        self.prompts.append(None if prompted is None else prompted.ids)
        if self.fails_at == len(self.prompts):
            self.fails_at = None
            raise MemoryError("no memory left")
        if prompted is not None:
            assert prompted.masks is not None
            for identity, mask in zip(prompted.ids, prompted.masks, strict=True):
                if bool(mask.any()):
                    self.colours[identity] = frame[:, mask > 0].median(dim=1).values[:, None, None]
                else:
                    self.colours.pop(identity, None)
        rows = torch.zeros(len(self.object_ids) + 1, *frame.shape[1:])
        for row, identity in enumerate(self.object_ids, start=1):
            if identity in self.colours:
                near = (frame - self.colours[identity]).abs().amax(dim=0) < 0.1
                rows[row] = near * 0.8
        rows[0] = 1 - rows[1:].sum(dim=0)
        return rows
