"""One video at several sizes at once: probabilities are averaged frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vosssl.propagation.segmenter import Prompt, Prompted, VideoSegmenter


class MultiScale(VideoSegmenter):
    """Segmenters that see the same frames and prompts, each at its size and with a memory of its own.

    Args:
        segmenters: two or more of one method, on one device.

    Source: the evaluation with merged scales of Cheng et al., Cutie, CVPR 2024, made while the video runs.
    """

    def __init__(self, segmenters: Sequence[VideoSegmenter]) -> None:
        if not segmenters:
            raise ValueError("no segmenters to average; give one per scale")
        super().__init__(device=segmenters[0].device)
        self.segmenters = list(segmenters)
        self.prompt_kinds = segmenters[0].prompt_kinds  # type: ignore[misc]
        self._prompt: Prompt | None = None

    def forget(self) -> None:
        for segmenter in self.segmenters:
            segmenter.reset()

    def step(self, frame: Tensor, prompt: Prompt | None = None) -> Tensor:
        """See `VideoSegmenter.step`."""
        self._prompt = prompt
        return super().step(frame, prompt)

    def segment(self, frame: Tensor, prompted: Prompted | None) -> Tensor:
        for segmenter in self.segmenters:
            segmenter.step(frame, self._prompt)
        return torch.stack([segmenter.probabilities for segmenter in self.segmenters]).mean(0)


def at_scales(make: Callable[[float], VideoSegmenter], scales: Sequence[float]) -> VideoSegmenter:
    """One segmenter for one scale, their average for several.

    Args:
        make: a segmenter that sees frames scaled by a factor.
        scales: factors.

    Raises:
        ValueError: no scale, or one that is not positive.
    """
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales are {list(scales)}, expected one or more positive factors, such as 1.0")
    return make(scales[0]) if len(scales) == 1 else MultiScale([make(scale) for scale in scales])
