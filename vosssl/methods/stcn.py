"""STCN: frames are compared by keys of images alone; what is remembered of objects is read by these matches.

`state_dict()` has the official checkpoint's keys in its order; the numbers in names are strides at the
published size. Objects share all that depends on the image only: convolutions of images and masks together
are the sum of a part per frame and a part per object.

Source: Cheng, Tai and Tang, "Rethinking Space-Time Networks with Improved Memory Coverage for Efficient Video
Object Segmentation", NeurIPS 2021, and the code that its weights come from (hkchengrex/STCN).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vosssl.backbones.resnet import BasicBlock, Bottleneck, ResNet
from vosssl.clip import Batch
from vosssl.layers.cbam import CBAM
from vosssl.layers.convolution import Convolution, inference_layout
from vosssl.layers.object_blocks import ResidualBlock, joined
from vosssl.losses.bootstrapped_cross_entropy import bootstrapped_cross_entropy, hard_share
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD, as_float
from vosssl.ops.masks import aggregated_log_odds, labels_to_masks, soft_aggregate
from vosssl.ops.resize import resize_masks
from vosssl.propagation.memory_bank import MemoryBank
from vosssl.propagation.memory_network import Carry, EncodedFrame, frame_at
from vosssl.propagation.memory_segmenter import MemorySegmenter, Precision
from vosssl.propagation.multi_scale import at_scales
from vosssl.propagation.segmenter import VideoSegmenter

log = logging.getLogger(__name__)

FIRST_CONVOLUTION = "value_encoder.conv1.weight"


class FeatureFusion(nn.Module):
    """An object's features and its frame's: concatenated, mixed, attended to."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, width)
        self.attention = CBAM(width)
        self.block2 = ResidualBlock(width, width)

    def forward(self, own: Tensor, frame: tuple[Tensor, Tensor]) -> Tensor:
        """(B * N, C, h, w) and `block1.of_frame` of the frame's features, to (B * N, width, h, w)."""
        mixed = self.block1.of_objects(own, frame)
        return self.block2(mixed + self.attention(mixed))


class ValueEncoder(ResNet):
    """An image, one object's mask in it and the sum of the others', to what is remembered of the object.

    Args:
        mask_channels: 2, or 1 where the others are not looked at.
        frame_channels: of the key encoder's features.
        value_channels: of a value.
        blocks, width, first_stride, pool: see `ResNet`.
    """

    def __init__(
        self,
        *,
        mask_channels: int,
        frame_channels: int,
        value_channels: int,
        blocks: Sequence[int],
        width: int,
        first_stride: int,
        pool: bool,
    ) -> None:
        super().__init__(
            BasicBlock,
            blocks=blocks,
            width=width,
            first_stride=first_stride,
            pool=pool,
            in_channels=3 + mask_channels,
            bias=True,
        )
        self.mask_channels = mask_channels
        self.fuser = FeatureFusion(self.channels + frame_channels, value_channels)

    def of_frame(self, images: Tensor, features: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What all objects of a frame share.

        Args:
            images: (B, 3, H, W), normalised.
            features: (B, frame_channels, h, w) of the key encoder.
        """
        return self.conv1.part(images, slice(0, 3), bias=True), self.fuser.block1.of_frame(features)

    def of_objects(self, masks: Tensor, frame: tuple[Tensor, tuple[Tensor, Tensor]]) -> Tensor:
        """Values of objects.

        Args:
            masks: (B, N, mask_channels, H, W).
            frame: of `of_frame`.

        Returns:
            (B, N, value_channels, h, w).
        """
        seen = self.conv1.part(inference_layout(masks.flatten(0, 1)), slice(3, None), bias=False)
        own = self.pyramid_behind(joined(seen, frame[0]))[-1]
        return self.fuser(own, frame[1]).unflatten(0, masks.shape[:2])


class KeyProjection(nn.Module):
    """A 3x3 convolution to keys, orthogonal at first."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(channels, key_channels, 3, padding=1)
        nn.init.orthogonal_(self.key_proj.weight)
        assert self.key_proj.bias is not None
        nn.init.zeros_(self.key_proj.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, key_channels, h, w)."""
        return self.key_proj(features)


class UpsampleBlock(nn.Module):
    """Twice the resolution, with the key encoder's features of that resolution added."""

    def __init__(self, skip_channels: int, channels: int, width: int) -> None:
        super().__init__()
        self.skip_conv = Convolution(skip_channels, channels)
        self.out_conv = ResidualBlock(channels, width)

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """(B * N, channels, h, w) and what `skip_conv` gave of a frame, to (B * N, width, 2h, 2w)."""
        return self.out_conv(joined(resize_masks(maps, (skip.shape[-2], skip.shape[-1])), skip))


DecoderFrame = tuple[tuple[Tensor, Tensor], Tensor, Tensor]


class Decoder(nn.Module):
    """What was read of an object, to its mask.

    Args:
        value_channels: of what was read, and of the frame's features beside it.
        skip_channels: of the finer features, the coarser ones first.
        width: channels of the finer maps.
    """

    def __init__(self, value_channels: int, skip_channels: tuple[int, int], width: int) -> None:
        super().__init__()
        self.compress = ResidualBlock(2 * value_channels, value_channels)
        self.up_16_8 = UpsampleBlock(skip_channels[0], value_channels, width)
        self.up_8_4 = UpsampleBlock(skip_channels[1], width, width)
        self.pred = Convolution(width, 1)

    def of_frame(self, thin16: Tensor, f8: Tensor, f4: Tensor) -> DecoderFrame:
        """What all objects of a frame share: (B, C, h, w) features, the coarsest first."""
        return self.compress.of_frame(thin16), self.up_16_8.skip_conv(f8), self.up_8_4.skip_conv(f4)

    def of_objects(self, readout: Tensor, frame: DecoderFrame) -> Tensor:
        """(B, N, value_channels, h, w) and `of_frame`, to logits (B, N, 4h, 4w)."""
        own = inference_layout(readout.flatten(0, 1))  # (B, N, ...) -> (B * N, ...)
        maps16 = self.compress.of_objects(own, frame[0])
        maps4 = self.up_8_4(self.up_16_8(maps16, frame[1]), frame[2])
        return self.pred(maps4, rectified=True)[:, 0].unflatten(0, readout.shape[:2])


class STCN(nn.Module):
    """The network; its defaults are the published one.

    Args:
        key_blocks: blocks in the stages of the key encoder, made of `bottleneck`s or of basic blocks.
        bottleneck: see there.
        value_blocks: blocks in the stages of the value encoder.
        width: of the first stage of both.
        key_channels: of a key.
        value_channels: of a value.
        decoder_channels: of the decoder's finer maps.
        first_stride: of the first convolutions; 1 halves the stride.
        pool: whether max-pooling follows; without it the stride is half as large.
        single_object: do without the others' masks, as in the first stage of the published training.
        other_masks: the weights that a checkpoint of `single_object` gets for them here: none that do
            anything, or random ones that training can start from.
        frozen_norm: batch norm keeps its statistics in training, as published.

    Attributes:
        stride: pixels from one place of keys and values to the next.
    """

    def __init__(
        self,
        *,
        key_blocks: Sequence[int] = (3, 4, 6),
        bottleneck: bool = True,
        value_blocks: Sequence[int] = (2, 2, 2),
        width: int = 64,
        key_channels: int = 64,
        value_channels: int = 512,
        decoder_channels: int = 256,
        first_stride: int = 2,
        pool: bool = True,
        single_object: bool = False,
        other_masks: Literal["zeros", "orthogonal"] = "zeros",
        frozen_norm: bool = True,
    ) -> None:
        super().__init__()
        if len(key_blocks) != 3 or len(value_blocks) != 3:
            raise ValueError(
                f"key_blocks are {tuple(key_blocks)} and value_blocks {tuple(value_blocks)}, expected three "
                "stages each: the decoder has three resolutions"
            )
        self.single_object = single_object
        self.other_masks = other_masks
        self.frozen_norm = frozen_norm
        self.key_encoder = ResNet(
            Bottleneck if bottleneck else BasicBlock,
            blocks=key_blocks,
            width=width,
            first_stride=first_stride,
            pool=pool,
            first_stage="res2",
        )
        self.value_encoder = ValueEncoder(
            mask_channels=1 if single_object else 2,
            frame_channels=self.key_encoder.channels,
            value_channels=value_channels,
            blocks=value_blocks,
            width=width,
            first_stride=first_stride,
            pool=pool,
        )
        fine, middle, coarse = self.key_encoder.widths
        self.key_proj = KeyProjection(coarse, key_channels)
        self.key_comp = Convolution(coarse, value_channels)
        self.decoder = Decoder(value_channels, (middle, fine), decoder_channels)
        self.stride = self.key_encoder.stride
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> STCN:
        """Training mode; with `frozen_norm` batch norm stays in evaluation mode."""
        super().train(mode)
        if self.frozen_norm:
            for part in self.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return self

    def forward(self, frames: Tensor, first_masks: Tensor, present: Tensor) -> Tensor:
        """Follows the masks of first frames through clips, as in training.

        Each further frame reads all frames before it with a softmax over everything; what is remembered of
        these is what was predicted there.

        Args:
            frames: (B, T, 3, H, W) RGB, uint8 or float in [0, 1].
            first_masks: (B, N, H, W) in [0, 1], of the first frames.
            present: (B, N) bool; objects that a clip does not have claim no pixel.

        Returns:
            (B, T - 1, N + 1, H, W) log-odds of the further frames, background first.
        """
        images = as_float(frames)
        encoded = self.encode_frame(images.flatten(0, 1))  # (B, T, 3, H, W) -> (B * T, ...)
        steps = [frame_at(encoded, frames.shape[:2], time) for time in range(frames.shape[1])]
        bank = MemoryBank(top_k=None, differentiable=True)
        masks, predictions = first_masks, []
        for time in range(1, len(steps)):
            values, _ = self.memorise(images[:, time - 1], steps[time - 1], masks, {})
            bank.append(steps[time - 1], values, range(1, masks.shape[1] + 1))
            claimed = self.object_probabilities(steps[time], bank.read(steps[time]))
            log_odds = aggregated_log_odds(claimed * present[..., None, None])
            masks = log_odds.softmax(dim=1)[:, 1:]
            predictions.append(log_odds)
        return torch.stack(predictions, dim=1)

    def encode_frame(self, images: Tensor) -> EncodedFrame:
        """See `MemoryNetwork`; features are those at stride 16, thinned for the decoder, at 8 and at 4."""
        f4, f8, f16 = self.key_encoder.pyramid(self._normalised(images))
        return EncodedFrame(self.key_proj(f16), None, None, (f16, self.key_comp(f16), f8, f4))

    def fresh_carry(self, frame: EncodedFrame, count: int) -> Carry:
        """Nothing: objects are what is remembered of them."""
        return {}

    def predict(
        self,
        frame: EncodedFrame,
        readouts: Sequence[Tensor],
        carry: Carry,
        last_masks: Tensor,
        *,
        update: bool = True,
        chunk_size: int = -1,
    ) -> tuple[Tensor, Carry]:
        """See `MemoryNetwork`; all objects compete, the masks of the frame before play no part."""
        return soft_aggregate(self.object_probabilities(frame, readouts, chunk_size=chunk_size)), carry

    def object_probabilities(
        self, frame: EncodedFrame, readouts: Sequence[Tensor], *, chunk_size: int = -1
    ) -> Tensor:
        """Each object against everything else.

        Args:
            frame: encoded.
            readouts: (B, n, CV, h, w) each, together N objects.
            chunk_size: so many objects are decoded at once; -1: all.

        Returns:
            (B, N, H, W) float32 in [0, 1].
        """
        _, thin16, f8, f4 = frame.features
        shared = self.decoder.of_frame(thin16, f8, f4)
        logits = [self.decoder.of_objects(part, shared) for part in _chunks(readouts, chunk_size)]
        size = (frame.key.shape[-2] * self.stride, frame.key.shape[-1] * self.stride)
        return resize_masks(
            torch.cat(logits, dim=1).float(), size
        ).sigmoid_()  # (B, N, 4h, 4w) -> (B, N, H, W)

    def memorise(
        self,
        images: Tensor,
        frame: EncodedFrame,
        masks: Tensor,
        carry: Carry,
        *,
        deep_update: bool = True,
        chunk_size: int = -1,
    ) -> tuple[Tensor, Carry]:
        """See `MemoryNetwork`; an object's value depends on the others' masks, too."""
        seen = masks[:, :, None]  # (B, N, 1, H, W)
        if not self.single_object:
            seen = torch.cat([seen, seen.sum(dim=1, keepdim=True) - seen], dim=2)
        shared = self.value_encoder.of_frame(self._normalised(images), frame.features[0])
        values = [self.value_encoder.of_objects(part, shared) for part in _chunks([seen], chunk_size)]
        return torch.cat(values, dim=1), carry

    def adapted_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Weights of training's first stage, which knows single objects, with a channel for the others.

        Args:
            state: the entries of a checkpoint.

        Returns:
            What to load, to be matched strictly.
        """
        weight = state.get(FIRST_CONVOLUTION)
        if self.single_object or not isinstance(weight, Tensor) or weight.ndim != 4 or weight.shape[1] != 4:
            return state
        channel = torch.zeros_like(weight[:, :1])
        if self.other_masks == "orthogonal":
            nn.init.orthogonal_(channel)
        log.info("weights of single objects: the channel of the others' masks begins as %s", self.other_masks)
        return {**state, FIRST_CONVOLUTION: torch.cat([weight, channel], dim=1)}

    def _normalised(self, images: Tensor) -> Tensor:
        return inference_layout((images - self.mean) / self.std)


def _chunks(groups: Sequence[Tensor], size: int) -> list[Tensor]:
    """(B, n, ...) each, cut anew into at most `size` objects; -1: as few parts as there are."""
    joint = groups[0] if len(groups) == 1 else torch.cat(list(groups), dim=1)
    return [joint] if size < 1 else list(joint.split(size, dim=1))


class Objective:
    """The hardest pixels' cross-entropy of each further frame of clips.

    Args:
        max_objects: N; clips with fewer have that many, with more they are refused.
        start, end: steps between which pixels are left out, see `hard_share`.
        share: of the pixels that count in the end.

    Source: Cheng et al., 2021, section 4.3; two objects, three frames.
    """

    def __init__(
        self, *, max_objects: int = 2, start: int = 20_000, end: int = 70_000, share: float = 0.15
    ) -> None:
        hard_share(0, start=start, end=end, share=share)
        self.max_objects = max_objects
        self.start, self.end, self.share = start, end, share

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The loss of each further frame, a mean over clips.

        Raises:
            ValueError: clips without labels, not sampled for training on objects, or with too many of them.
        """
        if batch.labels is None or batch.num_objects is None:
            raise ValueError(
                "STCN learns from clips whose labels are 1..num_objects, all of them in the first frame; use "
                "VosClips, StaticImages or TargetClips of vosssl.data"
            )
        if int(batch.num_objects.max()) > self.max_objects:
            raise ValueError(
                f"clips have {batch.num_objects.tolist()} objects, expected at most {self.max_objects}: set "
                "the data's max_objects, or method.objective.max_objects"
            )
        ids = range(1, self.max_objects + 1)
        present = torch.tensor(list(ids), device=batch.num_objects.device) <= batch.num_objects[:, None]
        log_odds = network(batch.frames, labels_to_masks(batch.labels[:, 0], ids).float(), present)
        known = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)  # (B, N + 1)
        log_odds = log_odds.masked_fill(~known[:, None, :, None, None], -torch.inf)
        classes = batch.labels[:, 1:].long()  # (B, T - 1, H, W)
        share = hard_share(step, start=self.start, end=self.end, share=self.share)
        return {
            f"frame_{time}": bootstrapped_cross_entropy(logits, truth, share=share).mean()
            for time, (logits, truth) in enumerate(
                zip(log_odds.unbind(1), classes.unbind(1), strict=True), start=1
            )
        }


def stcn_segmenter(
    network: STCN,
    *,
    mem_every: int = 5,
    top_k: int | None = 20,
    include_last: bool = False,
    max_mem_frames: int | None = 40,
    max_mem_mb: float | None = None,
    permanent_prompts: bool = False,
    flip_aug: bool = False,
    scales: Sequence[float] = (1.0,),
    chunk_size: int = -1,
    max_internal_size: int = -1,
    precision: Precision = "fp32",
    device: torch.device | str | None = None,
) -> VideoSegmenter:
    """Follows masks by STCN's official settings for DAVIS and YouTube-VOS.

    Args:
        network: the trained one.
        mem_every, top_k, include_last: see `MemorySegmenter`; for long videos the authors take a larger
            mem_every.
        max_mem_frames: the first and the last 39 remembered frames, which is all of a video of 200 frames,
            so of DAVIS and YouTube-VOS; None: the memory grows with the video, as in the official program.
        max_mem_mb: see `MemorySegmenter`.
        permanent_prompts, flip_aug, chunk_size, max_internal_size, precision, device: see `MemorySegmenter`.
        scales: sizes of frames that are segmented side by side and averaged, as factors.

    Returns:
        The segmenter. Frames are padded with the mean colour, which is what zeros behind the
        normalisation are.
    """

    def at(scale: float) -> MemorySegmenter:
        return MemorySegmenter(
            network,
            mem_every=mem_every,
            top_k=top_k,
            include_last=include_last,
            max_mem_frames=max_mem_frames,
            max_mem_mb=max_mem_mb,
            permanent_prompts=permanent_prompts,
            flip_aug=flip_aug,
            chunk_size=chunk_size,
            max_internal_size=max_internal_size,
            pad_colour=IMAGENET_MEAN,
            precision=precision,
            device=device,
            scale=scale,
        )

    return at_scales(at, scales)
