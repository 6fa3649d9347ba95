"""Turns and sine codes of places."""

from __future__ import annotations

import math

import torch

from vosssl.ops.rotary import axial_rotation, rotated
from vosssl.ops.sine_positions import sine_positions


def test_the_first_half_of_the_pairs_turns_with_the_column_the_other_with_the_row() -> None:
    rotation = axial_rotation((3, 5), 4)  # one pair each, of speed 1
    place = 2 * 5 + 4  # row 2, column 4
    turns = torch.tensor([complex(math.cos(4), math.sin(4)), complex(math.cos(2), math.sin(2))])
    assert torch.allclose(rotation[place], turns)


def test_neighbouring_channels_turn_together() -> None:
    quarter = torch.full((1, 2), 1j)
    assert rotated(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), quarter).tolist() == [[-2.0, 1.0, -4.0, 3.0]]
    assert rotated(torch.ones(1, 4, dtype=torch.bfloat16), quarter).dtype == torch.bfloat16


def test_products_depend_on_where_places_are_to_each_other_only() -> None:
    torch.manual_seed(0)
    rotation = axial_rotation((4, 4), 8)
    query, key = torch.randn(8).expand(16, -1), torch.randn(8).expand(16, -1)
    products = rotated(query, rotation) @ rotated(key, rotation).T
    assert torch.allclose(products[0, 5], products[10, 15], atol=1e-5)  # one down, one right
    assert not torch.allclose(products[0, 5], products[0, 6], atol=1e-3)


def test_sine_codes_have_rows_in_the_first_half_and_columns_in_the_second() -> None:
    codes = sine_positions((2, 4), 8)
    assert codes.shape == (1, 8, 2, 4)
    assert torch.equal(codes[0, :4, 1, 0], codes[0, :4, 1, 3])
    assert torch.equal(codes[0, 4:, 0, 2], codes[0, 4:, 1, 2])
    assert torch.allclose(
        codes[0, 0, 0, 0], torch.tensor(math.sin(math.pi)), atol=1e-5
    )  # 1 of 2 rows: half a turn
    assert torch.allclose(codes[0, 5, 0, 0], torch.tensor(0.0), atol=1e-5)  # cosine of a quarter turn
