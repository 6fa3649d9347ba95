"""Dice from the intersection over union."""

from __future__ import annotations

import pytest
import torch

from vosssl.metrics.dice import dice_of_jaccard


def test_dice_by_hand() -> None:
    """Masks of 4 and 6 pixels that share 3: J = 3 / 7, Dice = 6 / 10."""
    values = dice_of_jaccard(torch.tensor([3 / 7, 0.0, 1.0]))
    assert values.tolist() == pytest.approx([0.6, 0.0, 1.0])
