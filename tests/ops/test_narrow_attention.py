"""Attention with narrow values beside PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vosssl.ops import narrow_attention as module
from vosssl.ops.narrow_attention import narrow_attention


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("block", [2, 1024])
def test_it_computes_what_pytorch_does(batch: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    torch.manual_seed(0)
    query, key, values = torch.randn(3, 5, 8), torch.randn(batch, 6, 8), torch.randn(batch, 6, 2)
    mask = torch.rand(batch, 6) > 0.3
    expected = F.scaled_dot_product_attention(
        query, key.expand(3, -1, -1), values.expand(3, -1, -1), attn_mask=mask[:, None].expand(3, 1, -1)
    )
    assert torch.allclose(narrow_attention(query, key, values, mask=mask), expected, atol=1e-6)


def test_one_row_of_queries_may_look_at_many_memories() -> None:
    torch.manual_seed(0)
    query, key, values = torch.randn(1, 5, 8), torch.randn(3, 6, 8), torch.randn(3, 6, 2)
    repeated = narrow_attention(query.expand(3, -1, -1), key, values)
    assert torch.allclose(narrow_attention(query, key, values), repeated)


def test_equal_keys_give_the_mean_of_the_values() -> None:
    values = torch.tensor([[[1.0], [3.0]]])
    assert torch.allclose(
        narrow_attention(torch.ones(1, 1, 4), torch.ones(1, 2, 4), values), torch.tensor([[[2.0]]])
    )
