"""TinyViT against MobileSAM's image encoder, and what holds for any of its sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.fill import filled
from tests.methods.mobile_sam_models import error, keys, normalised, official_mobile_sam, recorded_image
from vosssl.backbones.tiny_vit import NormedConvolution, TinyViT, WindowAttention, distance_index

SMALL: dict[str, Any] = {
    "widths": (8, 8, 16, 16),
    "depths": (1, 1, 1, 1),
    "heads": (1, 2, 2, 4),
    "windows": (3, 3, 5, 3),
    "expansion": 2,
    "neck_width": 12,
    "classes": 3,
}


def small(**options: Any) -> TinyViT:
    network = TinyViT(**SMALL | options).eval()
    network.load_state_dict(filled(network.state_dict()))
    return network


def test_names_shapes_and_order_are_those_of_the_official_file() -> None:
    prefix = "image_encoder."
    official = [(name.removeprefix(prefix), shape) for name, shape in keys() if name.startswith(prefix)]
    own = official_mobile_sam().image_encoder.state_dict()
    assert [(name, list(value.shape)) for name, value in own.items()] == official


@torch.inference_mode()
def test_all_stages_are_the_official_ones() -> None:
    maps = official_mobile_sam().image_encoder.maps(normalised(recorded_image(1024, 1024, 1)[None]))
    assert error(maps.stem, "encoder.patch_embed") < 3e-5
    for index, stage in enumerate(maps.stages):
        assert error(stage, f"encoder.layer{index}") < 3e-5
    assert error(maps.neck, "encoder.out") < 3e-5


def test_biases_are_numbered_by_absolute_distances() -> None:
    index = distance_index(2)  # places (0, 0), (0, 1), (1, 0), (1, 1)
    assert index.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]


def test_windows_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    attention, maps = WindowAttention(4, 2, window=3), torch.randn(1, 6, 6, 4)
    changed = maps.clone()
    changed[:, 3:, :3] = torch.randn(1, 3, 3, 4)  # the lower left window
    with torch.no_grad():
        differs = (attention(changed) != attention(maps)).any(dim=-1)[0]
    assert differs[3:, :3].all() and differs.sum() == 9


def test_rows_of_queries_keys_and_values_lie_together_for_each_head() -> None:
    torch.manual_seed(0)
    attention, maps = WindowAttention(4, 2, window=2), torch.randn(1, 2, 2, 4)
    torch.nn.init.normal_(attention.attention_biases)
    with torch.no_grad():
        tokens = attention.qkv(attention.norm(maps.reshape(4, 4)))  # (4, 12): head 0 is rows 0..5
        heads = []
        for head in range(2):
            query, key, value = tokens[:, 6 * head : 6 * head + 6].split(2, dim=1)
            bias = attention.attention_biases[head][distance_index(2)]
            heads.append(((query @ key.T) / 2**0.5 + bias).softmax(dim=1) @ value)
        expected = attention.proj(torch.cat(heads, dim=1)).reshape(1, 2, 2, 4)
        torch.testing.assert_close(attention(maps), expected)


@pytest.mark.parametrize("shape", [(1, 1, False), (3, 1, True), (3, 2, False)])
def test_folded_norms_are_the_running_ones(shape: tuple[int, int, bool]) -> None:
    torch.manual_seed(0)
    kernel, stride, depthwise = shape
    layer = NormedConvolution(6, 6, kernel=kernel, stride=stride, depthwise=depthwise)
    layer.load_state_dict(filled(layer.state_dict()))
    maps = torch.randn(2, 6, 8, 10)
    torch.testing.assert_close(layer.eval()(maps), layer.bn(layer.c(maps)), atol=1e-5, rtol=1e-4)
    trained = layer.train()(maps)
    assert trained.mean(dim=(0, 2, 3)).allclose(layer.bn.bias, atol=1e-5)  # the batch's own statistics


def test_images_of_a_batch_do_not_mix_and_gradients_reach_all_that_is_used() -> None:
    torch.manual_seed(0)
    network, images = small(), torch.randn(2, 3, 32, 64)
    both = network(images)
    assert both.shape == (2, 12, 2, 4)
    torch.testing.assert_close(both[1:], network(images[1:]), atol=1e-5, rtol=1e-4)
    with torch.no_grad():  # in place there
        torch.testing.assert_close(network(images), both, atol=1e-5, rtol=1e-4)
    both.square().mean().backward()
    assert all(weight.grad is not None for weight in network.parameters() if weight.requires_grad)
    unused = [name for name, weight in network.named_parameters() if not weight.requires_grad]
    assert unused == ["norm_head.weight", "norm_head.bias", "head.weight", "head.bias"]


def test_an_image_is_not_changed() -> None:
    images = torch.rand(1, 3, 16, 16)
    kept = images.clone()
    with torch.inference_mode():
        small()(images)
    assert torch.equal(images, kept)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        small()(torch.zeros(1, 3, 40, 32))
    with pytest.raises(ValueError, match="one per stage"):
        TinyViT(widths=(8, 8))
    with pytest.raises(ValueError, match="no multiple of its 3 heads"):
        TinyViT(**SMALL | {"heads": (1, 3, 2, 4)})
