"""The largest few of long rows."""

from __future__ import annotations

import torch

from vosssl.ops.top_k import largest


def test_first_round_over_blocks_is_exact() -> None:
    scores = torch.randn(7, 1000, generator=torch.Generator().manual_seed(0))
    values, places = largest(scores, 5)
    assert torch.equal(values.sort(dim=1).values, scores.topk(5, dim=1).values.sort(dim=1).values)
    assert torch.equal(scores.gather(1, places), values)


def test_rows_shorter_than_wanted_come_whole() -> None:
    values, places = largest(torch.tensor([[3.0, 1.0]]), 5)
    assert sorted(zip(values[0].tolist(), places[0].tolist(), strict=True)) == [(1.0, 1), (3.0, 0)]
