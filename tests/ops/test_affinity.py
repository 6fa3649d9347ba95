"""Windowed top-k matches: against the full matrix, by hand, and at the borders."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vosssl.ops import affinity
from vosssl.ops.affinity import Matches, Shape, merge, read, top_matches, window


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def full(target: Tensor, sources: Tensor, *, top_k: int, radius: float, shape: Shape) -> Matches:
    """The same from the whole matrix."""
    height, width, _ = target.shape
    scores = (target.flatten(0, 1) @ sources.flatten(0, 2).T).view(height * width, len(sources), -1)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.flatten().float(), columns.flatten().float()
    inside = window(rows[:, None] - rows, columns[:, None] - columns, radius=radius, shape=shape)
    scores = scores.masked_fill(~inside[:, None], -torch.inf).flatten(1)
    return Matches(*scores.topk(top_k, dim=1))


@pytest.mark.parametrize("shape", ["square", "disc", "circle"])
@pytest.mark.parametrize("radius", [0, 2, 5])
@pytest.mark.parametrize("room", [1 << 8, 1 << 19])
def test_tiles_find_what_the_whole_matrix_holds(
    shape: Shape, radius: float, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affinity, "SCORES", room)
    target, sources = unit(11, 17, 8), unit(3, 11, 17, 8, seed=1)
    found = top_matches(target, sources, top_k=4, radius=radius, shape=shape)
    expected = full(target, sources, top_k=4, radius=radius, shape=shape)
    order = found.scores.argsort(dim=1, descending=True)
    torch.testing.assert_close(found.scores.gather(1, order), expected.scores)
    assert torch.equal(found.places.gather(1, order), expected.places)


def test_shapes_of_windows_differ_at_their_border() -> None:
    dy, dx = torch.tensor([0.0, 3.0, 2.0]), torch.tensor([3.0, 3.0, 2.0])
    assert window(dy, dx, radius=3, shape="square").tolist() == [True, True, True]
    assert window(dy, dx, radius=3, shape="disc").tolist() == [False, False, True]
    assert window(dy, dx, radius=3, shape="circle").tolist() == [True, False, True]


def test_fewer_patches_than_matches_wanted() -> None:
    target, sources = unit(3, 3, 4), unit(1, 3, 3, 4, seed=1)
    found = top_matches(target, sources, top_k=5, radius=1, shape="circle")
    corner = found.scores[0]  # a corner reaches itself and two neighbours
    assert int(corner.isfinite().sum()) == 3
    labels = torch.eye(9)
    voted = read(found, labels)
    torch.testing.assert_close(voted.sum(1), torch.ones(9))
    assert voted[0, 8] == 0


def test_labels_are_read_with_softmax_weights() -> None:
    matches = Matches(torch.tensor([[0.0, 2.0]]).log(), torch.tensor([[0, 2]]))
    matches = Matches(torch.tensor([[1.0, 3.0]]).log(), matches.places)
    labels = torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, 1.0]])
    torch.testing.assert_close(read(matches, labels), torch.tensor([[0.25, 0.75]]))


def test_merged_matches_are_those_of_all_sources() -> None:
    target, sources = unit(5, 6, 8), unit(4, 5, 6, 8, seed=1)
    first = top_matches(target, sources[:1], top_k=3)
    second = top_matches(target, sources[1:], top_k=3)
    merged = merge(first, second, top_k=3, offset=30)
    expected = full(target, sources, top_k=3, radius=0, shape="square")
    torch.testing.assert_close(merged.scores, expected.scores)
    assert torch.equal(merged.places, expected.places)


def test_gate_multiplies_the_exponential_by_the_agreement() -> None:
    target, sources = unit(2, 2, 4), unit(1, 2, 2, 4, seed=1)
    here = torch.tensor([0.8, 0.2]).expand(2, 2, 2)
    there = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]).view(1, 2, 2, 2)
    found = top_matches(target, sources, top_k=4, gates=(here, there), temperature=0.1)
    weights = found.scores.softmax(1)
    plain = ((target.flatten(0, 1) @ sources.flatten(0, 2).T) / 0.1).exp() * torch.tensor(
        [0.8, 0.2, 0.5, 0.8]
    )
    expected = (plain / plain.sum(1, keepdim=True)).gather(1, found.places)
    torch.testing.assert_close(weights, expected)


def test_other_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(S, 3, 3, 4\)"):
        top_matches(unit(3, 3, 4), unit(2, 3, 4, 4), top_k=1)
