"""Sizes: nothing moves, nothing is invented."""

from __future__ import annotations

import pytest
import torch

from vosssl.ops.resize import (
    pad,
    padding_to,
    resize_image,
    resize_labels,
    resize_masks,
    resize_to_longest,
    sample_points,
    shorter_side,
    unpad,
)


def test_labels_twice_as_large_repeat_each_pixel() -> None:
    labels = torch.tensor([[1, 200], [0, 7]], dtype=torch.uint8)
    expected = labels.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(resize_labels(labels, (4, 4)), expected)
    assert torch.equal(resize_labels(expected, (2, 2)), labels)


@pytest.mark.parametrize("size", [(7, 5), (64, 64), (13, 100)])
def test_resized_labels_equal_nearest_exact_interpolation(size: tuple[int, int]) -> None:
    labels = torch.randint(0, 256, (31, 47), generator=torch.Generator().manual_seed(0)).byte()
    reference = torch.nn.functional.interpolate(labels[None, None].float(), size=size, mode="nearest-exact")
    assert torch.equal(resize_labels(labels, size), reference[0, 0].byte())


def test_masks_that_sum_to_one_still_do() -> None:
    masks = torch.rand(2, 4, 5, 6, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    resized = resize_masks(masks, (17, 23))
    assert resized.shape == (2, 4, 17, 23)
    torch.testing.assert_close(resized.sum(dim=1), torch.ones(2, 17, 23))


def test_shrinking_an_image_averages_it() -> None:
    stripes = torch.zeros(3, 64, 64)
    stripes[:, ::2] = 1
    shrunk = resize_image(stripes, (8, 8))
    assert (shrunk[:, 1:-1] - 0.5).abs().max() < 0.05


def test_the_same_size_is_the_same_tensor() -> None:
    image = torch.rand(3, 5, 5)
    assert resize_image(image, (5, 5)) is image


def test_the_shorter_side_is_limited_and_the_aspect_kept() -> None:
    assert shorter_side((480, 854), 240) == (240, 427)
    assert shorter_side((480, 854), 600) == (480, 854)


def test_padding_comes_off_again() -> None:
    image = torch.rand(3, 13, 30)
    padding = padding_to((13, 30), 16)
    padded = pad(image, padding, value=0.5)
    assert padded.shape == (3, 16, 32)
    assert padding == (1, 1, 1, 2)
    assert torch.equal(unpad(padded, padding), image)


def test_points_between_pixels_are_interpolated_and_beyond_the_border_is_nothing() -> None:
    maps = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [1.0, 0.75], [2.0, 2.0]]])
    assert sample_points(maps, points).tolist() == [[[0.0, 4.0, 6.0, 6.0, 0.0]]]


def test_the_longer_side_is_what_was_asked_for_and_bytes_stay_bytes() -> None:
    image = torch.rand(3, 30, 40)
    assert resize_to_longest(image, 20).shape == (3, 15, 20)
    assert resize_to_longest(image.transpose(1, 2), 80).shape == (3, 80, 60)
    whole = (image * 255).round().byte()
    found = resize_to_longest(whole, 20)
    assert found.dtype == torch.uint8
    torch.testing.assert_close(found / 255, resize_to_longest(whole / 255, 20), atol=1.01 / 255, rtol=0)
    assert resize_to_longest(torch.rand(3, 1, 400), 20).shape == (3, 1, 20)
