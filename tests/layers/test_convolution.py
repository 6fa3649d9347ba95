"""The convolution that is faster where nothing is learnt."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosssl.layers.convolution import Convolution


def direct(layer: Convolution, maps: Tensor) -> Tensor:
    return F.conv2d(maps, layer.weight, layer.bias, padding=1)


def test_the_faster_way_gives_the_same_numbers() -> None:
    layer, maps = Convolution(128, 128).eval(), torch.randn(1, 128, 24, 25)
    with torch.no_grad():
        torch.testing.assert_close(layer(maps), direct(layer, maps), rtol=1e-4, atol=3e-5)
    assert layer._prepared is not None and layer._prepared.kernels is not None


def test_gradients_take_the_direct_way() -> None:
    layer, maps = Convolution(128, 128), torch.randn(1, 128, 24, 25)
    assert torch.equal(layer(maps), direct(layer, maps))
    layer(maps).sum().backward()
    assert layer.weight.grad is not None and layer._prepared is None


def test_small_maps_and_narrow_layers_take_the_direct_way() -> None:
    with torch.no_grad():
        for layer, size in ((Convolution(128, 128), 12), (Convolution(32, 128), 30)):
            maps = torch.randn(1, layer.in_channels, size, size)
            assert torch.equal(layer(maps), direct(layer, maps))


def test_weights_that_changed_are_transformed_anew() -> None:
    layer, maps = Convolution(128, 128).eval(), torch.randn(1, 128, 24, 25)
    with torch.no_grad():
        layer(maps)
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(maps), direct(layer, maps), rtol=1e-4, atol=6e-5)
        layer.load_state_dict({name: value + 0.01 for name, value in layer.state_dict().items()})
        torch.testing.assert_close(layer(maps), direct(layer, maps), rtol=1e-4, atol=1e-4)
    layer.train()
    assert layer._prepared is None


def test_its_state_is_that_of_a_plain_convolution() -> None:
    assert list(Convolution(4, 4).state_dict()) == ["weight", "bias"]
    assert list(Convolution(4, 4, bias=False).state_dict()) == ["weight"]


def test_a_norm_behind_it_costs_nothing_and_changes_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    for channels, width, side, stride in ((64, 64, 3, 1), (8, 12, 3, 2), (6, 4, 1, 1)):
        layer, norm = (
            Convolution(channels, width, side, stride=stride, bias=stride == 2),
            nn.BatchNorm2d(width),
        )
        for number in (norm.running_mean, norm.weight.data, norm.bias.data):
            assert number is not None
            number.copy_(torch.randn(width, generator=random))
        maps = torch.randn(2, channels, 24, 25, generator=random)
        norm.eval()
        with torch.no_grad():
            expected = norm(F.conv2d(maps, layer.weight, layer.bias, stride, side // 2))
            torch.testing.assert_close(layer.normalised(maps, norm), expected, rtol=1e-4, atol=1e-4)
            small = layer.normalised(maps[..., :5, :5], norm)  # too small for fewer multiplications
            torch.testing.assert_close(small[..., :2, :2], expected[..., :2, :2], rtol=1e-4, atol=1e-4)
            norm.bias.add_(1)
            torch.testing.assert_close(layer.normalised(maps, norm), expected + 1, rtol=1e-4, atol=1e-4)


def test_a_norm_that_learns_sees_the_maps() -> None:
    layer, norm, maps = Convolution(4, 4), nn.BatchNorm2d(4), torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        layer.normalised(maps, norm)
    assert norm.num_batches_tracked == 1


def test_a_relu_before_it_leaves_the_maps_alone() -> None:
    maps = torch.randn(2, 64, 24, 25)
    for width in (1, 4, 64):
        layer = Convolution(64, width)
        before = maps.clone()
        with torch.no_grad():
            torch.testing.assert_close(
                layer(maps, rectified=True), direct(layer, maps.relu()), rtol=1e-4, atol=3e-5
            )
        assert torch.equal(maps, before)
