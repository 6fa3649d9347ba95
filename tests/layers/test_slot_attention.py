from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.layers.goldens import arrays, filled, filled_as_dinosaur, names_and_shapes, official
from vosssl.layers.slot_attention import SlotAttention

VARIANTS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "nomlp": {"use_mlp": False},
    "kvq16": {"kvq_dim": 16, "hidden_dim": 40},
    "nogru": {"use_gru": False},
}
ORIGINAL: dict[str, dict[str, Any]] = {
    "plain": {"use_mlp": False},
    "mlp": {},
    "heads4": {"kvq_dim": 32, "heads": 4, "qkv_bias": True},
}


def test_a_single_slot_wins_everything_and_adds_the_mean_value() -> None:
    attention = SlotAttention(2, 2, use_gru=False, use_mlp=False, gru_state="raw")
    with torch.no_grad():
        attention.to_v.weight.copy_(torch.eye(2))
    patches = torch.tensor([[[1.0, 3.0], [4.0, 2.0]]])  # normalised: (-1, 1), (1, -1), mean 0
    slots, won = attention(torch.tensor([[[5.0, 7.0]]]), patches, iterations=1)
    assert torch.allclose(slots, torch.tensor([[[5.0, 7.0]]]), atol=1e-5)
    assert torch.equal(won, torch.ones(1, 1, 2))


def test_permuting_the_slots_permutes_the_result() -> None:
    attention = filled(SlotAttention(8, 6))
    slots, patches = torch.randn(2, 4, 6), torch.randn(2, 9, 8)
    order = torch.tensor([2, 0, 3, 1])
    straight, permuted = attention(slots, patches), attention(slots[:, order], patches)
    assert torch.allclose(straight.slots[:, order], permuted.slots, atol=1e-6)
    assert torch.allclose(straight.attention[:, order], permuted.attention, atol=1e-6)


def test_a_patch_that_one_slot_may_see_goes_to_it_and_one_that_none_may_see_to_none() -> None:
    attention = filled(SlotAttention(8, 6))
    visible = torch.ones(1, 3, 5, dtype=torch.bool)
    visible[:, :2, 0] = False
    visible[:, :, 4] = False
    grouping = attention(torch.randn(1, 3, 6), torch.randn(1, 5, 8), visible=visible)
    assert torch.equal(grouping.attention[0, :, 0], torch.tensor([0.0, 0.0, 1.0]))
    assert torch.equal(grouping.attention[0, :, 4], torch.zeros(3))
    assert grouping.slots.isfinite().all()


def test_an_excluded_slot_changes_nothing_for_the_others() -> None:
    attention = filled(SlotAttention(8, 6))
    slots, patches = torch.randn(1, 4, 6), torch.randn(1, 9, 8)
    visible = torch.ones(1, 4, 9, dtype=torch.bool)
    visible[:, 3] = False
    assert torch.allclose(
        attention(slots, patches, visible=visible).slots[:, :3],
        attention(slots[:, :3], patches).slots,
        atol=1e-6,
    )


def test_gradients_stay_finite_where_nothing_is_visible() -> None:
    attention = SlotAttention(8, 6)
    visible = torch.zeros(1, 4, 9, dtype=torch.bool)
    attention(torch.randn(1, 4, 6), torch.randn(1, 9, 8), visible=visible).slots.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in attention.parameters())


def test_grouping_stays_in_single_precision_under_autocast() -> None:
    attention = filled(SlotAttention(8, 6))
    with torch.autocast("cpu", torch.bfloat16):
        grouping = attention(torch.randn(1, 4, 6), torch.randn(1, 9, 8))
    assert grouping.slots.dtype == grouping.attention.dtype == torch.float32


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 3 heads"):
        SlotAttention(8, 8, heads=3)
    with pytest.raises(ValueError, match="without a GRU"):
        SlotAttention(8, 8, kvq_dim=4, use_gru=False)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_videosaurs_slot_attention_agrees(variant: str, iterations: int) -> None:
    golden = arrays()
    attention = filled(SlotAttention(32, 24, **VARIANTS[variant]))
    assert names_and_shapes(attention) == official(f"stage/sa_{variant}")
    slots, won = attention(golden["sa/slots"], golden["sa/features"], iterations=iterations)
    assert torch.allclose(slots, golden[f"sa/{variant}/slots_{iterations}"], atol=1e-5, rtol=0)
    assert torch.allclose(won, golden[f"sa/{variant}/masks_{iterations}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ORIGINAL)
def test_the_original_slot_attention_agrees(variant: str) -> None:
    golden = arrays("dinosaur")
    attention = filled_as_dinosaur(
        SlotAttention(32, 24, gru_state="raw", **ORIGINAL[variant]), f"dinosaur/sa_{variant}"
    )
    slots, won = attention(golden["sa/slots"], golden["sa/features"])
    assert torch.allclose(slots, golden[f"sa/{variant}/slots"], atol=1e-5, rtol=0)
    assert torch.allclose(won, golden[f"sa/{variant}/masks"], atol=1e-5, rtol=0)
    visible = torch.ones(1, 5, 36, dtype=torch.bool)
    visible[:, 4] = False
    masked = attention(golden["sa/slots"][:1], golden["sa/features"][:1], visible=visible).slots
    assert torch.allclose(masked, golden[f"sa/{variant}/slots_slot4_masked"], atol=1e-5, rtol=0)


def test_implicit_differentiation_agrees() -> None:
    golden = arrays("dinosaur")
    attention = filled_as_dinosaur(
        SlotAttention(32, 24, gru_state="raw", use_mlp=False, implicit=True), "dinosaur/sa_plain"
    )
    initial = golden["sa/slots"].clone().requires_grad_()
    slots = attention(initial, golden["sa/features"]).slots
    assert torch.allclose(slots, golden["sa/plain_implicit/slots"], atol=1e-5, rtol=0)
    slots.square().mean().backward()
    assert initial.grad is None
    gradient = attention.to_v.weight.grad
    assert torch.allclose(gradient.norm(), golden["sa/plain_implicit/grad_norm_to_v"], rtol=1e-5)
