"""Memory policies of SAM 2: their rules by hand, and what must hold for any weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vosssl
from tests.methods.sam2_models import moving_rectangles, tiny_sam2
from vosssl.methods.sam2.mask_decoder import Candidates
from vosssl.methods.sam2.memory_selection import Recall, recall
from vosssl.methods.sam2.object_memory import ObjectTrack, Output
from vosssl.methods.sam2.policies import DistractorAware, MemoryTree, MotionAware
from vosssl.methods.sam2.policies.box_motion import corrected, overlaps, predicted, started
from vosssl.methods.sam2.policies.distractor_aware import DistractorFollower, divergence
from vosssl.methods.sam2.policies.memory_tree import (
    Branch,
    TreeFollower,
    branches,
    pruned,
    ranks_as_weights,
)
from vosssl.methods.sam2.policies.motion_aware import MotionFollower
from vosssl.methods.sam2.policies.policy import mask_edges
from vosssl.methods.sam2.segmenter import SAM2Segmenter
from vosssl.methods.sam2.session import SAM2Session

POLICIES = [MotionAware(stable_frames=3), MemoryTree(), DistractorAware(stride=2, min_quality=0.0)]
GRID = 32


def two_rectangles() -> Tensor:
    labels = torch.zeros(48, 64, dtype=torch.uint8)
    labels[5:20, 5:25], labels[25:45, 30:60] = 1, 2
    return labels


def tiny_segmenter(**options: Any) -> SAM2Segmenter:
    return SAM2Segmenter(tiny_sam2(), **{"image_size": 64, **options})


def square(left: int, top: int, side: int = 6) -> Tensor:
    """Logits of a mask."""
    logits = torch.full((GRID, GRID), -5.0)
    logits[top : top + side, left : left + side] = 5.0
    return logits


def decoded(*rows: tuple[list[Tensor], list[float], float]) -> Candidates:
    """What the decoder says on each path: three masks, their qualities, the object score."""
    masks = torch.stack([torch.stack([square(0, 0), *own]) for own, _, _ in rows])
    quality = torch.tensor([[0.99, *own] for _, own, _ in rows])
    scores = torch.tensor([[score] for _, _, score in rows])
    return Candidates(masks, quality, torch.zeros(len(rows), 4, 2), scores)


def remembered(value: float = 0.0) -> Output:
    return Output(torch.zeros(1, 0, 0), torch.full((2,), value), torch.ones(1), torch.zeros(2, 1, 1))


def usual_at(frame: int):
    def usual(track: ObjectTrack) -> Recall:
        return recall(frame, conditioning=track.conditioning, tracked=track.tracked)

    return usual


def test_a_box_that_moves_evenly_is_predicted_where_it_will_be() -> None:
    boxes = torch.tensor([[10.0 + 3 * time, 20.0 - time, 30.0 + 3 * time, 50.0 - time] for time in range(60)])
    motion = started(boxes[0])
    assert motion.mean.tolist() == [20, 35, 20 / 30, 30, 0, 0, 0, 0]
    for box in boxes[1:-1]:
        motion = corrected(predicted(motion), box)
    assert torch.allclose(predicted(motion).box, boxes[-1].double(), atol=0.02)
    assert torch.allclose(motion.mean[4:6], torch.tensor([3.0, -1.0], dtype=torch.float64), atol=0.02)


def test_one_step_of_the_filter_by_hand() -> None:
    motion = predicted(started(torch.tensor([0.0, 0.0, 16.0, 16.0])))
    # x: (2 * 16 / 20)² + (10 * 16 / 160)² + (16 / 20)²; measured with a noise of (16 / 20)²
    variance = 1.6**2 + 1.0**2 + 0.8**2
    assert motion.covariance[0, 0].item() == pytest.approx(variance)
    seen = corrected(motion, torch.tensor([4.0, 0.0, 20.0, 16.0]))
    assert seen.mean[0].item() == pytest.approx(8 + 4 * variance / (variance + 0.8**2))
    assert seen.covariance[0, 0].item() == pytest.approx(variance * 0.64 / (variance + 0.64))


def test_the_filter_does_not_care_about_the_unit_of_length() -> None:
    boxes = torch.tensor([[0.0, 0.0, 8.0, 6.0], [1.0, 1.0, 9.0, 8.0], [3.0, 1.0, 11.0, 8.0]])
    fine, coarse = started(4 * boxes[0]), started(boxes[0])
    for box in boxes[1:]:
        fine, coarse = corrected(predicted(fine), 4 * box), corrected(predicted(coarse), box)
    assert torch.allclose(fine.box, 4 * coarse.box)


def test_boxes_overlap_by_their_areas_and_empty_ones_not_at_all() -> None:
    boxes = mask_edges(torch.stack([square(0, 0, 4), square(2, 0, 4), torch.full((GRID, GRID), -1.0)]))
    assert boxes.tolist() == [[0, 0, 4, 4], [2, 0, 6, 4], [0, 0, 0, 0]]
    assert overlaps(boxes[0], boxes).tolist() == pytest.approx([1, 1 / 3, 0])


def test_once_motion_is_stable_it_decides_between_masks_of_like_quality() -> None:
    follower = MotionFollower(MotionAware(stable_frames=5))
    quality, jump = [0.8, 0.7, 0.1], square(24, 24)
    for frame in range(1, 7):
        own = square(2 * frame, 4)
        assert follower.choose(frame, decoded(([own, jump, jump], quality, 3.0)))[0].mask == 1
    better_but_far = decoded(([jump, square(14, 4), jump], [0.72, 0.7, 0.1], 3.0))
    assert follower.choose(7, better_but_far)[0].mask == 2
    follower.restart()
    assert follower.choose(8, better_but_far)[0].mask == 1


def test_frames_in_which_an_object_was_seen_badly_are_no_memories() -> None:
    follower, track = MotionFollower(MotionAware()), ObjectTrack(conditioning={0: remembered()})
    for frame, (quality, score) in enumerate(
        [(0.9, 2.0), (0.4, 2.0), (0.9, 2.0), (0.9, -0.5), (0.4, 2.0)], start=1
    ):
        follower.choose(frame, decoded(([square(4, 4)] * 3, [quality, 0.0, 0.0], score)))
        follower.remember(frame, track, [remembered()])
    (chosen,) = follower.recalls(6, track, usual=usual_at(6))
    assert chosen.maps == ((0, 6), (1, 2), (3, 1), (5, 0)), "the previous frame counts in any case"
    assert chosen.pointers == usual_at(6)(track).pointers


def test_the_best_sum_wins_even_if_a_single_mask_is_better_elsewhere() -> None:
    ranked = branches([-0.1, -2.0], [[0.5, 0.4, 0.1], [0.9, 0.8, 0.7]], [5.0, 5.0])
    assert [(branch.path, branch.mask) for branch in ranked[:3]] == [(0, 1), (0, 2), (1, 1)]
    assert ranked[0].total == pytest.approx(-0.1 + torch.tensor(0.50001).log().item())
    assert pruned(ranked, most=2, certain=True) == ranked[:2]


def test_where_nothing_is_certain_paths_have_to_differ() -> None:
    ranked = [
        Branch(0, 1, -0.1, 0.901),
        Branch(1, 1, -0.2, 0.899),
        Branch(0, 2, -0.3, -0.9),
        Branch(2, 1, -0.4, 0.7),
    ]
    kept = pruned(ranked, most=3, certain=False)
    assert [(branch.path, branch.mask) for branch in kept] == [(0, 1), (0, 2), (2, 1)]
    alike = [branch._replace(quality=0.9) for branch in ranked]
    assert [branch.path for branch in pruned(alike, most=3, certain=False)] == [0, 1, 2]


def test_the_tree_keeps_the_path_that_is_best_in_the_end() -> None:
    follower, track = TreeFollower(MemoryTree(paths=2)), ObjectTrack(conditioning={0: remembered()})
    masks = [square(4, 4)] * 3
    follower.paths(track)
    # the second mask is worse at first, but all that follows from it is better
    steps = [
        [([0.6, 0.5, 0.1], 5.0)],
        [([0.1, 0.1, 0.1], 5.0), ([0.9, 0.2, 0.1], 5.0)],
    ]
    for frame, rows in enumerate(steps, start=1):
        choices = follower.choose(frame, decoded(*((masks, quality, score) for quality, score in rows)))
        follower.remember(frame, track, [remembered(10 * frame + choice.mask) for choice in choices])
        assert follower.paths(track)[0] is track and len(follower.paths(track)) == 2
    assert [output.pointer[0].item() for output in track.tracked.values()] == [12, 21]
    follower.restart()
    assert follower.paths(track) == [track]


def test_memories_of_the_tree_weigh_more_the_surer_the_object_was() -> None:
    assert ranks_as_weights([3.0, 10.0, -1.0]) == pytest.approx((1.0, 1.05, 0.95))
    follower, track = TreeFollower(MemoryTree(paths=1)), ObjectTrack(conditioning={0: remembered()})
    for frame, (quality, score) in enumerate([(0.9, 4.0), (0.05, 4.0), (0.9, 1.0)], start=1):
        follower.recalls(frame, track, usual=usual_at(frame))
        follower.choose(frame, decoded(([square(4, 4)] * 3, [quality, 0.0, 0.0], score)))
        follower.remember(frame, track, [remembered()])
    (chosen,) = follower.recalls(4, track, usual=usual_at(4))
    assert chosen.maps == ((0, 6), (1, 1), (3, 0)) and chosen.pointers == ((0, 4), (3, 1), (1, 2))
    assert chosen.emphasis is not None
    assert chosen.emphasis[0] == pytest.approx((1.05, 1.0, 0.95))
    assert chosen.emphasis[1] == pytest.approx((1.05, 0.95, 1.0))


def test_weights_of_memories_scale_keys_and_leave_values() -> None:
    network, generator = tiny_sam2(), torch.Generator().manual_seed(0)
    image, places = (torch.randn(1, 32, 4, 4, generator=generator) for _ in range(2))
    memory, positions = (torch.randn(1, 36, 8, generator=generator) for _ in range(2))  # 2 maps, 4 pointers
    weights = 0.9 + 0.2 * torch.rand(1, 36, generator=generator)
    attention = network.memory_attention
    weighed = attention(image, places, memory, positions, maps=2, emphasis=weights)
    scaled = weights[..., None] * (memory + positions) - memory
    assert torch.allclose(weighed, attention(image, places, memory, scaled, maps=2), atol=1e-5)
    assert not torch.allclose(weighed, attention(image, places, memory, positions, maps=2), atol=1e-5)
    ones = attention(image, places, memory, positions, maps=2, emphasis=torch.ones(1, 36))
    assert torch.equal(ones, attention(image, places, memory, positions, maps=2))


def test_masks_diverge_when_an_alternative_adds_something_far_away() -> None:
    chosen, far = square(4, 4) > 0, square(20, 4) > 0
    near, speck = square(4, 4, 7) > 0, torch.zeros(GRID, GRID, dtype=torch.bool)
    speck[31, 31] = True
    assert divergence(chosen, (chosen | far)[None]) == pytest.approx(6 / 22)
    assert divergence(chosen, (near | speck)[None]) == pytest.approx(36 / 49), "the largest region counts"
    assert divergence(chosen, torch.stack([chosen, near, far])) == pytest.approx(6 / 22)
    assert divergence(chosen, chosen[None]) == 1


def test_a_frame_is_an_anchor_if_the_object_is_sure_steady_and_has_a_double() -> None:
    clear = ([square(4, 4), square(4, 4), square(4, 4)], [0.9, 0.5, 0.5], 3.0)
    double = ([square(4, 4), square(22, 4), square(4, 4)], [0.9, 0.5, 0.5], 3.0)
    unsure = (double[0], [0.79, 0.5, 0.5], 3.0)
    absent = (double[0], double[1], -1.0)
    larger = ([square(4, 4, 9), square(22, 4), square(4, 4)], [0.9, 0.5, 0.5], 3.0)

    def anchors(*frames: tuple[list[Tensor], list[float], float]) -> set[int]:
        follower = DistractorFollower(DistractorAware())
        for frame, row in enumerate(frames, start=1):
            follower.choose(frame, decoded(row))
        return follower._anchors

    assert anchors(clear, double) == {2}
    for other in (clear, unsure, absent, larger):
        assert anchors(clear, clear, clear, other) == set()
    assert anchors(double) == set(), "one area says nothing about steadiness"
    assert anchors(clear, *[double] * 12) == {2, 8}, "more than five frames lie between them"


def test_recent_memories_lie_on_multiples_and_anchors_stay() -> None:
    follower, track = DistractorFollower(DistractorAware()), ObjectTrack(conditioning={0: remembered()})
    double = ([square(4, 4), square(22, 4), square(4, 4)], [0.9, 0.5, 0.5], 3.0)
    for frame in range(1, 24):
        hidden = (double[0], double[1], -1.0) if frame in (10, 23) else double
        follower.choose(frame, decoded(hidden))
        follower.remember(frame, track, [remembered()])
    assert follower._anchors == {2, 8, 14, 20}
    (chosen,) = follower.recalls(24, track, usual=usual_at(24))
    assert chosen.maps == ((0, 6), (8, 6), (14, 6), (20, 6), (22, 0), (15, 1), (5, 2))
    distances = dict(chosen.pointers)
    assert distances[0] == 24 and 10 not in distances and 23 not in distances
    assert min(set(distances) - {0, 8}) == 9


def test_a_stream_of_anchors_remembers_what_a_stored_video_would() -> None:
    generator = torch.Generator().manual_seed(0)
    stored, streamed = (DistractorFollower(DistractorAware()) for _ in range(2))
    whole, short = (ObjectTrack(conditioning={0: remembered()}) for _ in range(2))
    for frame in range(1, 120):
        usual = usual_at(frame)
        expected = stored.recalls(frame, whole, usual=usual)
        assert streamed.recalls(frame, short, usual=usual)[0].maps == expected[0].maps
        double, score = torch.rand(2, generator=generator).tolist()
        other = square(22, 4) if double < 0.3 else square(4, 4)
        for follower, track in ((stored, whole), (streamed, short)):
            follower.choose(frame, decoded(([square(4, 4), other, other], [0.9, 0.5, 0.5], score - 0.4)))
            follower.remember(frame, track, [remembered()])
        streamed.forget(frame, short, usual=usual_at(frame + 1))
    assert len(stored._anchors) > 3 and len(short.tracked) <= 25


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_a_stream_under_a_policy_keeps_a_bounded_memory(policy: Any) -> None:
    segmenter, video = tiny_segmenter(policy=policy), moving_rectangles(40, 48, 64, 11)
    sizes, kept = [], []
    for time, frame in enumerate(video):
        labels = segmenter.step(frame, two_rectangles() if time == 0 else None)
        assert set(labels.unique().tolist()) <= {0, 1, 2}
        sizes.append(segmenter.memory_mb)
        for identity, track in segmenter._tracks.items():
            paths = segmenter._paths(identity, track)
            assert len(paths) <= getattr(policy, "paths", 1)
            kept.append(max(len(path.tracked) for path in paths))
            maps = [output for path in paths for output in path.tracked.values() if output.memory is not None]
            assert len(maps) <= 10 * len(paths)
    assert max(kept) <= 21
    assert max(sizes[30:]) <= max(sizes[:30])


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_a_stream_under_a_policy_takes_prompts_at_any_time(policy: Any) -> None:
    segmenter, video = tiny_segmenter(policy=policy), moving_rectangles(9, 48, 64, 11)
    for time, frame in enumerate(video):
        said = {0: two_rectangles().eq(1), 2: two_rectangles(), 6: two_rectangles().eq(2)}.get(time)
        segmenter.step(frame, None if said is None else said.byte())
    assert segmenter.object_ids == (1, 2)
    segmenter.remove_objects([1])
    segmenter.step(video[0])
    assert segmenter._followers.keys() == {2}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_objects_do_not_influence_each_other_under_a_policy(policy: Any) -> None:
    video, labels = moving_rectangles(8, 48, 64, 11), two_rectangles()
    both, alone = tiny_segmenter(policy=policy), tiny_segmenter(policy=policy)
    for time, frame in enumerate(video):
        both.step(frame, labels if time == 0 else None)
        alone.step(frame, labels * labels.eq(2) if time == 0 else None)
    first, second = both._tracks[2].tracked, alone._tracks[2].tracked
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[time].pointer, second[time].pointer, atol=1e-2) for time in first)


@pytest.mark.parametrize("policy", POLICIES[::2], ids=lambda policy: type(policy).__name__)
def test_a_stream_and_a_session_agree_under_a_policy(policy: Any) -> None:
    video, labels = moving_rectangles(16, 48, 64, 11), two_rectangles()  # shorter ones have fewer pointers
    session = SAM2Session(tiny_sam2(), video, image_size=64, policy=policy)
    segmenter = tiny_segmenter(policy=policy)
    for identity in (1, 2):
        session.add_prompt(0, identity, mask=labels == identity)
    for masks in session.propagate():
        segmenter.step(video[masks.frame], labels if masks.frame == 0 else None)
        expected = masks.logits.sigmoid()
        expected = torch.cat([1 - expected.amax(dim=0, keepdim=True), expected])
        assert (segmenter.probabilities - expected / expected.sum(dim=0)).abs().max() < 2e-2


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_backwards_is_forwards_in_a_video_that_is_turned_round(policy: Any) -> None:
    video, mask = moving_rectangles(9, 48, 64, 11), two_rectangles() == 1
    forward = SAM2Session(tiny_sam2(), video, image_size=64, policy=policy)
    backward = SAM2Session(tiny_sam2(), video.flip(0), image_size=64, policy=policy)
    forward.add_prompt(0, 1, mask=mask)
    backward.add_prompt(8, 1, mask=mask)
    there = {masks.frame: masks.logits for masks in forward.propagate()}
    back = {masks.frame: masks.logits for masks in backward.propagate(reverse=True)}
    assert there.keys() == back.keys()
    assert all(torch.allclose(logits, back[8 - frame], atol=1e-2) for frame, logits in there.items())


def test_the_end_of_a_stored_video_chooses_the_path() -> None:
    video, mask = moving_rectangles(8, 48, 64, 11), two_rectangles() == 1
    session = SAM2Session(tiny_sam2(), video, image_size=64, policy=MemoryTree())
    session.add_prompt(0, 1, mask=mask)
    shown = [masks.logits for masks in session.propagate()]
    track = session._tracks[1]
    for frame, logits in enumerate(shown):
        assert torch.equal(logits, session._masks(frame, [track.remembered(frame)]).logits)


def test_one_path_without_modulation_is_sam_2_where_every_frame_is_good() -> None:
    policy = MemoryTree(paths=1, min_quality=-1.0, modulate=False)
    video, labels = moving_rectangles(12, 48, 64, 11), two_rectangles()
    plain, tree = tiny_segmenter(), tiny_segmenter(policy=policy)
    for time, frame in enumerate(video):
        plain.step(frame, labels if time == 0 else None)
        tree.step(frame, labels if time == 0 else None)
        if all(
            float(output.object_score) > 0 for t in plain._tracks.values() for output in t.tracked.values()
        ):
            assert torch.allclose(plain.probabilities, tree.probabilities, atol=1e-4)


def test_no_policy_is_the_default_and_one_can_be_given_by_name() -> None:
    plain = vosssl.create_segmenter("sam2.1-hiera-tiny", network=tiny_sam2(), device="cpu", image_size=64)
    assert plain.policy is None
    policy = MemoryTree(paths=2)
    given = vosssl.create_segmenter(
        "sam2.1-hiera-tiny", network=tiny_sam2(), device="cpu", image_size=64, policy=policy
    )
    assert given.policy is policy
    node = {"_target_": "vosssl.methods.sam2.policies.MotionAware", "stable_frames": 4}
    named = vosssl.create_segmenter(
        "sam2.1-hiera-tiny", network=tiny_sam2(), device="cpu", image_size=64, policy=node
    )
    assert isinstance(named.policy, MotionAware) and named.policy.stable_frames == 4


def test_constants_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="weight in"):
        MotionAware(motion_weight=1.5)
    with pytest.raises(ValueError, match="at least 1"):
        MemoryTree(paths=0)
    with pytest.raises(ValueError, match="1 to 6"):
        DistractorAware(anchors=7)
