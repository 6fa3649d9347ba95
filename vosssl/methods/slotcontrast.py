"""SlotContrast: slots that stay the same slot from frame to frame, because a contrastive loss asks them to.

Manasyan et al., "Temporally Consistent Object-Centric Learning by Contrasting Slots", CVPR 2025 (arXiv
2412.14295).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.layers.frame_encoders import BackboneEncoder
from vosssl.layers.slot_attention import SlotAttention
from vosssl.layers.slot_decoders import MLPDecoder
from vosssl.layers.slot_initializers import LearnedInit
from vosssl.layers.slot_network import SlotNetwork, SlotTrace, trace_batch
from vosssl.layers.transformer import TransformerEncoder
from vosssl.losses.feature_reconstruction import feature_reconstruction
from vosssl.losses.slot_contrast import slot_contrast


class SlotContrast(SlotNetwork):
    """Frozen backbone, learned initial slots, slot attention with slot MLP, transformer predictor, MLP
    decoder.

    Args:
        backbone: a ViT with `dense`; None when only cached features are given.
        features_dim: width C of its patches.
        grid: (h, w) of the training frames' patches.
        num_slots: K.
        slot_dim: D.
        hidden_dims: of the decoder.
        iterations: of slot attention.
        first_iterations: on the first frame.
        backbone_precision: of the ViT.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module | None,
        features_dim: int = 384,
        grid: tuple[int, int] = (24, 24),
        num_slots: int = 11,
        slot_dim: int = 64,
        hidden_dims: Sequence[int] = (1024, 1024, 1024),
        iterations: int = 2,
        first_iterations: int = 3,
        backbone_precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__(
            encoder=BackboneEncoder(
                backbone, features_dim=features_dim, output_dim=slot_dim, precision=backbone_precision
            ),
            initializer=LearnedInit(num_slots, slot_dim),
            corrector=SlotAttention(slot_dim, slot_dim, iterations=iterations),
            predictor=TransformerEncoder(slot_dim, 1),
            decoder=MLPDecoder(slot_dim, features_dim, hidden_dims=hidden_dims, grid=grid),
            first_iterations=first_iterations,
        )


class Objective:
    """Feature reconstruction and slot-slot contrast.

    Args:
        reconstruction_weight: of feature reconstruction.
        contrast_weight: of slot-slot contrast.
        temperature: of the contrast.
        across_batch: whether the slots of other clips are negatives too.

    Source: Manasyan et al., SlotContrast, CVPR 2025, section 3.
    """

    def __init__(
        self,
        *,
        reconstruction_weight: float = 1.0,
        contrast_weight: float = 0.5,
        temperature: float = 0.1,
        across_batch: bool = True,
    ) -> None:
        self.reconstruction_weight = reconstruction_weight
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.across_batch = across_batch

    def trace(self, network: nn.Module, batch: Batch) -> SlotTrace:
        """What the loss is computed from, for monitors and pictures too."""
        return trace_batch(network, batch)

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted losses of one batch."""
        trace = self.trace(network, batch)
        reconstruction = feature_reconstruction(trace.reconstruction, trace.features)
        contrast = slot_contrast(trace.slots, temperature=self.temperature, across_batch=self.across_batch)
        return {
            "feature_reconstruction": self.reconstruction_weight * reconstruction,
            "slot_contrast": self.contrast_weight * contrast,
        }
