"""Blocks over features of objects and their frame, and attention over channels and places."""

from __future__ import annotations

import torch
from torch import nn

from vosssl.layers.cbam import CBAM
from vosssl.layers.convolution import Convolution
from vosssl.layers.object_blocks import ResidualBlock, joined


def test_parts_of_a_convolution_add_up_to_it() -> None:
    torch.manual_seed(0)
    convolution, maps = Convolution(5, 4, stride=2), torch.randn(2, 5, 6, 8)
    first = convolution.part(maps[:, :2], slice(0, 2), bias=True)
    last = convolution.part(maps[:, 2:], slice(2, None), bias=False)
    torch.testing.assert_close(first + last, convolution(maps))


def test_each_object_gets_its_own_frame() -> None:
    objects, frames = torch.arange(4.0).view(4, 1, 1, 1), torch.tensor([10.0, 20.0]).view(2, 1, 1, 1)
    assert joined(objects, frames).flatten().tolist() == [10.0, 11.0, 22.0, 23.0]


def test_a_block_from_parts_is_the_block_of_both_together() -> None:
    torch.manual_seed(0)
    block, own, frame = ResidualBlock(5, 4), torch.randn(2, 3, 2, 6, 8), torch.randn(2, 3, 6, 8)
    found = block.of_objects(own.flatten(0, 1), block.of_frame(frame)).unflatten(0, (2, 3))
    for number in range(3):
        torch.testing.assert_close(found[:, number], block(torch.cat([own[:, number], frame], dim=1)))


def test_gradients_reach_both_parts() -> None:
    block, own, frame = ResidualBlock(3, 4), torch.randn(2, 1, 6, 8), torch.randn(1, 2, 6, 8)
    own.requires_grad_()
    frame.requires_grad_()
    block.of_objects(own, block.of_frame(frame)).sum().backward()
    assert own.grad is not None and frame.grad is not None
    assert all(weight.grad is not None for weight in block.parameters())


def test_attention_lets_half_through_when_it_knows_nothing() -> None:
    attention, maps = CBAM(32), torch.randn(2, 32, 4, 5)
    for weight in attention.parameters():
        nn.init.zeros_(weight)
    torch.testing.assert_close(attention(maps), maps / 4)  # sigmoid(0) of channels, and of places
    assert next(iter(attention.state_dict())) == "ChannelGate.mlp.1.weight"
