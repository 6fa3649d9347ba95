"""The walk loss: by hand, against the authors' program, and what must hold for any nodes."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.losses.random_walk import affinities, palindromes, random_walk_loss, transitions

GOLDENS = Path(__file__).parents[1] / "goldens" / "label_propagation" / "crw.npz"


@cache
def goldens() -> dict[str, Tensor]:
    with np.load(GOLDENS) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def random_nodes(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(3)), dim=1)


@pytest.mark.parametrize("variant, temperature", [("t07", 0.07), ("t05", 0.05), ("t50", 0.5)])
def test_value_gradient_and_every_cycle_are_the_official_ones(variant: str, temperature: float) -> None:
    expected = {key: value for key, value in goldens().items() if key.startswith(f"crw/loss/{variant}/")}
    nodes = goldens()["crw/loss/nodes"].clone().requires_grad_()
    walk = random_walk_loss(nodes, temperature=temperature)
    walk.loss.backward()
    found = {"value": walk.loss.detach()[None], "grad": nodes.grad}
    for number, (entropy, accuracy) in enumerate(
        zip(walk.cross_entropy.detach(), walk.accuracy, strict=True)
    ):
        found |= {f"xent_cyc_r{number + 1}": entropy, f"acc_cyc_r{number + 1}": accuracy}
    assert {f"crw/loss/{variant}/{name}" for name in found} == set(expected)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[f"crw/loss/{variant}/{name}"], atol=1e-5, rtol=0)


def test_reversed_products_are_those_of_the_first_version() -> None:
    value = random_walk_loss(goldens()["crw/loss/nodes"], temperature=0.07, flip=True).loss
    torch.testing.assert_close(value[None], goldens()["crw/loss/flip_t07/value"], atol=1e-5, rtol=0)


def test_two_nodes_by_hand() -> None:
    nodes = torch.eye(2)[None, :, None].expand(1, 2, 3, 2)  # the same two orthogonal nodes in three frames
    stay = 1 / (1 + math.exp(-1 / 0.5))
    walk = random_walk_loss(nodes, temperature=0.5)
    home = (1 + (2 * stay - 1) ** 4) / 2  # four steps, each stays with that probability
    assert walk.loss.item() == pytest.approx(-math.log(home), abs=1e-5)
    assert walk.accuracy.tolist() == [1]
    shorter = random_walk_loss(nodes, temperature=0.5, shortest=1)
    assert shorter.cross_entropy[0].item() == pytest.approx(
        -math.log((1 + (2 * stay - 1) ** 2) / 2), abs=1e-5
    )


def test_equal_nodes_give_the_logarithm_of_their_number() -> None:
    nodes = torch.ones(2, 1, 4, 7)
    assert random_walk_loss(nodes).loss.item() == pytest.approx(math.log(7), abs=1e-5)


def test_the_order_of_nodes_in_later_frames_does_not_matter() -> None:
    nodes = random_nodes(2, 8, 4, 6)
    shuffled = nodes.clone()
    shuffled[:, :, 1] = nodes[:, :, 1, torch.randperm(6)]
    torch.testing.assert_close(random_walk_loss(nodes).loss, random_walk_loss(shuffled).loss)


def test_walks_are_distributions_however_they_are_multiplied() -> None:
    affinity = affinities(random_nodes(2, 8, 5, 6))
    forward = transitions(affinity, temperature=0.1)
    backward = transitions(affinity.transpose(-2, -1), temperature=0.1)
    for flip in (False, True):
        walks = palindromes(forward, backward, flip=flip)
        assert len(walks) == 3
        for walk in walks:
            torch.testing.assert_close(walk.sum(-1), torch.ones(2, 6))


def test_dropped_edges_are_not_taken_unless_all_are() -> None:
    dropped = torch.tensor([[[True, False, False], [True, True, True], [False, False, False]]])
    steps = transitions(torch.zeros(1, 3, 3), temperature=0.07, dropped=dropped)
    assert steps[0].tolist() == [[0, 0.5, 0.5], *[[pytest.approx(1 / 3)] * 3] * 2]


def test_dropped_edges_give_no_gradient_and_a_finite_loss() -> None:
    nodes = random_nodes(1, 8, 3, 5).requires_grad_()
    everything = torch.ones(1, 2, 5, 5, dtype=torch.bool)
    walk = random_walk_loss(nodes, dropped=(everything, everything))
    walk.loss.backward()
    assert walk.loss.item() == pytest.approx(math.log(5), abs=1e-5)
    assert nodes.grad is not None and nodes.grad.abs().max() == 0


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="T above 2"):
        random_walk_loss(torch.ones(1, 4, 2, 5))
    edges = torch.zeros(1, 3, 5, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match="dropped edges are"):
        random_walk_loss(torch.ones(1, 4, 3, 5), dropped=(edges, edges))
