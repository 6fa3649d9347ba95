"""VideoSAUR: slots that predict how the features of each patch move to the next frame.

Zadaianchuk et al., "Object-Centric Learning for Real-World Videos by Predicting Temporal Feature
Similarities", NeurIPS 2023 (arXiv 2306.04829).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.layers.frame_encoders import BackboneEncoder
from vosssl.layers.slot_attention import SlotAttention
from vosssl.layers.slot_decoders import SlotMixer
from vosssl.layers.slot_initializers import RandomInit
from vosssl.layers.slot_network import SlotNetwork, SlotTrace, trace_batch
from vosssl.layers.transformer import TransformerEncoder
from vosssl.losses.feature_reconstruction import feature_reconstruction
from vosssl.losses.temporal_similarity import temporal_similarity, temporal_similarity_loss


class VideoSAUR(SlotNetwork):
    """Frozen backbone, slot attention without slot MLP, transformer predictor, slot mixer.

    Args:
        backbone: a ViT with `dense`; None when only cached features are given.
        features_dim: width C of its patches.
        grid: (h, w) of the training frames' patches; the mixer predicts a similarity to each of them.
        num_slots: K.
        slot_dim: D.
        reconstruct: whether the mixer emits C channels of features in front of the similarities.
        hidden_dims: of the mixer's renderer.
        allocator_blocks: transformer blocks of the mixer.
        iterations: of slot attention.
        first_iterations: on the first frame.
        backbone_precision: of the ViT.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module | None,
        features_dim: int = 768,
        grid: tuple[int, int] = (28, 28),
        num_slots: int = 11,
        slot_dim: int = 128,
        reconstruct: bool = False,
        hidden_dims: Sequence[int] = (1024, 1024, 1024),
        allocator_blocks: int = 2,
        iterations: int = 2,
        first_iterations: int = 3,
        backbone_precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        patches = grid[0] * grid[1]
        super().__init__(
            encoder=BackboneEncoder(
                backbone,
                features_dim=features_dim,
                output_dim=slot_dim,
                keys=True,
                precision=backbone_precision,
            ),
            initializer=RandomInit(num_slots, slot_dim),
            corrector=SlotAttention(slot_dim, slot_dim, iterations=iterations, use_mlp=False),
            predictor=TransformerEncoder(slot_dim, 1),
            decoder=SlotMixer(
                slot_dim,
                patches + features_dim if reconstruct else patches,
                grid=grid,
                hidden_dims=hidden_dims,
                blocks=allocator_blocks,
            ),
            first_iterations=first_iterations,
        )


class Objective:
    """Temporal feature similarity, and feature reconstruction where its weight is not zero.

    Args:
        similarity_weight: of the similarity loss.
        temperature: of its target.
        threshold: cosine similarities below it count as none.
        reconstruction_weight: of feature reconstruction; the network then needs `reconstruct`.

    Source: Zadaianchuk et al., VideoSAUR, NeurIPS 2023, section 3.
    """

    def __init__(
        self,
        *,
        similarity_weight: float = 0.1,
        temperature: float = 0.075,
        threshold: float = 0.0,
        reconstruction_weight: float = 0.0,
    ) -> None:
        self.similarity_weight = similarity_weight
        self.temperature = temperature
        self.threshold = threshold
        self.reconstruction_weight = reconstruction_weight

    def trace(self, network: nn.Module, batch: Batch) -> SlotTrace:
        """What the loss is computed from, for monitors and pictures too.

        Without feature reconstruction the last frame is only a target: no slots are computed for it.
        """
        slot_frames = None if self.reconstruction_weight else batch.frames.shape[1] - 1
        return trace_batch(network, batch, slot_frames=slot_frames)

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted losses of one batch.

        Raises:
            ValueError: clips of one frame, or no keys (cached features without `keys`).
        """
        if batch.frames.shape[1] < 2:
            raise ValueError(
                "the similarity loss compares consecutive frames, got clips of one; use longer clips"
            )
        trace = self.trace(network, batch)
        if trace.keys is None:
            raise ValueError("the similarity loss compares keys, but the features have none; cache keys too")
        terms = {}
        prediction = trace.reconstruction
        if self.reconstruction_weight:
            width = trace.features.shape[-1]
            loss = feature_reconstruction(prediction[..., :width], trace.features)
            terms["feature_reconstruction"] = self.reconstruction_weight * loss
            prediction = prediction[..., width:]  # (B, T, P, C + P) -> (B, T, P, P)
        target = temporal_similarity(trace.keys, temperature=self.temperature, threshold=self.threshold)
        terms["temporal_similarity"] = self.similarity_weight * temporal_similarity_loss(prediction, target)
        return terms
