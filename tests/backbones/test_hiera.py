"""Hiera beside the official code, and its windows beside windows that are padded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fill import filled
from tests.methods.sam2_models import assert_agrees, blocky_image
from vosssl.backbones.hiera import Hiera, HieraBlock
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD
from vosssl.ops.windows import to_map, to_windows, window_regions

PREFIX = "image_encoder.trunk."


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def tiny(**options: object) -> Hiera:
    sizes = {"width": 8, "depths": (1, 1, 2, 1), "windows": (8, 4, 6, 3), "global_blocks": (3,)} | options
    torch.manual_seed(0)
    return Hiera(**sizes).eval()  # type: ignore[arg-type]


def padded_block(block: HieraBlock, maps: Tensor, window: int) -> Tensor:
    """What a block computes on (N, H, W, D) with windows that are padded with zeros after the norm."""
    _, height, width, _ = maps.shape
    normed = block.norm1(maps)
    shortcut = maps if block.proj is None else block.proj(normed)
    padded = F.pad(normed, (0, 0, 0, -width % window, 0, -height % window))
    down, across = padded.shape[1] // window, padded.shape[2] // window
    windows = padded.unflatten(2, (across, window)).unflatten(1, (down, window)).transpose(2, 3)
    windows = windows.flatten(0, 2).flatten(1, 2)  # (N, m, n, w, w, D) -> (N * m * n, w * w, D)
    query, key, value = block.attn.qkv(windows).chunk(3, dim=-1)
    if block.attn.pool:
        query = query.unflatten(1, (window // 2, 2, window // 2, 2)).amax(dim=(2, 4)).flatten(1, 2)
        shortcut = F.max_pool2d(shortcut.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        window, height, width = window // 2, height // 2, width // 2
    heads = [part.unflatten(-1, (block.attn.heads, -1)).transpose(1, 2) for part in (query, key, value)]
    weights = (heads[0] @ heads[1].transpose(2, 3) / heads[0].shape[-1] ** 0.5).softmax(dim=-1)
    gathered = block.attn.proj((weights @ heads[2]).transpose(1, 2).flatten(2))
    gathered = gathered.unflatten(1, (window, window)).unflatten(0, (-1, down, across)).transpose(2, 3)
    attended = shortcut + gathered.flatten(3, 4).flatten(1, 2)[:, :height, :width]
    return attended + block.mlp(block.norm2(attended))


def test_the_tiny_trunk_agrees_with_the_official_code() -> None:
    trunk = Hiera()
    names = {PREFIX + name: value for name, value in trunk.state_dict().items()}
    trunk.load_state_dict({key.removeprefix(PREFIX): value for key, value in filled(names).items()})
    with torch.inference_mode():
        levels = trunk.eval()(normalised(blocky_image(256, 1)))
        positions = trunk.positions((64, 64))
    for index, level in enumerate(levels):
        assert_agrees(level, f"stage_256/trunk{index}")
    assert_agrees(positions, "stage_256/pos_embed")


@pytest.mark.parametrize("size", [(12, 12), (14, 10), (4, 8)])
@pytest.mark.parametrize("pool", [False, True])
def test_windows_over_the_edge_compute_what_padded_ones_do(size: tuple[int, int], pool: bool) -> None:
    torch.manual_seed(0)
    block = HieraBlock(8, 16 if pool else 8, 2, pool=pool, feed_forward_ratio=2.0)
    maps = torch.randn(2, *size, 8)
    regions = window_regions(size, 6)
    tokens = block(to_windows(maps, regions), regions)
    after = window_regions((size[0] // 2, size[1] // 2), 3) if pool else regions
    assert torch.allclose(to_map(tokens, after), padded_block(block, maps, 6), atol=1e-5)


def test_a_batch_computes_what_its_images_do_alone() -> None:
    trunk = tiny()
    images = torch.randn(2, 3, 128, 96)
    together = trunk(images)
    alone = [trunk(image[None]) for image in images]
    for index, level in enumerate(together):
        assert level.shape == (2, 8 * 2**index, 32 >> index, 24 >> index)
        assert torch.allclose(level, torch.cat([levels[index] for levels in alone]), atol=1e-5)


@torch.inference_mode()
def test_windows_in_parts_compute_what_they_do_together(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = tiny()
    images = torch.randn(2, 3, 128, 96)
    together = trunk(images)
    monkeypatch.setattr("vosssl.backbones.hiera.TOKENS", 20)
    for level, parts in zip(together, trunk(images), strict=True):
        assert torch.allclose(level, parts, atol=1e-5)


def test_gradients_reach_the_positions() -> None:
    trunk = tiny()
    trunk(torch.randn(1, 3, 64, 64))[-1].square().sum().backward()
    assert trunk.pos_embed.grad is not None and trunk.pos_embed_window.grad is not None
    assert trunk.pos_embed.grad.abs().sum() > 0 and trunk.pos_embed_window.grad.abs().sum() > 0


def test_sizes_and_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        tiny()(torch.zeros(1, 3, 100, 64))
    with pytest.raises(ValueError, match="start stages"):
        tiny(global_blocks=(2,))
    with pytest.raises(ValueError, match="3 windows for 4 stages"):
        tiny(windows=(8, 4, 6))
