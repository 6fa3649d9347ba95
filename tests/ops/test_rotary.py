"""Turns and sine codes of places."""

from __future__ import annotations

import math

import torch

from vosssl.ops.rotary import axial_rotation, halves_first, rotated
from vosssl.ops.sine_positions import sine_positions


def test_the_first_half_of_the_pairs_turns_with_the_column_the_other_with_the_row() -> None:
    rotation = axial_rotation((3, 5), 4)  # one pair each, of speed 1
    place = 2 * 5 + 4  # row 2, column 4
    assert torch.allclose(rotation.cosine[place], torch.tensor([math.cos(4), math.cos(2)]))
    assert torch.allclose(rotation.sine[place], torch.tensor([math.sin(4), math.sin(2)]))


def test_turning_is_the_product_of_complex_numbers() -> None:
    torch.manual_seed(0)
    rotation, tokens = axial_rotation((2, 3), 8), torch.randn(6, 8)
    pairs = torch.view_as_complex(tokens.unflatten(-1, (-1, 2))) * torch.complex(
        rotation.cosine, rotation.sine
    )
    order = halves_first(torch.arange(8))
    assert torch.allclose(rotated(tokens[:, order], rotation), torch.view_as_real(pairs).flatten(1)[:, order])


def test_products_depend_on_where_places_are_to_each_other_only() -> None:
    torch.manual_seed(0)
    rotation = axial_rotation((4, 4), 8)
    query, key = torch.randn(8).expand(16, -1), torch.randn(8).expand(16, -1)
    products = rotated(query, rotation) @ rotated(key, rotation).T
    assert torch.allclose(products[0, 5], products[10, 15], atol=1e-5)  # one down, one right
    assert not torch.allclose(products[0, 5], products[0, 6], atol=1e-3)


def test_the_same_places_can_come_several_times() -> None:
    rotation = axial_rotation((2, 2), 8)
    assert torch.equal(rotation.repeated(3).sine[4:8], rotation.sine)


def test_sine_codes_have_rows_in_the_first_half_and_columns_in_the_second() -> None:
    codes = sine_positions((2, 4), 8)
    assert codes.shape == (1, 8, 2, 4)
    assert torch.equal(codes[0, :4, 1, 0], codes[0, :4, 1, 3])
    assert torch.equal(codes[0, 4:, 0, 2], codes[0, 4:, 1, 2])
    assert torch.allclose(
        codes[0, 0, 0, 0], torch.tensor(math.sin(math.pi)), atol=1e-5
    )  # 1 of 2 rows: half a turn
    assert torch.allclose(codes[0, 5, 0, 0], torch.tensor(0.0), atol=1e-5)  # cosine of a quarter turn
