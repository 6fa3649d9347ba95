"""ViT segmentation heads: shapes, time, frozen backbones, and backbone weights as a start."""

from __future__ import annotations

import pytest
import torch

from vosssl.backbones.vit import VisionTransformer
from vosssl.backbones.weights import load_weights
from vosssl.methods.vit_seg import ViTSeg


def backbone() -> VisionTransformer:
    return VisionTransformer(patch_size=8, width=24, depth=1, heads=2, pretrain_grid=4)


@pytest.mark.parametrize(("head", "side"), [("linear", 4), ("conv", 16)])
def test_logits_have_the_resolution_of_the_head(head, side: int) -> None:
    network = ViTSeg(backbone(), num_classes=3, head=head, head_width=8, doublings=2)
    assert network(torch.randn(2, 2, 3, 32, 40)).shape == (2, 2, 3, side, side * 5 // 4)


@torch.no_grad()
def test_without_space_time_blocks_a_frame_depends_on_itself_alone() -> None:
    network = ViTSeg(backbone(), head_width=8).eval()
    clip = torch.randn(1, 3, 3, 32, 32)
    assert torch.allclose(network(clip)[:, 1:2], network(clip[:, 1:2]), atol=1e-5)


@torch.no_grad()
def test_with_them_other_frames_and_their_order_matter() -> None:
    torch.manual_seed(0)
    network = ViTSeg(backbone(), head_width=8, window=3, space_time_blocks=1).eval()
    for weight in network.space_time.parameters():
        weight.normal_(std=0.3)  # fresh blocks change next to nothing
    assert network.times is not None
    network.times.normal_()
    clip = torch.randn(1, 3, 3, 32, 32)
    whole = network(clip)
    assert not torch.allclose(whole[:, 2:], network(clip[:, 2:]), atol=1e-4)
    assert not torch.allclose(whole[:, 2], network(clip[:, [1, 0, 2]])[:, 2], atol=1e-5)
    past = [network.frame_features(clip[:, index]) for index in range(3)]
    assert torch.allclose(network.newest_logits(past), whole[:, 2], atol=1e-5)
    two = network.newest_logits(past[1:])
    assert torch.allclose(two, network(clip[:, 1:])[:, 1], atol=1e-5)


def test_a_frozen_backbone_gets_no_gradient() -> None:
    network = ViTSeg(backbone(), head_width=8, frozen=True).train()
    network(torch.randn(1, 1, 3, 32, 32)).sum().backward()
    assert all(weight.grad is None for weight in network.backbone.parameters())
    assert all(weight.grad is not None for weight in network.head.parameters())
    assert not network.backbone.training


def test_weights_of_the_backbone_are_a_start_and_the_head_stays() -> None:
    other, network = backbone(), ViTSeg(backbone(), head_width=8)
    head = network.head[0].weight.detach().clone()  # type: ignore[index]
    load_weights(network, other.state_dict())
    assert torch.equal(network.backbone.cls_token, other.cls_token)
    assert torch.equal(network.head[0].weight, head)  # type: ignore[index]
    load_weights(network, network.state_dict())  # its own are taken as they are
    with pytest.raises(ValueError, match="missing"):
        load_weights(network, {key: value for key, value in other.state_dict().items() if key != "cls_token"})


def test_a_window_without_blocks_and_clips_longer_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="window is 3 with 0 space-time blocks"):
        ViTSeg(backbone(), window=3)
    network = ViTSeg(backbone(), head_width=8, window=2, space_time_blocks=1)
    with pytest.raises(ValueError, match="a clip has 3 frames, the window is 2"):
        network(torch.randn(1, 3, 3, 32, 32))
    with pytest.raises(ValueError, match="expected \\(B, T, 3, H, W\\)"):
        network(torch.randn(3, 3, 32, 32))
