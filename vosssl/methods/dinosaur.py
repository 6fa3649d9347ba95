"""DINOSAUR: slots that reconstruct the features of a frozen self-supervised backbone, in images and in video.

Seitzer et al., "Bridging the Gap to Real-World Object-Centric Learning", ICLR 2023 (arXiv 2209.14860).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.layers.frame_encoders import BackboneEncoder
from vosssl.layers.slot_attention import SlotAttention
from vosssl.layers.slot_decoders import MLPDecoder
from vosssl.layers.slot_groups import ForegroundGroups
from vosssl.layers.slot_initializers import RandomInit
from vosssl.layers.slot_network import SlotNetwork, SlotTrace, trace_batch
from vosssl.layers.time_decoders import AttentionTimeDecoder, LinearTimeDecoder, SharedTimeDecoder
from vosssl.layers.transformer import TransformerEncoder
from vosssl.losses.feature_reconstruction import feature_reconstruction, future_reconstruction

TimeMode = Literal["linear", "attention", "shared"]


class DINOSAUR(SlotNetwork):
    """Frozen backbone, slot attention, MLP decoder; for video also a predictor and, if wanted, a look ahead.

    Args:
        backbone: a ViT with `dense`; None when only cached features are given.
        features_dim: width C of its patches.
        grid: (h, w) of the training frames' patches.
        num_slots: K.
        slot_dim: D.
        hidden_dims: of the decoder.
        iterations: of slot attention.
        first_iterations: on the first frame of a video.
        gru_state: what slot updates start from: `raw` slots as in the paper, or `normed` as in VideoSAUR's
            code.
        implicit: differentiate only one step of slot attention.
        video: carry slots over by a transformer predictor; otherwise clips should have one frame, and
            parameters have the names of VideoSAUR's image models.
        time_steps: frames ahead to reconstruct, such as (0, 1); only the present when left out.
        time_mode: how slots become those of each time step.
        group_counts: numbers of background and foreground slots, told apart by the class token's attention.
        group_strategy: restrict groups always, or on the initial frame only.
        backbone_precision: of the ViT.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module | None,
        features_dim: int = 768,
        grid: tuple[int, int] = (16, 16),
        num_slots: int = 7,
        slot_dim: int = 256,
        hidden_dims: Sequence[int] = (2048, 2048, 2048),
        iterations: int = 3,
        first_iterations: int | None = None,
        gru_state: Literal["normed", "raw"] = "normed",
        implicit: bool = False,
        video: bool = False,
        time_steps: Sequence[int] | None = None,
        time_mode: TimeMode = "linear",
        group_counts: tuple[int, int] | None = None,
        group_strategy: Literal["always", "initial"] = "always",
        backbone_precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__(
            encoder=BackboneEncoder(
                backbone,
                features_dim=features_dim,
                output_dim=slot_dim,
                cls_attention=group_counts is not None,
                precision=backbone_precision,
            ),
            initializer=RandomInit(num_slots, slot_dim),
            corrector=SlotAttention(
                slot_dim, slot_dim, iterations=iterations, gru_state=gru_state, implicit=implicit
            ),
            predictor=TransformerEncoder(slot_dim, 1) if video else None,
            decoder=MLPDecoder(slot_dim, features_dim, hidden_dims=hidden_dims, grid=grid),
            first_iterations=first_iterations,
            groups=None
            if group_counts is None
            else ForegroundGroups(slot_dim, counts=group_counts, strategy=group_strategy),
            time_decoder=None if time_steps is None else _time_decoder(time_mode, slot_dim, time_steps),
            video=video,
        )


def _time_decoder(mode: TimeMode, dim: int, steps: Sequence[int]) -> nn.Module:
    if mode == "shared":
        return SharedTimeDecoder(steps)
    return LinearTimeDecoder(dim, steps) if mode == "linear" else AttentionTimeDecoder(dim, steps)


class Objective:
    """Reconstruction of the backbone's features, of the present frame or of several time steps.

    Args:
        weight: of the loss.
        time_steps: as of the network; the loss is the average over the steps.

    Source: Seitzer et al., DINOSAUR, ICLR 2023, section 3; time steps: DINOSAVi
        (github.com/Interpause/dinosavi).
    """

    def __init__(self, *, weight: float = 1.0, time_steps: Sequence[int] | None = None) -> None:
        self.weight = weight
        self.time_steps = None if time_steps is None else tuple(time_steps)

    def trace(self, network: nn.Module, batch: Batch) -> SlotTrace:
        """What the loss is computed from, for monitors and pictures too."""
        return trace_batch(network, batch)

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The loss of one batch, a term per time step.

        Raises:
            ValueError: time steps asked for of a network without a time decoder.
        """
        trace = self.trace(network, batch)
        if self.time_steps is None:
            loss = feature_reconstruction(trace.reconstruction, trace.features)
            return {"feature_reconstruction": self.weight * loss}
        if trace.future is None:
            raise ValueError(f"the objective has time_steps {self.time_steps}; give the network the same")
        losses = future_reconstruction(trace.future, trace.features, steps=self.time_steps)
        share = self.weight / len(losses)
        return {f"feature_reconstruction_t{ahead}": share * loss for ahead, loss in losses.items()}
