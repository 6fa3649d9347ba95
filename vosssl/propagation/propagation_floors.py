"""What learned features have to beat when they follow masks: the same matches on colours, and untrained."""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.propagation.label_propagation import FeatureMap, LabelPropagation


class ColourMap:
    """Mean colours on the grid that another feature map has.

    Args:
        feature_map: of the network whose grid it is.
    """

    def __init__(self, feature_map: FeatureMap) -> None:
        self.feature_map = feature_map
        self._grids: dict[tuple[int, ...], tuple[int, int]] = {}  # by the image's shape

    def __call__(self, network: nn.Module, image: Tensor) -> Tensor:
        """(h, w, 3) means of an image (1, 3, H, W)."""
        shape = tuple(image.shape)
        if shape not in self._grids:
            height, width = self.feature_map(network, image).shape[:2]
            self._grids[shape] = (height, width)
        return F.adaptive_avg_pool2d(image, self._grids[shape])[0].permute(1, 2, 0)  # (3, h, w) -> (h, w, 3)


def colour_propagation(segmenter: LabelPropagation) -> LabelPropagation:
    """The same settings with mean colours of the patches for features.

    Args:
        segmenter: stays as it is.

    Returns:
        Another one, with a memory of its own.
    """
    twin = copy.copy(segmenter)
    twin.feature_map = ColourMap(segmenter.feature_map)
    twin.forget()
    twin.reset()
    return twin
