"""Self-distillation: a student predicts what its own slow average says about other views of the same thing.

Cross-entropies over prototypes (DINO for whole views, iBOT for masked patches) and the centring and
sharpening of the teacher that keep both from collapsing.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def distillation_targets(logits: Tensor, centre: Tensor, *, temperature: float) -> Tensor:
    """What the teacher says: centred, so that no prototype wins everywhere, and sharpened.

    Args:
        logits: (..., K) of the teacher.
        centre: (K,) or (1, K), the running mean of its logits.
        temperature: small values make the targets sharp.

    Returns:
        (..., K) float32 probabilities, without gradient.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (DINO), ICCV 2021,
        section 3.1.
    """
    return ((logits.float() - centre) / temperature).softmax(dim=-1)


def self_distillation(student: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy of every student view against every teacher view of another crop.

    Args:
        student: (V, B, K) logits; its first G views are of the crops that the teacher saw too.
        targets: (G, B, K) from `distillation_targets`.
        temperature: of the student.

    Returns:
        Scalar, the mean over pairs of views and over the batch.

    Raises:
        ValueError: a single view, which has nothing to be compared with.

    Source: DINO, equation 3, and its official loss.
    """
    if len(student) < 2:
        raise ValueError("the student saw 1 view, expected at least 2 crops of an image")
    logs = (student.float() / temperature).log_softmax(dim=-1)  # (V, B, K)
    entropies = -torch.einsum("gbk,vbk->gv", targets, logs) / student.shape[1]
    same_crop = torch.eye(*entropies.shape, dtype=torch.bool, device=entropies.device)
    return entropies[~same_crop].mean()


def masked_distillation(student: Tensor, targets: Tensor, masks: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy at the patches that the student did not see and the teacher did.

    Args:
        student: (N, P, K) logits of the masked images' patches.
        targets: (N, P, K) from `distillation_targets`.
        masks: (N, P) bool, hidden from the student.
        temperature: of the student.

    Returns:
        Scalar, the mean over images of the mean over their masked patches; images without any count 0.

    Source: Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022, equation 2.
    """
    logs = (student.float() / temperature).log_softmax(dim=-1)  # (N, P, K)
    entropies = -(targets * logs).sum(dim=-1)  # (N, P)
    hidden = masks.to(entropies)
    return ((entropies * hidden).sum(dim=-1) / hidden.sum(dim=-1).clamp(min=1)).mean()


@torch.no_grad()
def moved_centre(centre: Tensor, mean: Tensor, *, momentum: float) -> Tensor:
    """The centre after a batch.

    Args:
        centre: (1, K).
        mean: (1, K) mean of the batch's teacher logits, over all processes.
        momentum: weight of the past.

    Source: DINO, equation 4.
    """
    return centre * momentum + mean * (1 - momentum)
