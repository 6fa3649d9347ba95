"""Similarities of places by hand, and readouts that hold where the official programs give NaN."""

from __future__ import annotations

import pytest
import torch

from vosssl.ops.memory_reading import (
    full_readout,
    memory_features,
    query_features,
    query_parts,
    top_readout,
    top_softmax,
)


def test_similarity_is_the_negative_squared_distance_without_the_querys_own_square() -> None:
    memory, query = torch.tensor([[1.0, 2.0, 0.0, 0.0]]), torch.tensor([[3.0, 1.0, 0.0, 0.0]])
    score = query_features(query, None) @ memory_features(memory, None, selects=False).mT
    assert score.item() == pytest.approx((-(4 + 1) + 10) / 2)  # -|q - m|² + |q|², over the root of 4 channels


def test_shrinkage_scales_and_selection_weights_the_channels() -> None:
    memory, query = torch.tensor([[1.0, 2.0, 0.0, 0.0]]), torch.tensor([[3.0, 1.0, 0.0, 0.0]])
    selection, shrinkage = torch.tensor([[0.5, 2.0, 1.0, 1.0]]), torch.tensor([[3.0]])
    score = query_features(query, selection) @ memory_features(memory, shrinkage, selects=True).mT
    assert score.item() == pytest.approx(-3 * (0.5 * 4 + 2 * 1) / 2)


def test_far_keys_still_share_out_a_weight_of_one() -> None:
    """Exponentials of scores below -104 are zero in float32; without their maximum taken off, 0 / 0."""
    generator = torch.Generator().manual_seed(0)
    keys = 100 * torch.randn(2, 40, 8, generator=generator)
    memory = memory_features(keys[0], torch.ones(40, 1), selects=True)
    scores = query_features(keys[1], torch.ones(40, 8)) @ memory.mT
    assert scores.max() < -104
    weights = top_softmax(scores, 5).weights
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(40))


def test_all_places_among_the_best_read_as_the_whole_memory_does() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 12, 4, generator=generator), torch.randn(12, 6, generator=generator)
    queries, memory = query_features(keys[0], None), memory_features(keys[1], None, selects=False)
    whole = full_readout(queries[None], memory[None], values[None])[0]
    for top_k in (12, 30, None):  # fewer places than asked for are no error
        torch.testing.assert_close(top_readout(top_softmax(queries @ memory.mT, top_k), values), whole)


def test_parts_of_the_queries_are_all_of_them_once() -> None:
    parts = query_parts(1000, 1 << 18, torch.device("cpu"))
    assert len(parts) > 1
    assert [number for part in parts for number in range(1000)[part]] == list(range(1000))
