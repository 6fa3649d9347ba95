"""Residual networks against torchvision's, and what CRW changes about them."""

from __future__ import annotations

import pytest
import torch
import torchvision

from tests.fill import filled
from vosssl.backbones.resnet import BasicBlock, ResNet, resnet18, resnet50
from vosssl.backbones.weights import load_weights


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_weights_of_torchvision_give_its_last_map(name: str) -> None:
    theirs = getattr(torchvision.models, name)(weights=None)
    theirs.load_state_dict(filled(theirs.state_dict()))
    ours = resnet18() if name == "resnet18" else resnet50()
    load_weights(ours, theirs.state_dict())  # with its classifier, which ours does without
    assert list(ours.state_dict()) == [key for key in theirs.state_dict() if not key.startswith("fc.")]
    inner = torch.nn.Sequential(*list(theirs.eval().children())[:-2])
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, found = inner(images), ours.eval()(images)
    assert found.shape == (2, ours.channels, 64 // ours.stride, 96 // ours.stride)
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_strides_of_one_keep_the_map_of_the_second_stage() -> None:
    network = resnet18(strides=(1, 2, 1, 1), width=4)
    assert (network.stride, network.channels) == (8, 32)
    assert network(torch.zeros(1, 3, 64, 48)).shape == (1, 32, 8, 6)
    assert resnet18(strides=(1, 2, 1, 1), width=4, first_stride=1, pool=False, stages=3).stride == 2


def test_reflected_borders_leave_a_constant_picture_constant() -> None:
    torch.manual_seed(0)
    images = torch.full((1, 3, 32, 32), 0.7)
    reflected = resnet18(width=4, strides=(1, 2, 1, 1), border="reflect").eval()(images)
    assert torch.allclose(reflected, reflected[..., :1, :1].expand_as(reflected), atol=1e-5)
    zeros = resnet18(width=4, strides=(1, 2, 1, 1)).eval()(images)
    assert not torch.allclose(zeros, zeros[..., :1, :1].expand_as(zeros), atol=1e-3)


@torch.no_grad()
def test_a_pyramid_ends_in_the_map_and_masks_are_further_channels() -> None:
    network = ResNet(
        BasicBlock, blocks=(1, 1, 1), width=4, in_channels=5, bias=True, first_stage="res2"
    ).eval()
    keys = list(network.state_dict())
    assert keys[:2] == ["conv1.weight", "conv1.bias"] and "res2.0.conv1.bias" in keys
    assert network.conv1.weight.shape == (4, 5, 7, 7) and not network.conv1.bias.any()
    images = torch.randn(2, 5, 32, 48)
    maps = network.pyramid(images)
    assert [tuple(each.shape) for each in maps] == [(2, 4, 8, 12), (2, 8, 4, 6), (2, 16, 2, 3)]
    assert network.widths == [4, 8, 16] and torch.equal(maps[-1], network(images))
    again = network.pyramid_behind(network.conv1(images))
    assert all(torch.equal(one, other) for one, other in zip(maps, again, strict=True))


def test_a_whole_network_gives_a_shorter_one_its_start_and_masks_begin_orthogonal() -> None:
    theirs = filled(torchvision.models.resnet18(weights=None).state_dict())
    theirs = {key: value for key, value in theirs.items() if not key.endswith("num_batches_tracked")}
    ours = ResNet(BasicBlock, blocks=(2, 2, 2), in_channels=5, bias=True, first_stage="res2")
    load_weights(ours, theirs)
    state = ours.state_dict()
    assert torch.equal(state["res2.0.conv1.weight"], theirs["layer1.0.conv1.weight"])
    assert torch.equal(state["layer3.1.bn2.bias"], theirs["layer3.1.bn2.bias"])
    assert torch.equal(state["conv1.weight"][:, :3], theirs["conv1.weight"])
    masks = state["conv1.weight"][:, 3:].flatten(1)  # (64, 98): orthonormal rows
    torch.testing.assert_close(masks @ masks.T, torch.eye(64), atol=1e-5, rtol=0)
    assert not any(state[key].any() for key in state if key.endswith("conv1.bias"))
    with pytest.raises(ValueError, match="missing"):
        load_weights(ResNet(BasicBlock, blocks=(3, 2, 2)), theirs)


def test_five_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="one to four stages"):
        ResNet(BasicBlock, blocks=(1, 1, 1, 1, 1), strides=(1, 1, 1, 1, 1))
