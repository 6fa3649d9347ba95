"""Slots over the features of other networks: one grid, unit length, frozen, by configuration alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vosssl.clip import collate
from vosssl.data.synthetic import SyntheticClips
from vosssl.methods.propagation_floors import EdgeDirections
from vosssl.methods.slot_features import ColourCode, FeatureGrid
from vosssl.methods.slots import Objective, Slots
from vosssl.modes.build import build, method_config


def test_equal_colours_have_one_and_opposite_ones_minus_one() -> None:
    image = torch.zeros(1, 3, 2, 6)
    image[..., 2:4] = 1.0
    image[..., 4:6] = 0.5
    black, white, grey = ColourCode(patch_size=2)(image)[0, :, 0].T
    assert black @ black == pytest.approx(1)
    assert black @ white == pytest.approx(-1)
    assert black @ grey == pytest.approx(0, abs=1e-6)
    red = torch.tensor([1.0, 0, 0])[None, :, None, None].expand(1, 3, 2, 2)
    assert ColourCode()(red)[0, :, 0, 0] @ black == pytest.approx((2 + math.cos(math.pi)) / 3)


def test_features_of_any_network_come_on_one_grid_with_unit_length() -> None:
    frames = torch.randint(256, (2, 3, 40, 40), dtype=torch.uint8)
    for network, dim in ((ColourCode(patch_size=8), 6), (EdgeDirections(patch_size=4), 81)):
        features = FeatureGrid(network, dim=dim, size=(32, 32), grid=(8, 8))(frames)
        assert features.shape == (2, dim, 8, 8)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(2, 8, 8))


def test_a_map_of_the_grids_size_is_only_normalised() -> None:
    class Doubled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 2 * images

    frames = torch.rand(1, 3, 4, 4)
    features = FeatureGrid(Doubled(), dim=3, size=(4, 4), grid=(4, 4))(frames)
    torch.testing.assert_close(features, frames / frames.norm(dim=1, keepdim=True))


def test_another_width_than_was_said_is_refused() -> None:
    with pytest.raises(ValueError, match="6 wide, dim is 5"):
        FeatureGrid(ColourCode(), dim=5)(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="set slot_dim to 81 or more"):
        Slots(embedding=FeatureGrid(EdgeDirections(), dim=81), dim=81, slot_dim=64)


def test_slots_learn_over_a_vit_that_stays_as_it_is() -> None:
    node = method_config("slots-on-dino-tiny").network
    node.embedding.update({"size": [32, 32], "grid": [8, 8]})
    node.num_slots = 4
    network = build(node)
    before = {name: weight.clone() for name, weight in network.encoder.state_dict().items()}
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    batch = collate(SyntheticClips(size=32, frames=2, count=2).__getitems__([0, 1]))
    terms = Objective(anchors=16)(network, batch, 0)
    torch.stack(list(terms.values())).sum().backward()
    assert any(weight.grad is not None and bool(weight.grad.any()) for weight in trained)
    torch.optim.SGD(trained, 0.1).step()
    for name, weight in network.encoder.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert not network.train().encoder.embedding.backbone.training
