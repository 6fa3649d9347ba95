"""The table of what fits: by hand where that can be done, and what has to grow grows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from vosssl.engine.memory_forecast import LiveBytes, MemoryForecast

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(SCRIPTS)
    import memory_table

    yield memory_table
    sys.modules.pop("memory_table", None)


def test_clips_fill_what_weights_and_cuda_leave_of_a_card(table: ModuleType) -> None:
    forecast = MemoryForecast(program=9, weights=2**30, gradients=2**29, optimizer=2**29, activations=2**30)
    assert [table.clips_that_fit(forecast, card) for card in (3, 4, 8)] == [0, 1, 5]
    assert table.clips_that_fit(forecast, 2) == 0


def test_fused_attention_needs_no_more_than_its_result(table: ModuleType) -> None:
    query, value = torch.empty(2, 1000, 8, device="meta"), torch.empty(2, 1000, 4, device="meta")
    with LiveBytes([query, value]) as counter, table.FusedAttention():
        read = F.scaled_dot_product_attention(query, query, value)
    assert read.shape == (2, 1000, 4)
    assert counter.peak == 2 * 1000 * 4 * 4


def test_following_more_objects_on_larger_frames_needs_more(table: ModuleType) -> None:
    few, more, larger = (
        table.following("cutie-small", size=(side, 96), objects=objects, frames=2)
        for side, objects in ((64, 1), (64, 4), (128, 4))
    )
    assert few < more < larger < 2 * more + table.MB


def test_a_model_that_needs_content_is_computed(table: ModuleType) -> None:
    assert 0 < table.computing("slots-synthetic", size=(48, 64), objects=2) < 50 * table.MB


def test_the_dry_run_of_a_recipe_names_its_parts(table: ModuleType) -> None:
    forecast, recipe = table.training("cutie_tiny")
    assert recipe.train.batch_size > 1
    assert forecast.optimizer == 2 * forecast.gradients > 0 and forecast.activations > 0


def test_a_table_is_markdown(table: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    table.print_row("`a`", ["1", "2"])
    assert capsys.readouterr().out == "| `a` | 1 | 2 |\n"
