from __future__ import annotations

import torch

from vosssl.ops.foreground import foreground_from_cls_attention


def test_the_part_that_is_looked_at_is_foreground() -> None:
    attention = torch.full((1, 2, 10), 0.01)
    attention[:, :, 3:5] = 0.4
    assert foreground_from_cls_attention(attention)[0].nonzero().flatten().tolist() == [3, 4]


def test_a_head_that_singles_out_little_outweighs_one_that_takes_most() -> None:
    attention = torch.zeros(1, 2, 10)
    attention[0, 0, :1] = 0.5  # a tenth of the image
    attention[0, 1, 1:] = 0.1  # the other nine
    assert foreground_from_cls_attention(attention)[0].nonzero().flatten().tolist() == [0]


def test_scaling_the_attention_changes_nothing() -> None:
    attention = torch.rand(3, 6, 20)
    straight = foreground_from_cls_attention(attention)
    assert torch.equal(straight, foreground_from_cls_attention(7 * attention))
