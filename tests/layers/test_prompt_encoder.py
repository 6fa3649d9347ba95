"""Prompts to tokens and maps: beside SAM 2's official code, and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tests.fill import filled
from tests.methods.sam2_models import assert_agrees, noise, recorded
from vosssl.layers.prompt_encoder import (
    ABSENT,
    PADDING,
    POSITIVE,
    FourierPositions,
    PromptEncoder,
    boxes_as_points,
)

PREFIX = "sam_prompt_encoder."
SIZE = (256, 256)


def official() -> PromptEncoder:
    encoder = PromptEncoder()
    names = {PREFIX + name: value for name, value in encoder.state_dict().items()}
    encoder.load_state_dict({key.removeprefix(PREFIX): value for key, value in filled(names).items()})
    return encoder.eval()


def tiny() -> PromptEncoder:
    torch.manual_seed(0)
    return PromptEncoder(8, mask_dim=4)


def test_points_boxes_and_masks_agree_with_the_official_code() -> None:
    encoder = official()
    points, labels = recorded("stage_256/prompt.coords"), recorded("stage_256/prompt.labels")
    boxes = recorded("stage_256/prompt.boxes")
    with torch.inference_mode():
        tokens = encoder.tokens(SIZE, points=points, labels=labels)
        both = encoder.tokens(SIZE, points=points, labels=labels, boxes=boxes)
        maps = encoder.maps((16, 16), masks=noise((2, 1, 64, 64), 3, 4.0))
        none = encoder.maps((16, 16)).expand(2, -1, -1, -1)
        positions = encoder.positions((16, 16))
    assert_agrees(tokens, "stage_256/prompt.points.sparse")
    assert_agrees(none, "stage_256/prompt.points.dense")
    assert_agrees(both, "stage_256/prompt.points_boxes_mask.sparse")
    assert_agrees(maps, "stage_256/prompt.points_boxes_mask.dense")
    assert_agrees(positions, "stage_256/prompt.dense_pe")


def test_a_position_is_the_sine_and_cosine_of_its_projections() -> None:
    positions = FourierPositions(1)
    positions.positional_encoding_gaussian_matrix.copy_(torch.tensor([[0.25], [0.0]]))
    code = positions(torch.tensor([1.0, 0.3]))  # x = 1 is 1 in [-1, 1], a quarter turn
    assert torch.allclose(code, torch.tensor([math.sin(math.pi / 2), math.cos(math.pi / 2)]), atol=1e-6)


def test_the_grid_has_codes_of_the_centres_of_its_places() -> None:
    encoder = tiny()
    grid = encoder.positions((2, 4))
    assert grid.shape == (1, 8, 2, 4)
    assert torch.allclose(grid[0, :, 1, 2], encoder.pe_layer(torch.tensor([2.5 / 4, 1.5 / 2])))


def test_a_padding_point_is_the_same_wherever_it_lies() -> None:
    encoder = tiny()
    labels = torch.tensor([[PADDING]])
    first = encoder.tokens(SIZE, points=torch.tensor([[[3.0, 4.0]]]), labels=labels)
    second = encoder.tokens(SIZE, points=torch.tensor([[[90.0, 7.0]]]), labels=labels)
    assert torch.equal(first, second)
    assert torch.equal(first[:, 0], encoder.not_a_point_embed.weight)


def test_boxes_are_two_points_with_labels_of_their_own() -> None:
    encoder = tiny()
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    points, labels = boxes_as_points(boxes)
    as_points = encoder.tokens(SIZE, points=points, labels=labels)
    assert torch.equal(as_points[:, :2], encoder.tokens(SIZE, boxes=boxes))
    assert as_points.shape == (1, 3, 8)


def test_an_absent_point_is_a_token_that_can_be_masked_out() -> None:
    encoder = tiny()
    tokens = encoder.tokens(SIZE, points=torch.rand(1, 2, 2) * 200, labels=torch.tensor([[POSITIVE, ABSENT]]))
    assert tokens.shape == (1, 3, 8) and tokens.isfinite().all()


def test_no_prompt_gives_no_token_and_one_map_for_everyone() -> None:
    encoder = tiny()
    assert encoder.tokens(SIZE).shape == (1, 0, 8)
    assert encoder.maps((3, 5)).shape == (1, 8, 3, 5)


def test_rows_without_a_mask_get_the_map_of_no_mask() -> None:
    encoder = tiny()
    maps = encoder.maps((4, 4), masks=noise((2, 1, 16, 16), 1), given=torch.tensor([False, True]))
    assert torch.equal(maps[:1], encoder.maps((4, 4)))
    assert not torch.equal(maps[1:], encoder.maps((4, 4)))


def test_masks_of_another_size_are_resized() -> None:
    encoder = tiny()
    constant = torch.full((1, 1, 50, 70), 2.0)
    assert torch.allclose(
        encoder.maps((4, 4), masks=constant), encoder.maps((4, 4), masks=torch.full((1, 1, 16, 16), 2.0))
    )


def test_what_does_not_fit_is_refused() -> None:
    encoder = tiny()
    with pytest.raises(ValueError, match="labels None"):
        encoder.tokens(SIZE, points=torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match=r"expected \(B, P, 2\)"):
        encoder.tokens(SIZE, points=torch.zeros(2, 2), labels=torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"expected \(B, 4\)"):
        encoder.tokens(SIZE, boxes=torch.zeros(4))
    with pytest.raises(ValueError, match="mask prompts"):
        encoder.maps((4, 4), masks=torch.zeros(16, 16))
