"""Temporal feature similarity: slots predict where each patch's features go in the next frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def similarity_logits(
    source: Tensor,
    target: Tensor,
    *,
    temperature: float,
    threshold: float | None = 0.0,
    floor: float = -torch.inf,
    mask_diagonal: bool = False,
) -> Tensor:
    """Cosine similarities over a temperature.

    Args:
        source: (..., P, C).
        target: (..., Q, C).
        temperature: divides the similarities.
        threshold: similarities below it become `floor`, before the division; None keeps all.
        floor: stands for maximal dissimilarity.
        mask_diagonal: set the diagonal to `floor`, after the division.

    Returns:
        (..., P, Q).
    """
    similarity = F.normalize(source, dim=-1) @ F.normalize(target, dim=-1).transpose(-2, -1)
    if threshold is not None:
        similarity.masked_fill_(similarity < threshold, floor)  # in place: P x Q is large
    logits = similarity.div_(temperature)
    if mask_diagonal:
        diagonal = torch.eye(logits.shape[-2], logits.shape[-1], dtype=torch.bool, device=logits.device)
        logits.masked_fill_(diagonal, floor)
    return logits


def similarity_distribution(logits: Tensor) -> Tensor:
    """Softmax over the last axis of `similarity_logits`; rows without any similar patch become uniform."""
    empty = torch.isneginf(logits.amax(dim=-1, keepdim=True))
    return logits.softmax(dim=-1).masked_fill_(empty, 1.0 / logits.shape[-1])


@torch.no_grad()
def temporal_similarity(
    keys: Tensor, *, temperature: float, threshold: float | None = 0.0, shift: int = 1
) -> Tensor:
    """Where each patch's features are found some frames later.

    Args:
        keys: (B, T, P, C) features whose similarity shows motion: the keys of a ViT's last block.
        temperature: small values make the target sharp.
        threshold: cosine similarities below it count as none.
        shift: frames between source and target.

    Returns:
        (B, T - shift, P, P) probabilities over the patches of the later frame, without gradient.

    Raises:
        ValueError: clips that end before the later frame.

    Source: Zadaianchuk et al., "Object-Centric Learning for Real-World Videos by Predicting Temporal Feature
        Similarities" (VideoSAUR), NeurIPS 2023, section 3.1.
    """
    if keys.shape[1] <= shift:
        raise ValueError(
            f"keys are of clips of {keys.shape[1]} frames, expected more than {shift} to look ahead; "
            "use longer clips"
        )
    with torch.autocast(keys.device.type, enabled=False):  # a small temperature magnifies rounding
        keys = keys.float()
        logits = similarity_logits(
            keys[:, :-shift], keys[:, shift:], temperature=temperature, threshold=threshold
        )
        return similarity_distribution(logits)


def temporal_similarity_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy between predicted and observed similarities, averaged over clips, frames and patches.

    Args:
        prediction: (B, T, P, P) logits per frame; frames behind the last target are left out.
        target: (B, T', P, P) from `temporal_similarity`, T' < T.

    Returns:
        A scalar.

    Source: VideoSAUR, NeurIPS 2023, equation 5.
    """
    prediction = prediction[:, : target.shape[1]]
    return F.cross_entropy(prediction.flatten(0, 2), target.detach().flatten(0, 2))
