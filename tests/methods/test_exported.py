"""Exported networks against those they were exported from: graph by graph, and behind the same segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.methods.cutie_models import tiny_cutie
from tests.methods.mobile_sam_models import tiny_mobile_sam
from tests.methods.sam2_models import tiny_sam2
from vosssl.backbones.vit import VisionTransformer
from vosssl.clip import Clip
from vosssl.data.synthetic import SyntheticClips
from vosssl.engine.export import write_graphs
from vosssl.engine.parity import agreement, followed
from vosssl.methods.cutie.segmenter import cutie_segmenter
from vosssl.methods.sam2.segmenter import SAM2Segmenter
from vosssl.methods.segformer import SegFormer
from vosssl.methods.slots import Slots
from vosssl.methods.stcn import STCN, stcn_segmenter
from vosssl.methods.vit_seg import ViTSeg
from vosssl.modes.build import build
from vosssl.modes.export import graphs_of
from vosssl.propagation.class_segmentation import ClassSegmenter
from vosssl.propagation.graph_folder import Example, ExportedNetwork
from vosssl.propagation.image_prompting import ImagePrompt, ImagePrompter
from vosssl.propagation.label_propagation import patch_propagation
from vosssl.propagation.memory_bank import MemoryBank
from vosssl.propagation.segmenter import Box, Clicks
from vosssl.propagation.slot_tracking import SlotTracker

PARITY = 2e-3  # of probabilities, over a clip


def clip(size: tuple[int, int] = (64, 96), objects: int = 2) -> Clip:
    made = SyntheticClips(size=size, frames=5, objects=(objects, objects), count=1, flow=False, split="val")
    return made[0]


def export(
    network: nn.Module, user: Any, folder: Path, *examples: tuple[tuple[int, int], int]
) -> tuple[ExportedNetwork, dict[str, Any]]:
    """The network out of a folder, and the manifest."""
    network.eval().requires_grad_(False)
    made = graphs_of("tiny", network, user, [Example(*example) for example in examples])
    manifest = write_graphs(made.graphs, folder, facts={"method": {"network": made.network}})
    exported = build(made.network, trusted_only=True)
    exported.open(folder)
    return exported.eval(), manifest


def assert_right(manifest: dict[str, Any]) -> None:
    """All examples were compared, and agree."""
    for name, entry in manifest["graphs"].items():
        for check in entry["checked"]:
            assert check["fits"], f"{name} takes only one size"
            assert check["difference"] < PARITY, name


def test_a_network_of_classes_and_of_several_frames(tmp_path: Path) -> None:
    backbone = VisionTransformer(patch_size=8, width=32, depth=1, heads=2, positions="rotary")
    network = ViTSeg(backbone, head_width=16, window=2, space_time_blocks=1).eval()
    exported, manifest = export(
        network, ClassSegmenter(network, stride=8), tmp_path, ((64, 96), 1), ((40, 48), 1)
    )
    assert_right(manifest)
    for size in ((64, 96), (50, 70)):
        found = agreement(
            followed(ClassSegmenter(network, stride=8), clip(size)),
            followed(ClassSegmenter(exported, stride=8), clip(size)),
        )
        assert found.difference < PARITY and found.j_and_f >= 0.999


def test_segformer(tmp_path: Path) -> None:
    network = SegFormer(widths=(8, 8, 10, 16), depths=(1, 1, 1, 1), head_width=16).eval()
    exported, manifest = export(
        network, ClassSegmenter(network, stride=32), tmp_path, ((64, 96), 1), ((32, 64), 1)
    )
    assert_right(manifest)
    ours, theirs = (followed(ClassSegmenter(one, stride=32), clip()) for one in (network, exported))
    assert agreement(ours, theirs).difference < PARITY


def test_a_backbone_follows_masks_by_label_propagation(tmp_path: Path) -> None:
    network = VisionTransformer(patch_size=8, width=32, depth=1, heads=2, positions="size", pretrain_grid=6)
    exported, manifest = export(
        network, patch_propagation(network, multiple=8, size=64), tmp_path, ((64, 96), 1), ((72, 48), 1)
    )
    assert_right(manifest)
    for objects in (1, 3):
        ours, theirs = (
            followed(patch_propagation(one, multiple=8, size=64), clip(objects=objects))
            for one in (network, exported)
        )
        assert agreement(ours, theirs).j_and_f >= 0.999


def test_slots_are_discovered_and_locked_on(tmp_path: Path) -> None:
    network = Slots(features=None, num_slots=5, slot_dim=32, width=8, dim=16, depth=1).eval()

    def tracker(one: Any) -> SlotTracker:
        return SlotTracker(one, output="attention", slots_per_object=2, num_background_slots=3)

    exported, manifest = export(network, tracker(network), tmp_path, ((64, 96), 5), ((64, 96), 3))
    assert_right(manifest)
    ours, theirs = (followed(tracker(one), clip()) for one in (network, exported))
    assert agreement(ours, theirs).difference < PARITY
    ours, theirs = (tracker(one) for one in (network, exported))
    for objects in (1, 3):
        video = clip(objects=objects)
        for segmenter in (ours, theirs):
            segmenter.reset()
            segmenter.step(video.frames[0], video.labels[0])
            segmenter.step(video.frames[1])
        assert torch.allclose(ours.probabilities, theirs.probabilities, atol=PARITY)


def tiny_stcn() -> STCN:
    torch.manual_seed(0)
    return STCN(
        key_blocks=(1, 1, 1),
        bottleneck=False,
        value_blocks=(1, 1, 1),
        width=8,
        key_channels=8,
        value_channels=16,
        decoder_channels=8,
    ).eval()


@pytest.mark.parametrize(
    ("make", "segmenter"), [(tiny_stcn, stcn_segmenter), (tiny_cutie, cutie_segmenter)], ids=["stcn", "cutie"]
)
def test_a_memory_network_follows_two_and_one_objects(make: Any, segmenter: Any, tmp_path: Path) -> None:
    network = make()

    def user(one: Any) -> Any:
        return segmenter(one, mem_every=2, top_k=8)

    exported, manifest = export(network, user(network), tmp_path, ((64, 96), 2), ((48, 64), 1))
    assert_right(manifest)
    for size, objects in (((64, 96), 2), ((50, 60), 1)):
        ours, theirs = (followed(user(one), clip(size, objects)) for one in (network, exported))
        assert agreement(ours, theirs).difference < PARITY
    late = clip()
    results = []
    for one in (network, exported):
        follower = user(one)
        follower.step(late.frames[0], (late.labels[0] == 1).byte())
        follower.step(late.frames[1], 2 * (late.labels[1] == 2).byte())  # another object: another group
        follower.step(late.frames[2])
        results.append(follower.probabilities)
    assert torch.allclose(*results, atol=PARITY)
    assert torch.allclose(*static_and_bank_readouts(exported, clip(), top_k=8), atol=PARITY)


def static_and_bank_readouts(network: Any, video: Clip, *, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What `read` says of a memory of fixed size, half of it not in use, and what the bank says."""
    first, second = (network.encode_frame(frame[None] / 255) for frame in video.frames[:2])
    masks = torch.stack([video.labels[0] == identity for identity in (1, 2)]).float()[None]
    values, _ = network.memorise(
        video.frames[:1] / 255, first, masks, network.fresh_carry(first, 2), chunk_size=-1
    )
    bank = MemoryBank(top_k=top_k)
    bank.append(first, values, (1, 2))
    own = {"key": first.key, "shrinkage": first.shrinkage}
    memory = {
        f"memory_{name}": part[0].flatten(1).T.repeat(2, 1) for name, part in own.items() if part is not None
    }
    memory["memory_values"] = values[0].flatten(2).transpose(1, 2).repeat(1, 2, 1)
    valid = torch.arange(len(memory["memory_key"])) >= len(memory["memory_key"]) // 2
    asked = {"key": second.key} | ({} if second.selection is None else {"selection": second.selection})
    return network.graphs("read", **asked, **memory, valid=valid)[0], bank.read(second)[0]


def test_sam_2_follows_masks_clicks_and_boxes(tmp_path: Path) -> None:
    network = tiny_sam2()

    def user(one: Any) -> SAM2Segmenter:
        return SAM2Segmenter(one, image_size=64, memory_dtype=torch.float32)

    exported, manifest = export(network, user(network), tmp_path, ((64, 64), 2), ((64, 64), 1))
    assert_right(manifest)
    video = clip()
    for objects in (2, 1):
        ours, theirs = (followed(user(one), clip(objects=objects)) for one in (network, exported))
        assert agreement(ours, theirs).difference < PARITY
    prompt = {1: Clicks(torch.tensor([[30.5, 20.5]]), torch.tensor([True])), 2: Box(10, 12, 50, 40)}
    results = []
    for one in (network, exported):
        follower = user(one)
        follower.step(video.frames[0], prompt)
        follower.step(video.frames[1])
        results.append(follower.probabilities)
    assert torch.allclose(*results, atol=PARITY)


def test_mobile_sam_answers_points_boxes_and_masks(tmp_path: Path) -> None:
    network = tiny_mobile_sam()
    exported, manifest = export(network, ImagePrompter(network), tmp_path, ((64, 96), 2), ((90, 70), 1))
    assert_right(manifest)
    click = Clicks(torch.tensor([[30.5, 20.5], [8.5, 9.5]]), torch.tensor([True, False]))
    ours, theirs = ImagePrompter(network), ImagePrompter(exported)
    for prompter in (ours, theirs):
        prompter.set_image(clip((50, 70)).frames[0])
    mask = ours.predict(click).best().low_res[0, 0]
    prompts = [click, Box(5, 6, 40, 30), ImagePrompt(clicks=click, box=Box(5, 6, 40, 30), mask=mask)]
    for multimask in (True, False):
        for prompt in prompts:
            mine, other = (one.predict(prompt, multimask=multimask) for one in (ours, theirs))
            assert torch.allclose(mine.logits, other.logits, atol=PARITY * float(mine.logits.abs().max()))
            assert torch.allclose(mine.iou, other.iou, atol=PARITY)
