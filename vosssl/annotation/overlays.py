"""Pictures that the page lays over a frame."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from vosssl.engine.drawing import id_colors

ALPHA = 105  # of masks; their borders are opaque
SECOND = (255, 120, 255, 255)  # BGR and alpha of the second source's outlines: the violet of the timeline


def painted(labels: Tensor, *, draft: Tensor | None = None) -> np.ndarray:
    """Labels as a transparent picture.

    Args:
        labels: (H, W) uint8 ids.
        draft: (H, W) bool, which is dashed.

    Returns:
        (H, W, 4) uint8, BGR and alpha.
    """
    ids = labels.numpy()
    edge = _edges(ids)
    alpha = np.where(ids > 0, np.where(edge, 255, ALPHA), 0).astype(np.uint8)
    picture = np.dstack([id_colors().flip(1).numpy()[ids], alpha])
    if draft is not None:
        rows, columns = np.indices(ids.shape)
        dashes = draft.numpy() & edge & ((rows + columns) // 4 % 2 == 0)
        picture[dashes] = 255
    return picture


def outlined(labels: Tensor) -> np.ndarray:
    """Borders of labels (H, W) uint8 as a transparent picture (H, W, 4) uint8, BGR and alpha."""
    ids = labels.numpy()
    picture = np.zeros((*ids.shape, 4), np.uint8)
    picture[_edges(ids) & (ids > 0)] = SECOND
    return picture


def encoded(kind: str, pixels: np.ndarray) -> bytes:
    """A picture (H, W, C) uint8, BGR or BGR and alpha, as a file; `kind` is its suffix."""
    return cv2.imencode(kind, pixels)[1].tobytes()


def _edges(ids: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels with a neighbour of another id."""
    edge = np.zeros(ids.shape, bool)
    edge[1:] |= ids[1:] != ids[:-1]
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    return edge
