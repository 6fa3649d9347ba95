"""What of a frame is wanted, known before it is decoded: then no pixel is decoded or resized in vain."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from vosssl.data.io import rgb_planes
from vosssl.ops.resize import Size, resize_image, resize_labels

Reduction = Literal[1, 2, 4, 8]


class Window(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


class View(NamedTuple):
    """A window of a frame, at a size.

    Attributes:
        window: in pixels of the frame as it is stored.
        size: (H, W) that the window is resized to, antialiased.
        mirrored: left to right.
    """

    window: Window
    size: Size
    mirrored: bool = False

    @property
    def unscaled(self) -> bool:
        """Whether its pixels are pixels of the frame."""
        return self.size == (self.window.height, self.window.width)

    def crop(self, top: int, left: int, size: Size) -> View:
        """A window of what is seen so far, which must be unscaled."""
        assert self.unscaled
        right = self.window.width - left - size[1]
        window = Window(self.window.top + top, self.window.left + (right if self.mirrored else left), *size)
        return View(window, size, self.mirrored)

    def aligned(self, reduction: Reduction, native: Size) -> View:
        """The same with a window whose borders lie on whole pixels of a reduced frame.

        They move by at most half a pixel of the reduced frame, which is no larger than one of the result.
        Labels are seen through the aligned window as well, so that they stay where their frame is.
        """
        if reduction == 1:
            return self
        top, left, height, width = self.window
        ends = (
            min(native[0], _multiple(top + height, reduction)),
            min(native[1], _multiple(left + width, reduction)),
        )
        if top + height == native[0]:
            ends = native[0], ends[1]
        if left + width == native[1]:
            ends = ends[0], native[1]
        top, left = _multiple(top, reduction), _multiple(left, reduction)
        return self._replace(window=Window(top, left, ends[0] - top, ends[1] - left))


def whole(native: Size, size: Size | None = None) -> View:
    """The view of a whole frame, at a size."""
    return View(Window(0, 0, *native), native if size is None else size)


def reduction(view: View) -> Reduction:
    """The strongest reduction while decoding that leaves at least the wanted pixels."""
    factors: tuple[Reduction, ...] = (8, 4, 2)
    for factor in factors:
        if view.window.height // factor >= view.size[0] and view.window.width // factor >= view.size[1]:
            return factor
    return 1


def seen_pixels(pixels: Tensor, view: View, *, reduced: Reduction = 1) -> Tensor:
    """What a view shows of a decoded frame.

    Args:
        pixels: (H, W, 3) uint8 in OpenCV's BGR; this layout is resized twice as fast as planes.
        view: what is wanted of the frame.
        reduced: the frame was decoded at 1 / reduced of its size; the view has to be aligned to that.

    Returns:
        (3, h, w) uint8 RGB in memory of its own.
    """
    top, left, height, width = view.window
    rows = slice(top // reduced, -(-(top + height) // reduced))
    columns = slice(left // reduced, -(-(left + width) // reduced))
    image = resize_image(pixels[rows, columns].permute(2, 0, 1), view.size)  # (3, h, w)
    if image.stride(-1) == 1:  # torch gives planes, BGR, where a part of the columns was resized
        return image.flip((0, -1) if view.mirrored else 0)
    planes = rgb_planes(image.permute(1, 2, 0))
    return planes.flip(-1) if view.mirrored else planes


def seen_image(image: Tensor, view: View) -> Tensor:
    """What a view shows of an image (3, H, W) of any layout; (3, h, w), perhaps a view of its memory."""
    top, left, height, width = view.window
    image = resize_image(image[:, top : top + height, left : left + width], view.size)
    return image.flip(-1) if view.mirrored else image


def seen_labels(labels: Tensor, view: View) -> Tensor:
    """What a view shows of labels (H, W), by the nearest pixel; (h, w)."""
    top, left, height, width = view.window
    labels = resize_labels(labels[top : top + height, left : left + width], view.size)
    return labels.flip(-1) if view.mirrored else labels


def seen_flow(flow: Tensor, view: View) -> Tensor:
    """What a view shows of flow (T, 2, H, W), by the nearest pixel; (T, 2, h, w) in pixels of the result."""
    top, left, height, width = view.window
    flow = resize_labels(flow[..., top : top + height, left : left + width], view.size)
    scale = flow.new_tensor([view.size[1] / width, view.size[0] / height])
    if view.mirrored:
        flow, scale = flow.flip(-1), scale * flow.new_tensor([-1.0, 1.0])
    return flow * scale[:, None, None]


def _multiple(value: int, of: int) -> int:
    return (value + of // 2) // of * of
