"""Contrastive random walk: who walks to the future and back shall arrive where it started."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

DROPPED = -1e20  # affinity of an edge that nobody takes, before the division by the temperature
EPSILON = 1e-20  # keeps the logarithm of a probability finite


class WalkLoss(NamedTuple):
    """The loss of a batch of walks.

    Attributes:
        loss: scalar, the mean over cycles.
        cross_entropy: (cycles,) mean over starts and clips, shortest cycle first.
        accuracy: (cycles,) share of starts whose most probable end is themselves, without gradient.
    """

    loss: Tensor
    cross_entropy: Tensor
    accuracy: Tensor


def affinities(nodes: Tensor) -> Tensor:
    """Inner products of every node with those of the next frame.

    Args:
        nodes: (B, C, T, N), unit length over C for cosine similarities.

    Returns:
        (B, T - 1, N, N), from a row's node to a column's.
    """
    by_frame = nodes.permute(0, 2, 3, 1)  # (B, C, T, N) -> (B, T, N, C)
    return by_frame[:, :-1] @ by_frame[:, 1:].transpose(-2, -1)


def transitions(affinity: Tensor, *, temperature: float, dropped: Tensor | None = None) -> Tensor:
    """Probabilities of the next step.

    Args:
        affinity: (..., N, N), from a row's node to a column's.
        temperature: of the softmax.
        dropped: bool of the same shape, edges that cannot be taken; None: all can. Where a node loses all of
            them, every one is equally likely.

    Returns:
        (..., N, N), rows sum to 1.
    """
    if dropped is not None:
        affinity = affinity.masked_fill(dropped, DROPPED)
    return (affinity / temperature).softmax(dim=-1)


def palindromes(forward: Tensor, backward: Tensor, *, shortest: int = 2, flip: bool = False) -> list[Tensor]:
    """Walks to a later frame and back to the start, one for every length.

    Args:
        forward: (B, T - 1, N, N) transitions from frame t to t + 1.
        backward: (B, T - 1, N, N) transitions from frame t + 1 to t.
        shortest: steps out of the shortest walk; the official program leaves a -> b -> a out.
        flip: multiply in the reverse order, which is a bug of the program that the paper's numbers came from:
            the rows of one step then meet the columns of another, so nodes are shuffled between frames.

    Returns:
        (B, N, N) each, of `shortest` to T - 1 steps out.
    """
    walks = []
    out, home = forward[:, 0], backward[:, 0]
    for steps in range(1, forward.shape[1] + 1):
        if steps > 1:
            ahead, back = forward[:, steps - 1], backward[:, steps - 1]
            out, home = (ahead @ out, home @ back) if flip else (out @ ahead, back @ home)
        if steps >= shortest:
            walks.append(home @ out if flip else out @ home)
    return walks


def random_walk_loss(
    nodes: Tensor,
    *,
    temperature: float = 0.07,
    dropped: tuple[Tensor, Tensor] | None = None,
    shortest: int = 2,
    flip: bool = False,
) -> WalkLoss:
    """Cross-entropy of the ends of palindrome walks against their starts.

    Args:
        nodes: (B, C, T, N) float, unit length over C.
        temperature: of every step's softmax.
        dropped: edges that cannot be taken on the way out and on the way home, (B, T - 1, N, N) bool each; a
            row is the node that is left. None: all can.
        shortest: see `palindromes`.
        flip: see `palindromes`.

    Returns:
        The loss.

    Raises:
        ValueError: shapes that do not fit, or too few frames for the shortest walk.

    Source: Jabri et al., "Space-Time Correspondence as a Contrastive Random Walk", NeurIPS 2020, section
        2; which cycles count, and the epsilon, are from the authors' program.
    """
    if nodes.ndim != 4 or not 1 <= shortest < nodes.shape[2]:
        raise ValueError(
            f"nodes are {tuple(nodes.shape)} and the shortest walk is {shortest} steps out, expected "
            f"(B, C, T, N) with T above {shortest}"
        )
    affinity = affinities(nodes)  # (B, T - 1, N, N)
    if dropped is not None and any(edges.shape != affinity.shape for edges in dropped):
        shapes = [tuple(edges.shape) for edges in dropped]
        raise ValueError(f"dropped edges are {shapes}, expected {tuple(affinity.shape)} each")
    there, home = dropped or (None, None)
    forward = transitions(affinity, temperature=temperature, dropped=there)
    backward = transitions(affinity.transpose(-2, -1), temperature=temperature, dropped=home)
    walks = torch.stack(palindromes(forward, backward, shortest=shortest, flip=flip))  # (cycles, B, N, N)
    logits = (walks + EPSILON).log()
    starts = torch.arange(nodes.shape[-1], device=nodes.device).expand(walks.shape[:-1])
    each = F.cross_entropy(logits.flatten(0, -2), starts.flatten(), reduction="none").view(starts.shape)
    cross_entropy = each.mean(dim=(1, 2))  # (cycles, B, N) -> (cycles,)
    accuracy = (logits.detach().argmax(-1) == starts).float().mean(dim=(1, 2))
    return WalkLoss(cross_entropy.mean(), cross_entropy, accuracy)
