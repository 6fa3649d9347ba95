"""Motion features: patches that move together get the same embedding, so that looks tell objects apart.

The first stage of our slots. The teacher is optical flow: the generator's exact one, or one estimated from
the frames alone. At test time a single frame is enough.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vosssl.clip import Batch
from vosssl.data.flow import estimate_reliable_flow
from vosssl.layers.patch_embedding import PatchEmbedding
from vosssl.ops.motion_affinity import MotionPairs, motion_pairs


class MotionFeatures(PatchEmbedding):
    """Frames (N, 3, H, W), uint8 or in [0, 1], to unit-length embeddings (N, C, h, w) of 2x2 patches.

    See `PatchEmbedding` for the arguments.
    """


class Objective:
    """Contrast between patches that move together and patches that do not, within a frame and to the next.

    Clips without flow get it estimated from their frames.

    Args:
        anchors: patches per frame that are compared with all others.
        temperature: of the contrast.
        across_weight: of the contrast with the next frame.
    """

    def __init__(self, *, anchors: int = 160, temperature: float = 0.1, across_weight: float = 0.5) -> None:
        self.anchors = anchors
        self.temperature = temperature
        self.across_weight = across_weight

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted losses of one batch."""
        embeddings = network(batch.frames.flatten(0, 1))  # (B*T, C, h, w)
        grid = (embeddings.shape[-2], embeddings.shape[-1])
        flow, reliable = batch.flow, None
        if flow is None:
            flow, reliable = estimate_reliable_flow(batch.frames)
        seeds = batch.seeds if len(batch.seeds) else torch.arange(len(batch))
        within, across = motion_pairs(
            flow.float(), grid, anchors=self.anchors, seeds=seeds, reliable=reliable
        )
        patches = embeddings.flatten(2).transpose(1, 2)  # (B*T, C, h, w) -> (B*T, P, C)
        losses = {"contrast_within": motion_contrast(patches, patches, within, temperature=self.temperature)}
        if across is not None:
            clips = patches.unflatten(0, batch.frames.shape[:2])
            before, after = clips[:, :-1].flatten(0, 1), clips[:, 1:].flatten(0, 1)
            losses["contrast_across"] = self.across_weight * motion_contrast(
                before, after, across, temperature=self.temperature
            )
        return losses


def motion_contrast(patches: Tensor, others: Tensor, pairs: MotionPairs, *, temperature: float) -> Tensor:
    """Contrastive loss with many positives: each anchor shall pick the patches that move with it.

    Args:
        patches: (N, P, C) unit length, of the frames with the anchors.
        others: (N, P, C) unit length, that anchors are compared with.
        pairs: what moves with what.
        temperature: divides the similarities.

    Returns:
        Scalar, the mean over frames of the mean over anchors by their weights.

    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2, with motion instead of
        classes; patches of unknown relation take no part.
    """
    anchors = patches.gather(1, pairs.anchors[..., None].expand(-1, -1, patches.shape[-1]))  # (N, A, C)
    logits = anchors @ others.transpose(1, 2) / temperature  # (N, A, P)
    taking_part = pairs.same | pairs.different
    total = logits.masked_fill(~taking_part, -torch.inf).logsumexp(-1, keepdim=True).clamp(min=-1e4)
    picked = ((logits - total) * pairs.same).sum(-1) / pairs.same.sum(-1).clamp(min=1)
    every = -(picked * pairs.weight).sum(-1) / pairs.weight.sum(-1).clamp(min=1e-3)  # (N,)
    return every.mean()
