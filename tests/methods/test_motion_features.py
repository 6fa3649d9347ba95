"""Motion features and what teaches them: pairs of patches that move together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vosssl.clip import collate
from vosssl.data.flow import estimate_flow, estimate_reliable_flow
from vosssl.data.synthetic import SyntheticClips
from vosssl.methods.motion_features import MotionFeatures, Objective, motion_contrast
from vosssl.ops.flow import consistent, inside, warp
from vosssl.ops.motion_affinity import MotionPairs, motion_pairs


def batch_of(count: int, *, frames: int = 2, size: int = 32) -> object:
    clips = SyntheticClips(size=size, frames=frames, count=count).__getitems__(list(range(count)))
    return collate(clips, seeds=list(range(count)))


def test_embeddings_have_unit_length_at_half_the_resolution() -> None:
    network = MotionFeatures(width=8, dim=16, depth=1)
    embeddings = network(torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8))
    assert embeddings.shape == (2, 16, 16, 24)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2, 16, 24), atol=1e-5)
    assert network(torch.rand(1, 3, 30, 50)).shape == (1, 16, 16, 24)  # resized to multiples of 8


def test_exact_pairs_agree_with_the_labels() -> None:
    clips = SyntheticClips(size=64, frames=3, count=8).__getitems__(list(range(8)))
    batch = collate(clips, seeds=list(range(8)))
    assert batch.flow is not None
    assert batch.labels is not None
    within, across = motion_pairs(batch.flow, (32, 32), anchors=64, seeds=batch.seeds)
    labels = batch.labels[..., ::2, ::2].flatten(-2)  # (B, T, P)
    every = labels.flatten(0, 1)
    equal = every.gather(1, within.anchors)[..., None] == every[:, None]
    assert equal[within.same].float().mean() > 0.99
    assert (~equal)[within.different].float().mean() > 0.99
    assert across is not None
    before, after = labels[:, :-1].flatten(0, 1), labels[:, 1:].flatten(0, 1)
    equal = before.gather(1, across.anchors)[..., None] == after[:, None]
    usable = (across.weight > 0)[..., None]
    assert equal[across.same & usable].float().mean() > 0.99
    assert (~equal)[across.different & usable].float().mean() > 0.99


def test_rough_pairs_of_a_mover_on_a_panning_background_are_right() -> None:
    flow = torch.zeros(1, 1, 2, 32, 32)
    flow[:, :, 0] = 2.0  # the camera pans
    flow[:, :, :, 8:16, 8:16] = torch.tensor([-2.0, 1.0])[:, None, None]
    within, across = motion_pairs(
        flow,
        (16, 16),
        anchors=256,
        seeds=torch.zeros(1, dtype=torch.int64),
        reliable=torch.ones(1, 1, 32, 32, dtype=torch.bool),
    )
    mover = torch.zeros(16, 16, dtype=torch.bool)
    mover[4:8, 4:8] = True
    is_mover = mover.flatten()
    equal = is_mover[within.anchors[0]][:, None] == is_mover[None]
    assert across is None
    assert equal[within.same[0]].all()
    assert not equal[within.different[0]].any()
    assert within.same[0].any()
    assert within.different[0].any()


def test_anchors_depend_on_the_seed_of_their_sample_alone() -> None:
    flow = torch.zeros(2, 2, 2, 16, 16)
    both, _ = motion_pairs(flow, (8, 8), anchors=5, seeds=torch.tensor([3, 4]))
    alone, _ = motion_pairs(flow[1:], (8, 8), anchors=5, seeds=torch.tensor([4]))
    assert torch.equal(both.anchors[2:], alone.anchors)


def test_a_grid_that_does_not_divide_the_flow_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        motion_pairs(torch.zeros(1, 1, 2, 30, 32), (16, 16), anchors=2, seeds=torch.zeros(1))


def test_contrast_falls_when_positives_are_alike() -> None:
    same = torch.tensor([[[True, True, False, False]]])
    pairs = MotionPairs(torch.tensor([[0]]), same, ~same, torch.ones(1, 1))
    axes = torch.eye(4)
    good = axes[[0, 0, 1, 1]][None]
    bad = axes[[0, 1, 0, 1]][None]
    assert motion_contrast(good, good, pairs, temperature=0.1).item() == pytest.approx(
        torch.tensor(2.0).log().item(), abs=1e-3
    )
    assert motion_contrast(bad, bad, pairs, temperature=0.1) > 5


def test_a_few_steps_lower_the_contrast() -> None:
    torch.manual_seed(0)
    network, objective, batch = MotionFeatures(width=8, dim=16, depth=1), Objective(anchors=32), batch_of(4)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for step in range(15):
        terms = objective(network, batch, step)  # type: ignore[arg-type]
        assert set(terms) == {"contrast_within", "contrast_across"}
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0] - 0.2


def test_estimated_flow_follows_a_shifted_picture() -> None:
    torch.manual_seed(0)
    picture = F.interpolate(torch.rand(1, 3, 12, 12), size=(72, 72), mode="bicubic").clamp(0, 1)[0]
    clip = torch.stack([picture[:, 4:68, 4:68], picture[:, 4:68, 2:66]])  # the content moves right by 2
    flow = estimate_flow(clip)
    assert flow.shape == (2, 2, 64, 64)
    inner = flow[0, :, 12:-12, 12:-12]
    assert inner[0].median().item() == pytest.approx(2, abs=0.3)
    assert inner[1].median().item() == pytest.approx(0, abs=0.3)
    assert estimate_flow(clip[None]).shape == (1, 2, 2, 64, 64)
    assert estimate_flow(clip[:1]).abs().max() == 0


def test_warping_by_exact_flow_brings_the_next_frame_back() -> None:
    image = torch.arange(5.0).repeat(4, 1)[None, None]  # values grow to the right by 1 a pixel
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0] = 1
    assert warp(image, flow)[0, 0, 0].tolist() == [1, 2, 3, 4, 4]
    assert inside(flow)[0, 0].tolist() == [True, True, True, True, False]
    assert consistent(flow, -flow)[0, 0].tolist() == [True, True, True, True, False]
    assert not consistent(flow, flow).any()


def test_estimated_flow_is_trusted_at_texture_only() -> None:
    torch.manual_seed(0)
    picture = F.interpolate(torch.rand(1, 3, 18, 18), size=(72, 72), mode="bicubic").clamp(0, 1)[0]
    picture[:, :, 40:] = 0.5  # a smooth half
    clip = torch.stack([picture[:, 4:68, 4:68], picture[:, 4:68, 3:67]])
    flow, reliable = estimate_reliable_flow(clip[None])
    assert flow.shape == (1, 2, 2, 64, 64)
    assert reliable.shape == (1, 2, 64, 64)
    assert reliable[0, 0, 10:-10, 10:30].float().mean() > 0.5
    assert not reliable[..., 42:].any()
