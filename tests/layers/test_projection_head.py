"""The head of self-distillation."""

from __future__ import annotations

import torch

from vosssl.layers.projection_head import ProjectionHead


def test_logits_are_cosines_whatever_the_prototypes_length() -> None:
    head = ProjectionHead(8, hidden_dim=16, bottleneck_dim=4, prototypes=10)
    tokens = torch.randn(3, 5, 8)
    logits = head(tokens)
    assert logits.shape == (3, 5, 10)
    assert logits.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.prototypes.mul_(7.0)
    assert torch.allclose(head(tokens), logits, atol=1e-6)


def test_frozen_prototypes_get_a_gradient_of_zero() -> None:
    head = ProjectionHead(8, hidden_dim=16, bottleneck_dim=4, prototypes=10)
    tokens = torch.randn(3, 8)
    assert torch.allclose(head(tokens, frozen_prototypes=True), head(tokens))
    head(tokens, frozen_prototypes=True).square().sum().backward()
    assert head.prototypes.grad is not None
    assert (head.prototypes.grad == 0).all()
    assert head.mlp[0].weight.grad.abs().sum() > 0
