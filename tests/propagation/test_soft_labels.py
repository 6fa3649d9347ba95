"""Soft labels by hand: spread through features, fused, renamed."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vosssl.propagation.soft_labels import SoftLabels, fuse, rename_rows, renamed, spread
from vosssl.propagation.source_memory import Attend


def test_spread_follows_labels_through_features() -> None:
    features = F.normalize(torch.eye(2)[torch.tensor([[[0, 1, 1]], [[1, 0, 1]], [[1, 1, 0]]])], dim=-1)
    labels = torch.tensor([[7, 0, 0]], dtype=torch.uint8)
    found = [soft.labels.tolist() for soft in spread(features, labels, Attend(radius=0, top_k=1))]
    assert found == [[[7, 0, 0]], [[0, 7, 0]], [[0, 0, 7]]]


def test_fusion_by_hand() -> None:
    first = SoftLabels(torch.tensor([[[0.4, 0.6]]]), (1,))
    second = SoftLabels(torch.tensor([[[0.2, 0.3, 0.5]]]), (1, 2))
    fused = fuse(first, second, share=0.25)
    # the first does not know 2: its background 0.4 is half 2's
    torch.testing.assert_close(fused.rows, torch.tensor([[[0.2, 0.525, 0.275]]]))
    assert fused.ids == (1, 2)


def test_other_ids_keep_rows_and_labels_together() -> None:
    soft = SoftLabels(torch.tensor([[[0.1, 0.2, 0.7]]]), (3, 5))
    other = rename_rows(soft, {5: 1})
    assert other.ids == (1, 3) and other.labels.tolist() == [[1]]
    assert renamed(torch.tensor([[0, 3, 5]], dtype=torch.uint8), {5: 1}).tolist() == [[0, 3, 1]]
