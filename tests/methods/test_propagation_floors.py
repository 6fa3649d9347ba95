"""Features without learning: colours and edges of patches."""

from __future__ import annotations

import pytest
import torch

from vosssl.methods.propagation_floors import EdgeDirections, MeanColours
from vosssl.modes.build import create_segmenter
from vosssl.ops.images import IMAGENET_MEAN


def test_mean_colours_by_hand() -> None:
    image = torch.zeros(1, 3, 4, 8)
    image[:, 0, :, 4:6] = 1.0  # half of the right patch is red
    colours = MeanColours(patch_size=4)(image)
    assert colours.shape == (1, 3, 1, 2)
    assert colours[0, :, 0, 0].tolist() == pytest.approx([-value for value in IMAGENET_MEAN])
    assert colours[0, 0, 0, 1].item() == pytest.approx(0.5 - IMAGENET_MEAN[0])


def test_edges_vote_for_their_direction() -> None:
    ramp = torch.arange(16.0) / 16
    along_x = ramp.expand(1, 3, 16, 16)
    network = EdgeDirections(patch_size=4, bins=9)
    upright = network(along_x)[0, :, 1, 1].unflatten(0, (9, 9))  # (bins, 3x3 cells)
    assert (upright[0] > 0.3).all()
    assert upright[1:].abs().max() < 1e-6
    lying = network(along_x.transpose(2, 3))[0, :, 1, 1].unflatten(0, (9, 9))
    assert torch.allclose(lying[4], lying[5])  # a quarter turn lies between two bins
    assert lying[4].min() > 0.2


def test_edges_do_not_depend_on_light() -> None:
    image = torch.rand(1, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    network = EdgeDirections()
    features = network(image)
    assert features.shape == (1, 81, 4, 3)
    assert torch.allclose(features, network(image * 0.5 + 0.2), atol=1e-4)
    assert torch.allclose(features.norm(dim=1), torch.ones(1, 4, 3))


@pytest.mark.parametrize("name", ["floor-colour-propagation", "floor-hog-propagation"])
def test_floors_follow_an_object_that_looks_unlike_the_rest(name: str) -> None:
    texture = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(1)) * 0.2
    segmenter = create_segmenter(name, device="cpu", size=64)
    for step in range(3):
        frame, labels = texture.clone(), torch.zeros(64, 96, dtype=torch.uint8)
        place = (slice(16, 48), slice(16 + 8 * step, 48 + 8 * step))
        frame[0][place], labels[place] = 0.9, 1
        frame[1][place] = torch.arange(32) % 8 / 8  # stripes
        found = segmenter.step(frame, labels if step == 0 else None)
    overlap = ((found == 1) & (labels == 1)).sum() / ((found == 1) | (labels == 1)).sum()
    assert overlap > 0.7
