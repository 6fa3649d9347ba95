"""The convolution that is faster where nothing is learnt."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.layers.convolution import Convolution3x3


def direct(layer: Convolution3x3, maps: Tensor) -> Tensor:
    return F.conv2d(maps, layer.weight, layer.bias, padding=1)


def test_the_faster_way_gives_the_same_numbers() -> None:
    layer, maps = Convolution3x3(128, 128).eval(), torch.randn(1, 128, 24, 25)
    with torch.no_grad():
        torch.testing.assert_close(layer(maps), direct(layer, maps), rtol=1e-4, atol=3e-5)
    assert layer._kernels is not None


def test_gradients_take_the_direct_way() -> None:
    layer, maps = Convolution3x3(128, 128), torch.randn(1, 128, 24, 25)
    assert torch.equal(layer(maps), direct(layer, maps))
    layer(maps).sum().backward()
    assert layer.weight.grad is not None and layer._kernels is None


def test_small_maps_and_narrow_layers_take_the_direct_way() -> None:
    with torch.no_grad():
        for layer, size in ((Convolution3x3(128, 128), 12), (Convolution3x3(64, 128), 30)):
            maps = torch.randn(1, layer.in_channels, size, size)
            assert torch.equal(layer(maps), direct(layer, maps))


def test_weights_that_changed_are_transformed_anew() -> None:
    layer, maps = Convolution3x3(128, 128).eval(), torch.randn(1, 128, 24, 25)
    with torch.no_grad():
        layer(maps)
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(maps), direct(layer, maps), rtol=1e-4, atol=6e-5)
        layer.load_state_dict({name: value + 0.01 for name, value in layer.state_dict().items()})
        torch.testing.assert_close(layer(maps), direct(layer, maps), rtol=1e-4, atol=1e-4)
    layer.train()
    assert layer._kernels is None


def test_its_state_is_that_of_a_plain_convolution() -> None:
    assert list(Convolution3x3(4, 4).state_dict()) == ["weight", "bias"]
    assert list(Convolution3x3(4, 4, bias=False).state_dict()) == ["weight"]
