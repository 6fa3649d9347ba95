"""Cutie: what pixels remember, refined by what is known of each object, decoded into masks.

`state_dict()` has the official checkpoints' keys in their order.

Source: Cheng et al., "Putting the Object Back into Video Object Segmentation", CVPR 2024.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.convolution import inference_layout
from vosssl.methods.cutie.auxiliary import AuxiliaryHeads, AuxiliaryLogits
from vosssl.methods.cutie.layers import joined
from vosssl.methods.cutie.mask_decoder import MaskDecoder
from vosssl.methods.cutie.mask_encoder import MaskEncoder
from vosssl.methods.cutie.object_summarizer import ObjectSummarizer
from vosssl.methods.cutie.object_transformer import ObjectTransformer
from vosssl.methods.cutie.pixel_encoder import Backbone, FrozenNormResNet, KeyProjection
from vosssl.methods.cutie.pixel_fuser import PixelFuser
from vosssl.methods.cutie.unroll import ClipLogits, follow_clips
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD
from vosssl.ops.masks import aggregated_log_odds
from vosssl.propagation.memory_network import Carry, EncodedFrame

log = logging.getLogger(__name__)

NewChannels = Literal["orthogonal", "zeros"]
WIDENED = (
    "mask_encoder.conv1.weight",
    "pixel_fuser.sensory_compress.weight",
)  # by one channel: the others' masks


class Cutie(nn.Module):
    """The network: `encode_frame`, then `predict` from what the bank gave, then `memorise`.

    B videos, N objects, (h, w) = (H, W) / 16. An object carries its sensory memory (B, N, S, h, w) and its
    summaries (B, N, Q, C + 1), sums over all frames that were memorised.

    Training uses the steps that `predict` is made of, with a `selector` (B, N) that is 0 where a video has
    fewer objects than its batch:

        fused = network.fuse(frame, readout, carry["sensory"], last_masks)
        features, levels = network.read_objects(fused, carry["summaries"], selector=selector)
        auxiliary = network.auxiliary_logits(frame, carry["sensory"], features, levels, selector=selector)
        logits, sensory = network.decode(frame, features, carry["sensory"])
        log_odds = network.compete(logits, selector=selector)  # of (H, W); softmax over dim 1: masks

    Auxiliary logits of the sensory memory are those of the memory before `decode` updates it.

    Args:
        backbone: of the pixel encoder: resnet50 (base) or resnet18 (small).
        backbone_blocks: blocks of its three stages; None: as in the named network.
        backbone_width: channels of its first stage.
        mask_backbone_blocks: of the mask encoder's ResNet-18; None: 2, 2, 2.
        mask_backbone_width: channels of its first stage.
        first_stride, pool: of both, see `FrozenNormResNet`; published: 2, True. 1 and False make memory and
            masks four times as fine, for small frames.
        width: C, channels of features, values and summaries; a multiple of 4 and of `heads`.
        key_width: CK, channels of keys.
        sensory_width: S, channels of the sensory memory.
        decoder_widths: channels of the decoder at stride 8 and 4.
        queries: Q, summaries and queries per object, an even number.
        heads: of the object transformer's attentions.
        transformer_blocks: how many the object transformer has.
        feed_forward_width: inside the queries' feed-forward networks.
        single_object: see no masks of others: pre-training on one object.
        new_channels: how weights of a single-object checkpoint grow for the others' masks: `orthogonal` as
            published, or `zeros`: computes what it computed before.
        train_norms: let batch norms learn statistics; published: never, they keep ImageNet's.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone = "resnet50",
        backbone_blocks: Sequence[int] | None = None,
        backbone_width: int = 64,
        mask_backbone_blocks: Sequence[int] | None = None,
        mask_backbone_width: int = 64,
        first_stride: int = 2,
        pool: bool = True,
        width: int = 256,
        key_width: int = 64,
        sensory_width: int = 256,
        decoder_widths: Sequence[int] = (128, 128),
        queries: int = 16,
        heads: int = 8,
        transformer_blocks: int = 3,
        feed_forward_width: int = 2048,
        single_object: bool = False,
        new_channels: NewChannels = "orthogonal",
        train_norms: bool = False,
    ) -> None:
        super().__init__()
        self.single_object = single_object
        self.new_channels = new_channels
        self.pixel_encoder = FrozenNormResNet(
            backbone,
            blocks=backbone_blocks,
            width=backbone_width,
            first_stride=first_stride,
            pool=pool,
            first_stage="res2",
            train_norms=train_norms,
        )
        self.stride = self.pixel_encoder.stride
        width4, width8, width16 = self.pixel_encoder.widths
        self.pix_feat_proj = nn.Conv2d(width16, width, 1)
        self.key_proj = KeyProjection(width16, width, key_width)
        self.mask_encoder = MaskEncoder(
            width=width,
            sensory_width=sensory_width,
            single_object=single_object,
            blocks=mask_backbone_blocks,
            backbone_width=mask_backbone_width,
            first_stride=first_stride,
            pool=pool,
            train_norms=train_norms,
        )
        self.mask_decoder = MaskDecoder(
            (width8, width4), width=width, widths=decoder_widths, sensory_width=sensory_width
        )
        self.pixel_fuser = PixelFuser(width, sensory_width, single_object=single_object)
        self.object_transformer = ObjectTransformer(
            width, heads=heads, blocks=transformer_blocks, queries=queries, inner=feed_forward_width
        )
        self.object_summarizer = ObjectSummarizer(width, queries)
        self.aux_computer = AuxiliaryHeads(sensory_width, width)
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def forward(
        self,
        frames: Tensor,
        first_masks: Tensor,
        present: Tensor,
        *,
        references: Sequence[Tensor],
        deep_updates: Sequence[bool],
    ) -> ClipLogits:
        """Follows the masks of first frames through clips, for training: see `follow_clips`."""
        return follow_clips(
            self, frames, first_masks, present, references=references, deep_updates=deep_updates
        )

    def encode_frame(self, images: Tensor) -> EncodedFrame:
        """What is computed once per frame, for however many objects.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], sides multiples of 16.

        Returns:
            Keys, and as features (B, C, h, w) of stride 16 and the decoder's skip connections of stride 8, 4.
        """
        maps4, maps8, maps16 = self.pixel_encoder.pyramid(inference_layout(self._normalise(images)))
        keys = self.key_proj(maps16)
        skips = self.mask_decoder.project_skips(maps8, maps4)
        return EncodedFrame(keys.key, keys.shrinkage, keys.selection, (self.pix_feat_proj(maps16), *skips))

    def fresh_carry(self, frame: EncodedFrame, count: int) -> Carry:
        """Zeros: (B, count, S, h, w) sensory memory and (B, count, Q, C + 1) summaries."""
        videos, _, height, width = frame.key.shape
        queries, channels = self.object_transformer.query_init.weight.shape
        sensory_width = self.mask_encoder.sensory_update.transform.out_channels // 3
        return {
            "sensory": frame.key.new_zeros(videos, count, sensory_width, height, width),
            "summaries": frame.key.new_zeros(videos, count, queries, channels + 1),
        }

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
        """Masks of one frame, as `MemoryNetwork` says.

        Args:
            frame: encoded.
            readouts: (B, n, C, h, w) each. Objects of one entry compete for the queries' attention and are
                each other's others in pixel fusion; all objects compete for the pixels in the end.
            carry: of the N objects.
            last_masks: (B, N, H, W) in [0, 1] of the frame before.
            update: whether the sensory memory changes.
            chunk_size: at most so many objects at once in fusion and decoder; changes nothing but memory.

        Returns:
            (B, N + 1, H, W) probabilities, background first, and the carry.
        """
        sensory, summaries = carry["sensory"], carry["summaries"]
        shared = self.pixel_fuser.project_shared(frame.features[0])
        features, start = [], 0
        for readout in readouts:
            part = slice(start, start + readout.shape[1])
            start = part.stop
            fused = self.pixel_fuser(
                shared, readout, sensory[:, part], last_masks[:, part], chunk_size=chunk_size
            )
            features.append(self.read_objects(fused, summaries[:, part])[0])
        logits, sensory = self.decode(frame, joined(features), sensory, update=update, chunk_size=chunk_size)
        return self.compete(logits).softmax(dim=1), {"sensory": sensory, "summaries": summaries}

    def fuse(
        self,
        frame: EncodedFrame,
        readout: Tensor,
        sensory: Tensor,
        last_masks: Tensor,
        *,
        chunk_size: int = -1,
    ) -> Tensor:
        """Pixel fusion of objects that were read together.

        Args:
            frame: encoded.
            readout: (B, N, C, h, w).
            sensory: (B, N, S, h, w).
            last_masks: (B, N, H, W) in [0, 1].
            chunk_size: as in `predict`.

        Returns:
            (B, N, C, h, w).
        """
        shared = self.pixel_fuser.project_shared(frame.features[0])
        return self.pixel_fuser(shared, readout, sensory, last_masks, chunk_size=chunk_size)

    def read_objects(
        self, fused: Tensor, summaries: Tensor, *, selector: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The object transformer.

        Args:
            fused: (B, N, C, h, w) of `fuse`.
            summaries: (B, N, Q, C + 1).
            selector: (B, N), 1 where there is an object; None: everywhere.

        Returns:
            (B, N, C, h, w) features, and the mask logits (B, N, h, w) before each block.
        """
        return self.object_transformer(fused, summaries, selector)

    def decode(
        self,
        frame: EncodedFrame,
        features: Tensor,
        sensory: Tensor,
        *,
        update: bool = True,
        chunk_size: int = -1,
    ) -> tuple[Tensor, Tensor]:
        """Features of objects to logits, each against everything else.

        Args:
            frame: encoded.
            features: (B, N, C, h, w) of `read_objects`.
            sensory: (B, N, S, h, w).
            update: whether it changes.
            chunk_size: as in `predict`.

        Returns:
            (B, N, H / 4, W / 4) logits, and the sensory memory.
        """
        _, skip8, skip4 = frame.features
        return self.mask_decoder((skip8, skip4), features, sensory, update=update, chunk_size=chunk_size)

    def compete(self, logits: Tensor, *, selector: Tensor | None = None) -> Tensor:
        """Lets objects compete, at the frame's size.

        Args:
            logits: (B, N, H / 4, W / 4) of `decode`.
            selector: (B, N), 1 where there is an object; None: everywhere.

        Returns:
            (B, N + 1, H, W) log-odds, background first: their softmax are the masks; a cross-entropy takes
            them as they are.
        """
        log_odds = _log_odds(logits, selector)
        if self.stride == 4:  # logits have the frame's size
            return log_odds
        return F.interpolate(log_odds, scale_factor=self.stride / 4, mode="bilinear", align_corners=False)

    def auxiliary_logits(
        self,
        frame: EncodedFrame,
        sensory: Tensor,
        features: Tensor,
        levels: Sequence[Tensor],
        *,
        selector: Tensor | None = None,
    ) -> AuxiliaryLogits:
        """What the auxiliary losses look at; not needed for masks.

        Args:
            frame: encoded.
            sensory: (B, N, S, h, w) before `decode`.
            features: (B, N, C, h, w) of `read_objects`.
            levels: its mask logits.
            selector: (B, N), 1 where there is an object; None: everywhere.

        Returns:
            Log-odds at stride 16.
        """
        last = self.object_transformer.level_logits(features, len(levels))
        by_level = [_log_odds(logits, selector) for logits in (*levels, last)]
        by_sensory = self.aux_computer(frame.features[0], sensory)
        return AuxiliaryLogits(_log_odds(by_sensory, selector), torch.stack(by_level, dim=2))

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
        """What is to be remembered of a frame, as `MemoryNetwork` says.

        Args:
            images: (B, 3, H, W) as encoded.
            frame: encoded.
            masks: (B, N, H, W) in [0, 1].
            carry: of the N objects; the summaries of this frame are added to it.
            deep_update: whether the values change the sensory memory.
            chunk_size: at most so many objects at once; changes nothing but memory.

        Returns:
            (B, N, C, h, w) values, and the carry.
        """
        values, sensory = self.mask_encoder.encode(
            self._normalise(images),
            frame.features[0],
            masks,
            carry["sensory"],
            deep_update=deep_update,
            chunk_size=chunk_size,
        )
        summaries = carry["summaries"] + self.object_summarizer(masks, values)
        return values, {"sensory": sensory, "summaries": summaries}

    def adapted_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a single-object checkpoint, with one input channel more where the others' masks come in.

        Args:
            state: with official keys. The new channel is the last one, drawn as `new_channels` says.

        Returns:
            The state, completed; the same entries where nothing is missing.

        Raises:
            ValueError: weights for several objects into a network for a single one: a channel would be lost.
        """
        adapted = dict(state)
        own = self.state_dict()
        for key in WIDENED:
            weight = adapted.get(key)
            if not isinstance(weight, Tensor) or weight.ndim != 4:
                continue
            gap = own[key].shape[1] - weight.shape[1]
            if gap == -1 and self.single_object:
                raise ValueError(
                    f"the weights are for several objects ({key} is {tuple(weight.shape)}), this network is "
                    "for one and would lose the channel of the others' masks; use single_object=False"
                )
            if gap == 1 and not self.single_object:
                new = weight.new_zeros(weight.shape[0], 1, *weight.shape[2:])
                if self.new_channels == "orthogonal":
                    nn.init.orthogonal_(new)
                adapted[key] = torch.cat([weight, new], dim=1)
                log.info("%s: a last input channel (%s) for the masks of others", key, self.new_channels)
        return adapted

    def _normalise(self, images: Tensor) -> Tensor:
        return (images - self.pixel_mean) / self.pixel_std


def _log_odds(logits: Tensor, selector: Tensor | None) -> Tensor:
    """Logits (B, N, h, w), each object against all else, to log-odds (B, N + 1, h, w) of competitors."""
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = logits.float().sigmoid()
        if selector is not None:
            probabilities = probabilities * selector[..., None, None]
        return aggregated_log_odds(probabilities)
