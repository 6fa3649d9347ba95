"""Outputs in memory up to a limit, the rest in files."""

from __future__ import annotations

import pytest
import torch

from vosssl.methods.sam2.object_memory import Output
from vosssl.methods.sam2.output_store import OutputStore


def output(number: int) -> Output:
    """64 kB."""
    value = float(number)
    memory = torch.full((64, 16, 8), value, dtype=torch.bfloat16)
    return Output(torch.full((1, 96, 120), value), torch.full((511,), value), torch.tensor([value]), memory)


def test_what_was_not_asked_for_the_longest_goes_to_a_file_and_comes_back_as_it_was() -> None:
    store = OutputStore(0.2)  # three of them
    first, second = store.outputs(), store.outputs()
    for frame in range(10):
        first[frame], second[frame] = output(frame), output(-frame)
        assert first[0].pointer[0] == 0  # stays
        assert store.memory_mb <= 0.2
    assert list(first) == list(range(10)) and len(store._loaded) == 3
    for frame in range(10):
        for own, expected in zip(second[frame], output(-frame), strict=True):
            assert own is not None and expected is not None and torch.equal(own, expected)


def test_new_outputs_replace_those_in_files() -> None:
    store = OutputStore(0.07)  # one of them
    outputs = store.outputs()
    outputs[0], outputs[1] = output(0), output(1)
    outputs[0] = output(7)
    outputs[2] = output(2)
    assert outputs[0].pointer[0] == 7
    del outputs[1]
    with pytest.raises(KeyError):
        outputs[1]
    outputs.clear()
    assert store.memory_mb == 0 and not store._written


def test_without_a_limit_everything_stays_in_memory() -> None:
    store = OutputStore()
    outputs = store.outputs()
    for frame in range(5):
        outputs[frame] = output(frame)
    assert store._folder is None and store.memory_mb == pytest.approx(5 / 16, rel=0.02)
