from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.layers.goldens import arrays, filled, names_and_shapes, official
from vosssl.layers.transformer import Attention, PostNormPredictor, TransformerEncoder

VARIANTS: dict[str, dict[str, Any]] = {
    "one": {"blocks": 1},
    "two": {"blocks": 2, "qkv_dim": 32, "hidden_dim": 40},
    "scaled": {"blocks": 1, "heads": 2, "activation": "gelu", "residual_scale": 0.1},
    "memory": {"blocks": 2, "memory_dim": 20},
}


def test_logits_are_multiplied_by_the_root_of_the_head_width() -> None:
    attention = Attention(4, 1)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(4).repeat(3, 1))
        attention.out_proj.weight.copy_(torch.eye(4))
    tokens = torch.eye(4)[None, :2]
    weight = torch.tensor(2.0).exp() / (torch.tensor(2.0).exp() + 1)  # logits 1 * sqrt(4) and 0
    assert torch.allclose(attention(tokens)[0, 0, :2], torch.stack([weight, 1 - weight]), atol=1e-6)


def test_one_row_of_queries_serves_a_whole_batch() -> None:
    encoder = filled(TransformerEncoder(8, 2, memory_dim=8))
    queries, memory = torch.randn(1, 6, 8), torch.randn(3, 5, 8)
    assert torch.allclose(encoder(queries, memory), encoder(queries.expand(3, -1, -1), memory), atol=1e-6)


@pytest.mark.parametrize("predictor", [TransformerEncoder(8, 2), PostNormPredictor(8)])
def test_predictors_do_not_depend_on_the_order_of_slots(predictor: torch.nn.Module) -> None:
    slots, order = torch.randn(2, 5, 8), torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(predictor(slots)[:, order], predictor(slots[:, order]), atol=1e-5)


def test_savis_predictor_ends_normalised() -> None:
    predicted = PostNormPredictor(16)(torch.randn(2, 5, 16))
    assert torch.allclose(predicted.mean(-1), torch.zeros(2, 5), atol=1e-5)
    assert torch.allclose(predicted.var(-1, unbiased=False), torch.ones(2, 5), atol=1e-3)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of 3 heads"):
        TransformerEncoder(8, 1, heads=3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_official_encoder_agrees(variant: str) -> None:
    golden = arrays()
    encoder = filled(TransformerEncoder(24, **VARIANTS[variant]))
    assert names_and_shapes(encoder) == official(f"stage/predictor_{variant}")
    memory = golden["predictor/memory"] if variant == "memory" else None
    predicted = encoder(golden["predictor/slots"], memory)
    assert torch.allclose(predicted, golden[f"predictor/{variant}/out"], atol=1e-5, rtol=0)
