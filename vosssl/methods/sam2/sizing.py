"""What SAM 2 needs in memory on stored videos, and settings that fit into what there is.

The numbers of bytes per pixel were fitted to peaks that `scripts/bench_sam2.py` measured on a CPU
(docs/sam2.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from vosssl.methods.sam2.network import SAM2
from vosssl.methods.sam2.video_images import DTYPES, MB, Precision
from vosssl.ops.resize import Size

SIZES = (1024, 768, 512, 384, 256)  # sides that are tried, the published one first
TRUNK = 4.3  # bytes per pixel of the square and channel of the trunk's first stage, in float32
MEMORY_ATTENTION = 230  # bytes per pixel for each object that is computed at the same time
WAITING = 16  # bytes per pixel for every other object of a pass
SLACK = 1.3  # what allocators take beyond tensors
PROGRAM_MB = 60.0  # of library code that the first frame loads


class Settings(NamedTuple):
    """Options of `SAM2Session` that fit, and what they were chosen for.

    Attributes:
        image_size, precision, kept_images, object_chunk, memory_budget_mb: as the session takes them.
        needed_mb: the estimated peak, weights included.
        given_mb: what there is.
    """

    image_size: int
    precision: Precision
    kept_images: int
    object_chunk: int | None
    memory_budget_mb: float
    needed_mb: float
    given_mb: float

    def __str__(self) -> str:
        """One line for a person."""
        objects = "all objects" if self.object_chunk is None else f"{self.object_chunk} objects"
        return (
            f"SAM 2 with {self.image_size} pixels in {self.precision}, {objects} at once, {self.kept_images} "
            f"encoded frames and {self.memory_budget_mb:.0f} MB for memories: about {self.needed_mb:.0f} of "
            f"{self.given_mb:.0f} MB"
        )

    def options(self) -> dict[str, int | float | str | None]:
        """For `SAM2Session(network, video, **settings.options())`."""
        return {name: getattr(self, name) for name in self._fields[:5]}


def peak_mb(
    network: SAM2,
    *,
    image_size: int,
    objects: int = 1,
    object_chunk: int | None = None,
    precision: Precision = "fp32",
    kept_images: int = 2,
    memory_budget_mb: float = 0.0,
    video_size: Size = (1080, 1920),
    together: bool = True,
) -> float:
    """The most memory that following objects takes, without the weights.

    Args:
        network: any SAM 2.
        image_size, object_chunk, precision, kept_images: as `SAM2Session` takes them.
        objects: that are followed.
        memory_budget_mb: how much of the budget will be used.
        video_size: (H, W) of the masks that come out.
        together: objects of a pass are computed at the same time, as on a GPU; on a CPU one by one.

    Returns:
        Megabytes.
    """
    pixels, share = image_size**2, DTYPES[precision].itemsize / 4
    passing = min(objects, object_chunk or objects)
    at_once = passing if together else 1
    trunk = pixels * network.image_encoder.trunk.widths[0] * TRUNK * share
    following = pixels * (at_once * MEMORY_ATTENTION * share + (passing - at_once) * WAITING)
    masks = 3 * objects * video_size[0] * video_size[1] * 4  # logits, and copies on the way
    images = kept_images * pixels / 256 * network.no_mem_embed.shape[-1] * (16 * share + 8)
    return PROGRAM_MB + memory_budget_mb + SLACK * (max(trunk, following + masks) + images) / MB


def choose_settings(
    network: SAM2, gb: float | None = None, *, objects: int = 8, video_size: Size = (1080, 1920)
) -> Settings:
    """The best settings for so much memory: the largest size first, then float32, then many objects at once.

    Args:
        network: any SAM 2, on the device where it is to run.
        gb: gigabytes (2**30 bytes) that it may take, weights included; None: what is free on the GPU, but 8
            on a CPU.
        objects: that will be followed, about.
        video_size: (H, W) of the video.

    Returns:
        The settings; `str` of them says in one line what was chosen.

    Raises:
        ValueError: not even the smallest settings fit.
    """
    device = network.no_mem_embed.device
    if gb is None:
        gb = torch.cuda.mem_get_info(device)[0] / 2**30 if device.type == "cuda" else 8.0
    given = gb * 1024
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters()) / MB
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if device.type == "cuda" else ("fp32",)
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        precisions = ("fp32", "fp16")
    needed = 0.0
    for size in SIZES:
        for precision in precisions:
            for chunk in (None, 4, 1):
                needed = weights + peak_mb(
                    network,
                    image_size=size,
                    objects=objects,
                    object_chunk=chunk,
                    precision=precision,
                    video_size=video_size,
                    together=device.type == "cuda",
                )
                budget = min(1024.0, (given - needed) / 2)
                if budget >= _least_budget(network, size, objects):
                    return Settings(size, precision, 2, chunk, budget, needed + budget, given)
    raise ValueError(
        f"{gb:g} GB do not hold SAM 2 with {objects} objects, which needs about {needed:.0f} MB at "
        f"{SIZES[-1]} pixels; take a smaller network or follow fewer objects at once"
    )


def _least_budget(network: SAM2, size: int, objects: int) -> float:
    """Megabytes of two encoded frames and of what one frame looks back at: 8 memories and masks an object."""
    places, dim = (size / 16) ** 2, network.no_mem_embed.shape[-1]
    return places * (2 * dim * 24 + objects * 8 * (dim // 4 * 2 + 16 * 4)) / MB
