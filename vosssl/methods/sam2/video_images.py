"""Frames of a stored video as SAM 2 sees them: read and encoded when they are needed, a few of them kept."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor

from vosssl.data.frame_reader import FrameReader
from vosssl.data.sources import Video
from vosssl.methods.sam2.network import SAM2, STRIDE, EncodedImage
from vosssl.ops.byte_resize import resize_bytes
from vosssl.ops.images import as_float, require_rgb
from vosssl.ops.resize import Size, resize_image

MB = 2**20
Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class VideoImages:
    """Encoded frames of a video.

    Args:
        network: in evaluation mode, on any device.
        video: (T, 3, H, W) RGB, uint8 or float in [0, 1]; or a `Video`.
        image_size: side of the square that frames are squashed to.
        kept: encoded frames that are kept; others are encoded again where they are needed.
        precision: of the network.

    Raises:
        ValueError: options out of range, a video without frames.
    """

    def __init__(
        self, network: SAM2, video: Tensor | Video, *, image_size: int, kept: int, precision: Precision
    ) -> None:
        multiple = network.image_encoder.trunk.stride
        if image_size < 1 or image_size % multiple:
            raise ValueError(f"image_size is {image_size}, expected a multiple of {multiple}")
        if kept < 1:
            raise ValueError(f"kept_images is {kept}, expected at least 1")
        if precision not in DTYPES:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(DTYPES)}")
        if len(video) == 0:
            raise ValueError("the video has no frames")
        self.network = network
        self.image_size = image_size
        self.kept = kept
        self.dtype = DTYPES[precision]
        self._frames = video if isinstance(video, Tensor) else FrameReader(video)
        self._images: OrderedDict[int, EncodedImage] = OrderedDict()

    def __len__(self) -> int:
        """Frames of the video."""
        return len(self._frames)

    @property
    def size(self) -> Size:
        """(H, W) of the video's frames."""
        frames = self._frames
        return (frames.shape[-2], frames.shape[-1]) if isinstance(frames, Tensor) else frames.video.size

    @property
    def device(self) -> torch.device:
        """Of the network."""
        return self.network.no_mem_embed.device

    @property
    def memory_mb(self) -> float:
        """Megabytes of the encoded frames that are kept."""
        tensors = [
            tensor
            for image in self._images.values()
            for tensor in (image.features, *image.skips, image.positions, image.prompt_positions)
        ]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MB

    @property
    def most_mb(self) -> float:
        """Megabytes of as many encoded frames as may be kept: features, skips, and positions in float32."""
        dim, places = self.network.no_mem_embed.shape[-1], (self.image_size // STRIDE) ** 2
        return self.kept * places * dim * ((1 + 2 + 1) * self.dtype.itemsize + 2 * 4) / MB

    def precision(self) -> AbstractContextManager[None]:
        """Inside, the network computes with the chosen precision."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def __getitem__(self, frame: int) -> EncodedImage:
        """A frame, encoded; the last few are kept."""
        if frame not in self._images:
            square = self._square(frame)[None]
            while len(self._images) >= self.kept:  # before the new one needs its place
                self._images.popitem(last=False)
            with self.precision():
                self._images[frame] = self.network.encode_image(square)
        self._images.move_to_end(frame)
        return self._images[frame]

    def _square(self, frame: int) -> Tensor:
        """(3, S, S) in [0, 1] on the network's device."""
        frames = self._frames
        image = frames[frame] if isinstance(frames, Tensor) else frames.read(frame).image
        require_rgb(image, f"frame {frame}")
        square = (self.image_size, self.image_size)
        image = resize_bytes(image, square, kind="bicubic") if image.dtype == torch.uint8 else image
        like = self.network.no_mem_embed
        return resize_image(as_float(image), square).to(device=like.device, dtype=like.dtype)
