"""Rows of a batch, one by one where that is faster."""

from __future__ import annotations

import torch

from vosssl.ops.row_blocks import goes_in_blocks, row_blocks


def test_rows_go_one_by_one_on_a_cpu_and_together_in_training() -> None:
    with torch.no_grad():
        assert row_blocks(3, torch.zeros(1)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert row_blocks(3, torch.zeros(1)) == [slice(0, 3)]
    assert not goes_in_blocks(torch.zeros(1))
