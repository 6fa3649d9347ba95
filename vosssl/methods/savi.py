"""SAVi: slots carried through a video, started from hints about the first frame or from nothing.

Kipf et al., "Conditional Object-Centric Learning from Video", ICLR 2022 (arXiv 2111.12594).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.layers.frame_encoders import BackboneEncoder, CNNEncoder, pixel_target
from vosssl.layers.slot_attention import SlotAttention
from vosssl.layers.slot_decoders import SpatialBroadcastDecoder
from vosssl.layers.slot_initializers import ConditionalInit, LearnedInit, RandomInit, condition_from_labels
from vosssl.layers.slot_network import SlotNetwork, SlotTrace, trace_batch
from vosssl.layers.transformer import PostNormPredictor
from vosssl.losses.feature_reconstruction import pixel_reconstruction
from vosssl.ops.resize import resize_image

Start = Literal["boxes", "centres", "masks", "learned", "random"]
Target = Literal["rgb", "flow"]


class SAVi(SlotNetwork):
    """Encoder, one iteration of slot attention per frame, post-norm predictor, spatial broadcast decoder.

    Args:
        backbone: a frozen ViT to read features from; the CNN of the paper, trained from scratch, when left
            out.
        features_dim: width of the ViT's patches.
        patch_size: of the ViT.
        size: (H, W) of the training frames.
        num_slots: K; one of them is the background's where slots start from hints.
        slot_dim: D.
        start: what slots start from: boxes, centres or masks of the first frame, learned vectors, or noise.
        target: what they reconstruct: frames, or optical flow.
        channels: of the CNN and of the decoder: 64 at 128 px, 32 at 64 px.
        downsamplings: of the CNN: 1 at 128 px, 0 at 64 px.
        iterations: of slot attention on every frame.
        first_iterations: on the first frame.
        use_mlp: follow each slot update by an MLP.
        backbone_precision: of the ViT.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module | None = None,
        features_dim: int = 384,
        patch_size: int = 16,
        size: tuple[int, int] = (128, 128),
        num_slots: int = 11,
        slot_dim: int = 128,
        start: Start = "boxes",
        target: Target = "rgb",
        channels: int = 64,
        downsamplings: int = 1,
        iterations: int = 1,
        first_iterations: int | None = None,
        use_mlp: bool = False,
        backbone_precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        stride = 2**downsamplings if backbone is None else patch_size
        encoder: nn.Module
        if backbone is None:
            input_dim = channels
            encoder = CNNEncoder(
                channels=channels,
                downsamplings=downsamplings,
                size=(size[0] // stride, size[1] // stride),
            )
        else:
            input_dim = slot_dim
            encoder = BackboneEncoder(
                backbone, features_dim=features_dim, output_dim=slot_dim, precision=backbone_precision
            )
        upsamplings = 4 if size[0] >= 128 else 3  # an 8 x 8 grid at 128 and at 64 px
        factor = 2**upsamplings
        super().__init__(
            encoder=encoder,
            initializer=_initializer(start, num_slots, slot_dim),
            corrector=SlotAttention(
                input_dim,
                slot_dim,
                kvq_dim=128,
                iterations=iterations,
                gru_state="raw",
                use_mlp=use_mlp,
            ),
            predictor=PostNormPredictor(slot_dim),
            decoder=SpatialBroadcastDecoder(
                slot_dim,
                3 if target == "rgb" else 2,
                channels=channels,
                initial_size=(size[0] // factor, size[1] // factor),
                upsamplings=upsamplings,
                scale=stride,
            ),
            first_iterations=first_iterations,
        )


def _initializer(start: Start, num_slots: int, slot_dim: int) -> nn.Module:
    if start == "learned":
        return LearnedInit(num_slots, slot_dim)
    if start == "random":
        return RandomInit(num_slots, slot_dim)
    return ConditionalInit(num_slots, slot_dim, kind=start)


class Objective:
    """Reconstruction of frames or of optical flow.

    Args:
        start: as of the network; hints are read from the labels of each clip's first frame.
        objects: how many objects get a hint: one less than there are slots.
        target: as of the network.
        flow_scale: pixels of displacement that count as one. The paper turns flow into RGB instead.
        weight: of the loss.

    Source: Kipf et al., SAVi, ICLR 2022, section 2.
    """

    def __init__(
        self,
        *,
        start: Start = "boxes",
        objects: int = 10,
        target: Target = "rgb",
        flow_scale: float = 8.0,
        weight: float = 1.0,
    ) -> None:
        self.start = start
        self.objects = objects
        self.target = target
        self.flow_scale = flow_scale
        self.weight = weight

    def trace(self, network: nn.Module, batch: Batch) -> SlotTrace:
        """What the loss is computed from, for monitors and pictures too."""
        return trace_batch(network, batch, condition=self._condition(batch))

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The loss of one batch.

        Raises:
            ValueError: hints or flow asked for, but the batch has no labels or no flow.
        """
        trace = self.trace(network, batch)
        grid = (trace.masks.shape[-2], trace.masks.shape[-1])
        loss = pixel_reconstruction(trace.reconstruction, self._target(batch, grid))
        return {f"{self.target}_reconstruction": self.weight * loss}

    def _condition(self, batch: Batch) -> Tensor | None:
        if self.start == "learned" or self.start == "random":
            return None
        if batch.labels is None:
            raise ValueError(f"slots start from {self.start}, but the batch has no labels; use start=learned")
        return condition_from_labels(batch.labels[:, 0], kind=self.start, objects=self.objects)

    def _target(self, batch: Batch, grid: tuple[int, int]) -> Tensor:
        if self.target == "rgb":
            return pixel_target(batch.frames, grid)  # (B, T, 3, H, W) -> (B, T, P, 3)
        if batch.flow is None:
            raise ValueError("the target is optical flow, but the batch has none; use target=rgb")
        return resize_image(batch.flow / self.flow_scale, grid).flatten(-2).transpose(-1, -2)
