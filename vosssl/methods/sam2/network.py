"""SAM 2: a frame, what is remembered of objects, and prompts, to masks.

`state_dict()` has the official checkpoints' keys in their order.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vosssl.backbones.hiera import Hiera
from vosssl.layers.linear_stack import LinearStack
from vosssl.layers.lora import has_low_rank, merged_state
from vosssl.layers.prompt_encoder import ABSENT, PADDING, PromptEncoder
from vosssl.methods.sam2.from_scratch import start_decoder_alike, start_memory_alike
from vosssl.methods.sam2.image_encoder import ImageEncoder
from vosssl.methods.sam2.mask_decoder import Candidates, Chosen, MaskDecoder, choose
from vosssl.methods.sam2.memory_attention import MemoryAttention
from vosssl.methods.sam2.memory_encoder import MemoryEncoder
from vosssl.methods.sam2.memory_selection import MAPS
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD
from vosssl.ops.resize import Size, resize_image, resize_masks
from vosssl.ops.sine_positions import sine_positions

STRIDE = 16  # of features and memories
NO_OBJECT = -1024.0  # logits of a mask whose object is not there
MASK_SCALE, MASK_BIAS = 20.0, -10.0  # from a mask in [0, 1] to what the memory encoder reads, and to logits


class EncodedImage(NamedTuple):
    """Images, encoded without regard to objects.

    Attributes:
        features: (B, C, h, w) at stride 16.
        skips: (B, C / 8, 4h, 4w) and (B, C / 4, 2h, 2w) for the mask decoder.
        positions: (1, C, h, w), sine codes for memory attention.
        prompt_positions: (1, C, h, w), random Fourier codes for the mask decoder.
    """

    features: Tensor
    skips: tuple[Tensor, Tensor]
    positions: Tensor
    prompt_positions: Tensor

    @property
    def grid(self) -> Size:
        """(h, w)."""
        return self.features.shape[-2], self.features.shape[-1]

    @property
    def size(self) -> Size:
        """(H, W) of the images, in pixels."""
        return self.grid[0] * STRIDE, self.grid[1] * STRIDE


class Memories(NamedTuple):
    """What is remembered of N objects: M maps and P pointers each.

    Attributes:
        maps: (N, M, D, h, w), any float type.
        ages: (M,) or (N, M) int64: rows of the table of times; 0 for the previous frame, the last one for
            frames with prompts.
        pointers: (N, P, C).
        distances: (P,) or (N, P) float: how far pointers are, 1 at the farthest; negative ahead.
        maps_present: (N, M) bool, False for maps that do not exist; None: all exist.
        pointers_present: (N, P) bool, likewise.
        maps_emphasis: (N, M) float that keys of maps are multiplied with; None: 1.
        pointers_emphasis: (N, P) float, likewise.
    """

    maps: Tensor
    ages: Tensor
    pointers: Tensor
    distances: Tensor
    maps_present: Tensor | None = None
    pointers_present: Tensor | None = None
    maps_emphasis: Tensor | None = None
    pointers_emphasis: Tensor | None = None


class Decoded(NamedTuple):
    """Masks of N objects in a frame.

    Attributes:
        masks: (N, 1, 4h, 4w) logits; -1024 where the object is not there.
        quality: (N, 1) predicted IoU.
        pointer: (N, C), what the object is like.
        object_score: (N, 1) logit of the object being there.
        candidates: all masks, as they were before absent objects lost theirs; None where masks were given.
    """

    masks: Tensor
    quality: Tensor
    pointer: Tensor
    object_score: Tensor
    candidates: Candidates | None


class SAM2(nn.Module):
    """The network. N objects of one frame (B = 1), or rows of a batch (N = B), go through each call at once:

        image = network.encode_image(frames)  # once per frame
        features = network.condition_on_memory(image, memories)  # or None: nothing is remembered yet
        decoded = network.decode_prompts(image, features, points=points, labels=labels, multimask=True)
        memory = network.encode_memory(image, decoded.masks, decoded.object_score)

    The defaults are SAM 2.1 tiny. (h, w) = (H, W) / 16.

    Args:
        width, heads, depths, windows, global_blocks, background_size: of the trunk, see `Hiera`.
        dim: C of features, tokens and pointers; a multiple of `memory_dim` and of `decoder_heads`.
        memory_dim: D of memories.
        feed_forward_dim: of memory attention and mask decoder.
        memory_layers: of memory attention.
        decoder_heads: of the mask decoder.
        maps: rows of the table of times.
        version: 2.1 knows how far pointers are and marks memories of absent objects; 2 does not.
        alike: attention begins by looking at what is alike, for training from scratch, see `from_scratch`.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        width: int = 96,
        heads: int = 1,
        depths: Sequence[int] = (1, 2, 7, 2),
        windows: Sequence[int] = (8, 4, 14, 7),
        global_blocks: Sequence[int] = (5, 7, 9),
        background_size: Sequence[int] = (7, 7),
        dim: int = 256,
        memory_dim: int = 64,
        feed_forward_dim: int = 2048,
        memory_layers: int = 4,
        decoder_heads: int = 8,
        maps: int = MAPS,
        version: Literal["2", "2.1"] = "2.1",
        alike: bool = False,
    ) -> None:
        super().__init__()
        if version not in ("2", "2.1"):
            raise ValueError(f"version is {version!r}, expected '2' or '2.1'")
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(maps, 1, 1, memory_dim))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, dim))  # in the checkpoints, used by nothing
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, dim))
        self.no_obj_embed_spatial: nn.Parameter | None = None
        if version == "2.1":
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, memory_dim))
        trunk = Hiera(
            width=width,
            heads=heads,
            depths=depths,
            windows=windows,
            global_blocks=global_blocks,
            background_size=(background_size[0], background_size[1]),
        )
        self.image_encoder = ImageEncoder(trunk, dim)
        self.mask_downsample = nn.Conv2d(1, 1, 4, stride=4)
        self.memory_attention = MemoryAttention(
            dim, memory_dim=memory_dim, depth=memory_layers, feed_forward_dim=feed_forward_dim
        )
        self.memory_encoder = MemoryEncoder(dim, memory_dim=memory_dim)
        self.sam_prompt_encoder = PromptEncoder(dim)
        self.sam_mask_decoder = MaskDecoder(dim, heads=decoder_heads, feed_forward_dim=feed_forward_dim)
        self.obj_ptr_proj = LinearStack(dim, dim, hidden_dim=dim)
        self.obj_ptr_tpos_proj = nn.Linear(dim, memory_dim) if version == "2.1" else None
        for parameter in self._parameters.values():
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        if alike:
            start_decoder_alike(self.sam_prompt_encoder, self.sam_mask_decoder)
            start_memory_alike(self.memory_encoder, self.memory_attention)
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, compute: Callable[[SAM2], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What a function computes with the network: training calls it here, where several processes look."""
        return compute(self)

    def adapted_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """A checkpoint with low-rank changes added to the weights, where this network has none."""
        return state if has_low_rank(self) else merged_state(state)

    def encode_image(self, images: Tensor) -> EncodedImage:
        """What is computed once per frame, for however many objects.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], sides multiples of 32.

        Returns:
            Features, skips and positions.
        """
        neck, decoder = self.image_encoder.neck, self.sam_mask_decoder
        levels = self.image_encoder.trunk((images - self.pixel_mean) / self.pixel_std)
        features = neck.coarse(levels)
        grid: Size = (features.shape[-2], features.shape[-1])
        return EncodedImage(
            features,
            (neck.skip(levels, 0, decoder.conv_s0), neck.skip(levels, 1, decoder.conv_s1)),
            sine_positions(grid, features.shape[1], device=features.device),
            self.sam_prompt_encoder.positions(grid),
        )

    def condition_on_memory(self, image: EncodedImage, memories: Memories | None) -> Tensor:
        """Features that know what is remembered of each object.

        Args:
            image: of one frame for all N objects, or a row each.
            memories: of N objects; None: nothing is remembered, as in frames with the first prompt.

        Returns:
            (N, C, h, w); (B, C, h, w) without memories.

        Raises:
            ValueError: memories of another size than the features, or older than the table of times.
        """
        if memories is None:
            return image.features + self.no_mem_embed[0, 0, :, None, None]
        if memories.maps.shape[-2:] != image.features.shape[-2:]:
            raise ValueError(
                f"memories are {tuple(memories.maps.shape)}, the frame's features "
                f"{tuple(image.features.shape)}; encode all frames at one size"
            )
        rows, maps, width = memories.maps.shape[:3]
        places = sine_positions(image.grid, width, device=image.features.device).flatten(2).transpose(1, 2)
        times = self.maskmem_tpos_enc[:, 0, 0][memories.ages][..., None, :]  # (M,) -> (M, 1, D)
        tokens = memories.maps.to(image.features.dtype).flatten(3).transpose(2, 3).flatten(1, 2)
        positions = (places + times).flatten(-3, -2)  # (M, h * w, D) -> (M * h * w, D)
        split = memories.pointers.shape[-1] // width
        pointers = memories.pointers.unflatten(-1, (split, width)).flatten(1, 2)  # (N, P, C) -> (N, 4P, D)
        pointer_positions = self._pointer_positions(memories.distances, width)
        pointer_positions = pointer_positions.repeat_interleave(split, dim=-2)
        if positions.ndim != pointer_positions.ndim:  # one of them is shared by all objects
            positions, pointer_positions = (
                part if part.ndim == 3 else part.expand(rows, -1, -1)
                for part in (positions, pointer_positions)
            )
        positions = torch.cat([positions, pointer_positions.to(positions)], dim=-2)
        return self.memory_attention(
            image.features,
            image.positions,
            torch.cat([tokens, pointers.to(tokens)], dim=1),
            positions if positions.ndim == 3 else positions[None],
            maps=maps,
            mask=_present(memories, places.shape[1], split),
            emphasis=_emphasis(memories, places.shape[1], split),
        )

    def decode_prompts(
        self,
        image: EncodedImage,
        features: Tensor,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        points_present: Tensor | None = None,
        masks: Tensor | None = None,
        masks_given: Tensor | None = None,
        multimask: bool | Tensor = True,
        require_stable: bool = True,
    ) -> Decoded:
        """Masks that N prompts mean; without points, masks of what the features remember.

        Args:
            image: of one frame for all objects, or a row each.
            features: (N or 1, C, h, w) of `condition_on_memory`.
            points: (N, P, 2) x and y in pixels of the encoded image; boxes are two of them in front
                (`boxes_as_points`). None: one padding point, as in tracked frames.
            labels: (N, P) with the points, see `PromptEncoder.tokens`.
            points_present: (N, P) bool, False for points that do not exist; None: all exist.
            masks: (N, 1, H', W') logits of an earlier guess; None: none.
            masks_given: (N,) bool, False for rows without such a mask; None: all have one.
            multimask: whether prompts may mean several things: True for one point or none, False for boxes
                and more points; (N,) bool: for each.
            require_stable: replace single masks that are not stable.

        Returns:
            One mask per object, and what it was chosen from.
        """
        if points is None:
            rows = max(len(features), 1 if masks is None else len(masks))
            points = features.new_zeros(rows, 1, 2)
            labels = torch.full((rows, 1), PADDING, device=features.device)
        present = None
        if points_present is not None and labels is not None:
            labels = labels.masked_fill(~points_present, ABSENT)
            present = torch.cat([points_present, points_present.new_ones(len(points), 1)], dim=1)  # + padding
        prompts = self.sam_prompt_encoder.tokens(image.size, points=points, labels=labels)
        maps = self.sam_prompt_encoder.maps(image.grid, masks=masks, given=masks_given)
        candidates = self.sam_mask_decoder(
            features + maps, image.prompt_positions, image.skips, prompts, present=present
        )
        chosen = choose(candidates, multimask=multimask, require_stable=require_stable)
        return self.settle(chosen, candidates.object_score)._replace(candidates=candidates)

    def settle(self, chosen: Chosen, object_score: Tensor, *, presence: float = 0.0) -> Decoded:
        """What follows from the choice of a mask: a pointer, and no mask where the object is not there.

        Args:
            chosen: of N objects.
            object_score: (N, 1) logits.
            presence: objects with more than that are there.

        Returns:
            The N objects, without candidates.
        """
        there = object_score > presence  # (N, 1)
        pointer = torch.where(there, self.obj_ptr_proj(chosen.token), self.no_obj_ptr)
        logits = torch.where(there[..., None, None], chosen.masks, NO_OBJECT)
        return Decoded(logits, chosen.quality, pointer, object_score, None)

    def accept_masks(self, image: EncodedImage, masks: Tensor) -> Decoded:
        """Masks that are given, as if they had been predicted; their pointers come from the decoder.

        Args:
            image: of one frame for all objects, or a row each.
            masks: (N, 1, H, W) of 0 and 1, at the size of the encoded image.

        Returns:
            Logits of +-10 at a quarter of the size; an empty mask is an object that is not there.

        Raises:
            ValueError: masks of another shape.
        """
        if masks.ndim != 4 or masks.shape[1] != 1 or tuple(masks.shape[-2:]) != image.size:
            raise ValueError(
                f"masks are {tuple(masks.shape)}, expected (N, 1, {image.size[0]}, {image.size[1]}): resize "
                "them to the encoded image"
            )
        masks = masks.to(self.no_mem_embed.dtype)  # not that of features under autocast: bf16 is not resized
        decoded = self.decode_prompts(
            image, image.features, masks=self.mask_downsample(masks), multimask=False
        )
        there = masks.flatten(1).amax(dim=1, keepdim=True) > 0  # (N, 1)
        height, width = image.grid
        return Decoded(
            resize_image(masks * MASK_SCALE + MASK_BIAS, (4 * height, 4 * width)),
            torch.ones_like(decoded.quality),
            torch.where(there, decoded.pointer, self.no_obj_ptr),
            there.to(masks) * MASK_SCALE + MASK_BIAS,
            None,
        )

    def encode_memory(
        self,
        image: EncodedImage,
        masks: Tensor,
        object_score: Tensor,
        *,
        prompted: bool | Tensor = False,
    ) -> Tensor:
        """What is to be remembered of a frame.

        Args:
            image: of one frame for all objects, or a row each.
            masks: (N, 1, H', W') logits, resized to the encoded image.
            object_score: (N, 1) logits.
            prompted: whether masks are certain and count as 0 or 1, as where objects were prompted; (N,)
                bool: for each.

        Returns:
            (N, D, h, w); the official code keeps it in bfloat16.
        """
        logits = resize_masks(masks, image.size)
        sure = torch.as_tensor(prompted, device=logits.device)
        soft = logits.sigmoid()
        if sure.ndim or prompted:
            soft = torch.where(sure.reshape(-1, 1, 1, 1), (logits > 0).to(soft), soft)
        memory: Tensor = self.memory_encoder(image.features, soft * MASK_SCALE + MASK_BIAS)
        if self.no_obj_embed_spatial is None:
            return memory
        absent = (object_score <= 0).to(memory)[..., None, None]  # (N, 1) -> (N, 1, 1, 1)
        return memory + absent * self.no_obj_embed_spatial[..., None, None]

    def _pointer_positions(self, distances: Tensor, width: int) -> Tensor:
        """(..., P) distances to (..., P, width); zeros in version 2."""
        if self.obj_ptr_tpos_proj is None:
            return distances.new_zeros(*distances.shape, width)
        half = self.obj_ptr_tpos_proj.in_features // 2
        steps = torch.arange(half, dtype=torch.float32, device=distances.device) // 2 * 2 / half
        angles = distances.float()[..., None] / 10_000**steps  # (..., P) -> (..., P, C / 2)
        codes = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.obj_ptr_tpos_proj(codes.to(self.obj_ptr_tpos_proj.weight))


def _present(memories: Memories, places: int, split: int) -> Tensor | None:
    """Which memory tokens exist, (N, M * places + P * split) bool; None: all."""
    if memories.maps_present is None and memories.pointers_present is None:
        return None
    rows, maps = memories.maps.shape[:2]
    there = torch.ones(rows, maps, dtype=torch.bool, device=memories.maps.device)
    maps_present = there if memories.maps_present is None else memories.maps_present
    there = torch.ones(memories.pointers.shape[:2], dtype=torch.bool, device=memories.maps.device)
    pointers_present = there if memories.pointers_present is None else memories.pointers_present
    return torch.cat(
        [maps_present.repeat_interleave(places, dim=1), pointers_present.repeat_interleave(split, dim=1)],
        dim=1,
    )


def _emphasis(memories: Memories, places: int, split: int) -> Tensor | None:
    """What keys of memory tokens are multiplied with, (N, M * places + P * split); None: 1."""
    if memories.maps_emphasis is None or memories.pointers_emphasis is None:
        return None
    return torch.cat(
        [
            memories.maps_emphasis.repeat_interleave(places, dim=1),
            memories.pointers_emphasis.repeat_interleave(split, dim=1),
        ],
        dim=1,
    )
