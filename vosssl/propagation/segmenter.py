"""VideoSegmenter: one video, one frame at a time, the same words for every method.

A method implements `segment` on frames of its own size. Everything a caller sees (ids, uint8 or float frames,
any image size, padding, the arg-max) is the border, and the border is written here once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vosssl.clip import VOID
from vosssl.ops.images import as_float, require_rgb
from vosssl.ops.masks import labels_to_masks, masks_to_labels, object_ids
from vosssl.ops.resize import (
    Padding,
    Size,
    pad,
    padding_to,
    resize_image,
    resize_labels,
    resize_masks,
    shorter_side,
    unpad,
)

PromptKind = Literal["masks", "clicks", "boxes"]


@dataclass(frozen=True)
class Clicks:
    """Points that lie on an object, or beside it.

    Attributes:
        points: (P, 2) float, x and y in pixels of the frame, pixel centres at half-integers.
        positive: (P,) bool, True on the object, False off it.
    """

    points: Tensor
    positive: Tensor

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 2 or len(self.points) == 0:
            raise ValueError(f"clicks are {tuple(self.points.shape)}, expected (P, 2): x and y per click")
        if tuple(self.positive.shape) != (len(self.points),):
            raise ValueError(
                f"positive is {tuple(self.positive.shape)}, expected ({len(self.points)},): one per click"
            )


@dataclass(frozen=True)
class Box:
    """A box around an object: pixels of the frame, left < right, top < bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if self.left >= self.right or self.top >= self.bottom:
            raise ValueError(f"{self} is empty; expected left < right and top < bottom")


Prompt = Tensor | Mapping[int, Clicks | Box | Tensor]


@dataclass(frozen=True)
class Prompted:
    """What was said about the objects in one frame, at the size of the network.

    Attributes:
        ids: all ids that the prompt names, in rising order.
        labels: (h, w) uint8 when the prompt was masks, or None. 0 background, 255 void or padding.
        masks: (n, h, w), one per id, when the prompt was masks, or None: bool of a label map, float in
            [0, 1] of soft masks.
        native: (H, W) uint8, the label map at the frame's own size, without padding; of soft masks,
            the strongest above 0.5.
        unknown: (h, w) bool, void pixels of a label map (not the padding); None where there are none.
        clicks: by id, in pixels of the network's frame.
        boxes: by id, likewise.
    """

    ids: tuple[int, ...]
    labels: Tensor | None = None
    masks: Tensor | None = None
    native: Tensor | None = None
    unknown: Tensor | None = None
    clicks: dict[int, Clicks] = field(default_factory=dict)
    boxes: dict[int, Box] = field(default_factory=dict)


class VideoSegmenter(ABC):
    """Follows objects through a video, online.

    After `step`, `probabilities` is (N + 1, H, W) at the frame's size, background first, and `object_ids`
    names its other rows. A prompt may come at any frame and may bring new objects; rows keep the order of
    arrival. Until something is prompted, a method that does not discover objects says background everywhere.

    Args:
        size: None keeps the frame's size; an int is the largest shorter side (frames are never enlarged);
            (height, width) is exact.
        stride: frames are padded to a multiple of this many pixels.
        pad_colour: (R, G, B) in [0, 1] of the padding.
        device: where `segment` works.
    """

    prompt_kinds: ClassVar[tuple[PromptKind, ...]] = ("masks",)
    discovers: ClassVar[bool] = False
    needs_prompt: bool = False  # whether even discovery starts from the first frame's labels

    def __init__(
        self,
        *,
        size: int | Size | None = None,
        stride: int = 1,
        pad_colour: tuple[float, float, float] = (0.0, 0.0, 0.0),
        device: torch.device | str = "cpu",
    ) -> None:
        self.size = size if size is None or isinstance(size, int) else (int(size[0]), int(size[1]))
        self.stride = stride
        self.pad_colour = pad_colour
        self.device = torch.device(device)
        self.object_ids: tuple[int, ...] = ()
        self.frame_index = 0
        self._rows: Tensor | None = None
        self._frame_size: Size | None = None

    @abstractmethod
    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        """Segments the next frame; the only thing a method must write.

        `self.object_ids` already holds the prompted ids. A method that discovers objects sets
        `self.object_ids` itself.

        Args:
            frame: (3, h, w) float RGB in [0, 1], resized and padded, on `self.device`.
            prompted: what this frame's prompt says, or None.

        Returns:
            (N + 1, h', w') float: probability of the background, then of each of `self.object_ids`. At any
            resolution; (h', w') covers the padded frame.
        """

    def forget(self) -> None:  # noqa: B027  (not every method has a state)
        """Drops what the method remembers of the video; called by `reset`."""

    def reset(self) -> None:
        """Makes the segmenter ready for another video."""
        self.object_ids = ()
        self.frame_index = 0
        self._rows = self._frame_size = None
        self.forget()

    @property
    def probabilities(self) -> Tensor:
        """(N + 1, H, W) float of the last frame, background first, on `self.device`."""
        if self._rows is None:
            raise RuntimeError("no frame was segmented yet; call step first")
        return self._rows

    @torch.inference_mode()
    def step(self, frame: Tensor, prompt: Prompt | None = None) -> Tensor:
        """Segments the next frame of the video.

        Args:
            frame: (3, H, W) RGB, uint8 or float in [0, 1], any device.
            prompt: (H, W) label map; or by object id Clicks, a Box, or a soft mask (H, W) in [0, 1]; None
                to go on.

        Returns:
            (H, W) uint8 ids on the frame's device. Never 255.

        Raises:
            ValueError: a frame or prompt of the wrong shape, type, kind or range, one that names no object;
                a size that changes in mid-video. The video can go on with another frame then.
        """
        size = self._check_frame(frame)
        working = self._working_size(size)
        padding = padding_to(working, self.stride)
        prompted = None if prompt is None else self._read_prompt(prompt, size, working, padding)
        before = self.object_ids
        if prompted is not None:
            self.object_ids += tuple(identity for identity in prompted.ids if identity not in before)
        try:
            if self.object_ids or self.discovers:
                rows = self.segment(self._prepare(frame, working, padding), prompted)
                self._rows = self._to_frame(rows, size, working, padding)
            else:
                self._rows = torch.ones(1, *size, device=self.device)
        except Exception:
            self.object_ids = before
            raise
        self._frame_size = size
        self.frame_index += 1
        return masks_to_labels(self._rows, self.object_ids).to(frame.device)

    def _rows_without(self, ids: Sequence[int]) -> list[int]:
        """Places of the objects that stay when some are no longer followed.

        Raises:
            ValueError: an id that is not followed.
        """
        unknown = sorted(set(ids) - set(self.object_ids))
        if unknown:
            raise ValueError(f"objects {unknown} are not followed; there are {list(self.object_ids)}")
        return [row for row, identity in enumerate(self.object_ids) if identity not in ids]

    def _keep_rows(self, kept: Sequence[int]) -> None:
        """Leaves out all other objects, from the last frame's probabilities, too."""
        self._rows = None if self._rows is None else self._rows[[0, *(row + 1 for row in kept)]]
        self.object_ids = tuple(self.object_ids[row] for row in kept)

    def _check_frame(self, frame: Tensor) -> Size:
        require_rgb(frame, f"frame {self.frame_index}")
        size = (frame.shape[1], frame.shape[2])
        if self._frame_size is not None and size != self._frame_size:
            raise ValueError(
                f"frame {self.frame_index} is {size}, the video so far is {self._frame_size}; "
                "call reset() before another video"
            )
        return size

    def _working_size(self, size: Size) -> Size:
        if self.size is None:
            return size
        return shorter_side(size, self.size) if isinstance(self.size, int) else self.size

    def _prepare(self, frame: Tensor, working: Size, padding: Padding) -> Tensor:
        image = as_float(self._resized(frame.to(self.device), working))  # (3, H, W) -> (3, h, w)
        if not any(padding):
            return image
        colour = image.new_tensor(self.pad_colour)[:, None, None]
        return pad(image - colour, padding) + colour  # (3, h, w) -> (3, h + ..., w + ...)

    def _resized(self, frame: Tensor, working: Size) -> Tensor:
        return resize_image(as_float(frame), working)

    def _to_frame(self, rows: Tensor, size: Size, working: Size, padding: Padding) -> Tensor:
        if rows.ndim != 3 or rows.shape[0] != len(self.object_ids) + 1:
            raise ValueError(
                f"{type(self).__name__}.segment gave {tuple(rows.shape)}, expected "
                f"({len(self.object_ids) + 1}, h, w): background and one row per object id"
            )
        if any(padding):
            padded = (working[0] + padding.top + padding.bottom, working[1] + padding.left + padding.right)
            rows = unpad(resize_masks(rows.float(), padded), padding)
        return resize_masks(rows.float(), size)  # (N + 1, h, w) -> (N + 1, H, W)

    def _read_prompt(self, prompt: Prompt, size: Size, working: Size, padding: Padding) -> Prompted:
        if isinstance(prompt, Tensor):
            self._check_kind("masks")
            if tuple(prompt.shape) != size:
                raise ValueError(
                    f"prompt is {tuple(prompt.shape)}, expected {size} like the frame; pass ids, not one-hot"
                )
            if prompt.is_floating_point() or prompt.dtype == torch.bool:
                raise ValueError(
                    f"prompt is {prompt.dtype}, expected uint8 ids; a single mask is mask.byte()"
                )
            return self._place_labels(prompt, working, padding)
        if prompt and all(isinstance(mask, Tensor) for mask in prompt.values()):
            return self._place_masks(prompt, size, working, padding)  # type: ignore[arg-type]
        scale = (working[1] / size[1], working[0] / size[0])
        shift = (float(padding.left), float(padding.top))
        clicks = {k: self._place_clicks(v, scale, shift) for k, v in prompt.items() if isinstance(v, Clicks)}
        boxes = {k: self._place_box(v, scale, shift) for k, v in prompt.items() if isinstance(v, Box)}
        ids = tuple(sorted({*clicks, *boxes}))
        if not ids or len(ids) != len(prompt) or not all(0 < identity < VOID for identity in ids):
            raise ValueError(
                f"prompt is {prompt!r}, expected a label map, or for ids 1..254 Clicks and boxes, or masks"
            )
        return Prompted(ids, clicks=clicks, boxes=boxes)

    def _place_labels(self, prompt: Tensor, working: Size, padding: Padding) -> Prompted:
        low, high = (int(bound) for bound in prompt.aminmax())
        if low < 0 or high > VOID:
            raise ValueError(
                f"prompt holds ids from {low} to {high}, expected 0 (background), 1..254 (objects) and 255 "
                "(void); number the objects anew"
            )
        native = prompt.to(self.device).byte()
        ids = object_ids(native)
        if not ids:
            raise ValueError(
                "prompt names no object: every pixel is background (0) or void (255); pass prompt=None for a "
                "frame about which nothing is known"
            )
        inside = resize_labels(native, working)
        labels = pad(inside, padding, value=VOID)
        unknown = pad(inside == VOID, padding) if high == VOID else None
        masks = labels_to_masks(labels, ids)
        return Prompted(ids, labels=labels, masks=masks, native=native, unknown=unknown)

    def _place_masks(
        self, prompt: Mapping[int, Tensor], size: Size, working: Size, padding: Padding
    ) -> Prompted:
        self._check_kind("masks")
        for identity, mask in prompt.items():
            low, high = (float(bound) for bound in mask.float().aminmax())
            if tuple(mask.shape) != size or not (low >= 0 and high <= 1) or not 0 < identity < VOID:
                raise ValueError(
                    f"mask of object {identity} is {tuple(mask.shape)} with values from {low:g} to {high:g}, "
                    f"expected {size} like the frame, [0, 1], and an id of 1..254"
                )
        masks = torch.stack([mask.to(self.device).float() for mask in prompt.values()])  # (n, H, W)
        rows = torch.cat([torch.full_like(masks[:1], 0.5), masks])
        native = masks_to_labels(rows, tuple(prompt))
        labels = pad(resize_labels(native, working), padding, value=VOID)
        return Prompted(
            tuple(prompt), labels=labels, masks=pad(resize_masks(masks, working), padding), native=native
        )

    def _check_kind(self, kind: PromptKind) -> None:
        if kind not in self.prompt_kinds:
            taken = " or ".join(self.prompt_kinds) or "no prompt at all"
            raise ValueError(f"{type(self).__name__} takes {taken}, got {kind}")

    def _place_clicks(self, clicks: Clicks, scale: tuple[float, float], shift: tuple[float, float]) -> Clicks:
        self._check_kind("clicks")
        points = clicks.points.float() * torch.tensor(scale) + torch.tensor(shift)
        return Clicks(points.to(self.device), clicks.positive.to(self.device))

    def _place_box(self, box: Box, scale: tuple[float, float], shift: tuple[float, float]) -> Box:
        self._check_kind("boxes")
        (sx, sy), (dx, dy) = scale, shift
        return Box(box.left * sx + dx, box.top * sy + dy, box.right * sx + dx, box.bottom * sy + dy)
