"""How far two segmenters are from each other on a clip: one in PyTorch, the other exported or quantised."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vosssl.clip import Clip
from vosssl.metrics.region_boundary import paired_frame_jf
from vosssl.propagation.segmenter import VideoSegmenter


class Followed(NamedTuple):
    """What a segmenter made of a clip.

    Attributes:
        labels: (T, H, W) uint8.
        probabilities: (N + 1, H, W) of each frame.
        seconds: of each frame.
    """

    labels: Tensor
    probabilities: list[Tensor]
    seconds: list[float]


class Agreement(NamedTuple):
    """How alike two results are.

    Attributes:
        difference: the largest of any probability.
        equal: share of equal labels.
        j_and_f: J&F of one's labels taken as the truth of the other's, over frames and objects.
    """

    difference: float
    equal: float
    j_and_f: float


def followed(
    segmenter: VideoSegmenter, clip: Clip, *, clock: Callable[[], float] = time.perf_counter
) -> Followed:
    """Runs a segmenter over a clip; one that cannot discover gets the first frame's labels.

    Args:
        segmenter: at rest.
        clip: with labels, if it needs them.
        clock: that seconds are taken from; `time.process_time` counts those of this process alone.

    Raises:
        ValueError: it needs labels, and the clip has none.
    """
    prompt = None
    if not segmenter.discovers:
        if clip.labels is None:
            raise ValueError(
                f"clip {clip.name} has no labels; {type(segmenter).__name__} needs the first frame's"
            )
        prompt = clip.labels[0]
    segmenter.reset()
    labels, probabilities, seconds = [], [], []
    for frame in clip.frames:
        began = clock()
        labels.append(segmenter.step(frame, prompt))
        seconds.append(clock() - began)
        probabilities.append(segmenter.probabilities)
        prompt = None
    return Followed(torch.stack(labels), probabilities, seconds)


def agreement(one: Followed, other: Followed) -> Agreement:
    """Compares two results of one clip; frames after the first, which may be given.

    Returns:
        The agreement; nothing in common where they have different objects.
    """
    pairs = list(zip(one.probabilities, other.probabilities, strict=True))
    if any(mine.shape != theirs.shape for mine, theirs in pairs):
        return Agreement(1.0, float((one.labels == other.labels).float().mean()), j_and_f(one, other.labels))
    difference = max(float((mine - theirs).abs().max()) for mine, theirs in pairs)
    equal = float((one.labels == other.labels).float().mean())
    return Agreement(difference, equal, j_and_f(one, other.labels))


def j_and_f(result: Followed, truth: Tensor) -> float:
    """Mean J&F of a result against labels (T, H, W), over the truth's objects, frames after the first."""
    ids = [int(identity) for identity in truth.unique() if 0 < identity < 255]
    if not ids or len(truth) < 2:
        return 1.0 if torch.equal(result.labels, truth) else 0.0
    scores = [
        paired_frame_jf(mine, theirs, ids) for mine, theirs in zip(result.labels[1:], truth[1:], strict=True)
    ]
    return float(torch.stack([(score.j.mean() + score.f.mean()) / 2 for score in scores]).mean())
