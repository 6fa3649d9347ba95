"""The two-way transformer and the attention in it: what batches of one, masks and names must do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vosssl.layers.channel_norm import ChannelNorm
from vosssl.layers.linear_stack import LinearStack
from vosssl.layers.projected_attention import ProjectedAttention
from vosssl.layers.two_way_transformer import LinearPair, TwoWayTransformer


def tiny(**options: object) -> TwoWayTransformer:
    torch.manual_seed(0)
    return TwoWayTransformer(16, heads=2, feed_forward_dim=32, **options)  # type: ignore[arg-type]


def test_attention_is_the_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    attention = ProjectedAttention(6, 2, memory_dim=4, inner_dim=8)
    queries, memory = torch.randn(1, 3, 6), torch.randn(1, 5, 4)
    heads = [
        projection(tokens).unflatten(-1, (2, 4)).transpose(1, 2)
        for projection, tokens in (
            (attention.q_proj, queries),
            (attention.k_proj, memory),
            (attention.v_proj, memory),
        )
    ]
    weights = (heads[0] @ heads[1].transpose(2, 3) / 2).softmax(dim=-1)  # sqrt(4) = 2
    expected = attention.out_proj((weights @ heads[2]).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(queries, memory, memory), expected, atol=1e-6)


def test_a_batch_of_one_stands_for_equal_rows() -> None:
    network = tiny()
    image, positions, tokens = torch.randn(1, 16, 3, 4), torch.randn(1, 16, 3, 4), torch.randn(5, 2, 16)
    once = network(image, positions, tokens)
    repeated = network(image.repeat(5, 1, 1, 1), positions, tokens)
    assert once[1].shape == (5, 12, 16)
    for shared, own in zip(once, repeated, strict=True):
        assert torch.allclose(shared, own, atol=1e-6)


def test_masked_tokens_change_nothing() -> None:
    network = tiny()
    image, positions, tokens = torch.randn(2, 16, 3, 4), torch.randn(1, 16, 3, 4), torch.randn(2, 5, 16)
    mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    together_tokens, together_image = network(image, positions, tokens, mask=mask)
    alone_tokens, alone_image = network(image[:1], positions, tokens[:1, :3])
    assert torch.allclose(together_tokens[:1, :3], alone_tokens, atol=1e-5)
    assert torch.allclose(together_image[:1], alone_image, atol=1e-5)


def test_both_families_names_of_the_feed_forward_network_compute_the_same() -> None:
    ours, theirs = tiny(), tiny(feed_forward=LinearPair)
    state = {
        key.replace("mlp.layers.0", "mlp.lin1").replace("mlp.layers.1", "mlp.lin2"): value
        for key, value in ours.state_dict().items()
    }
    theirs.load_state_dict(state)
    image, positions, tokens = torch.randn(1, 16, 3, 4), torch.randn(1, 16, 3, 4), torch.randn(1, 2, 16)
    for first, second in zip(ours(image, positions, tokens), theirs(image, positions, tokens), strict=True):
        assert torch.equal(first, second)


def test_gradients_reach_image_and_tokens() -> None:
    image, tokens = torch.randn(1, 16, 3, 4, requires_grad=True), torch.randn(2, 2, 16, requires_grad=True)
    seen, _ = tiny()(image, torch.randn(1, 16, 3, 4), tokens)
    seen.square().sum().backward()
    assert image.grad is not None and tokens.grad is not None
    assert image.grad.abs().sum() > 0 and tokens.grad.abs().sum() > 0


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of 3 heads"):
        ProjectedAttention(16, 3)


def test_a_stack_counts_its_linear_layers_alone() -> None:
    stack = LinearStack(3, 2, hidden_dim=5, depth=3)
    assert [name for name, _ in stack.named_parameters()][::2] == [f"layers.{i}.weight" for i in range(3)]
    first, second, third = stack.layers
    inputs = torch.randn(4, 3)
    assert torch.equal(stack(inputs), third(F.relu(second(F.relu(first(inputs))))))


def test_channel_norm_makes_each_place_zero_mean_and_unit_variance() -> None:
    normed = ChannelNorm(32)(torch.randn(2, 32, 3, 4) * 5 + 1)
    assert torch.allclose(normed.mean(dim=1), torch.zeros(2, 3, 4), atol=1e-5)
    assert torch.allclose(normed.var(dim=1, unbiased=False), torch.ones(2, 3, 4), atol=1e-3)
