"""Optimal assignment."""

from __future__ import annotations

import pytest
import torch

from vosssl.ops.assignment import optimal_assignment


def test_the_sum_decides_and_not_the_single_best_pair() -> None:
    rows, columns = optimal_assignment(torch.tensor([[10.0, 9.0], [9.0, 1.0]]))
    assert rows.tolist() == [0, 1]
    assert columns.tolist() == [1, 0]


def test_spare_rows_stay_out() -> None:
    rows, columns = optimal_assignment(torch.tensor([[0.1], [0.9], [0.3]]))
    assert (rows.tolist(), columns.tolist()) == ([1], [0])


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        optimal_assignment(torch.tensor([[float("nan")]]))
