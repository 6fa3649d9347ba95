"""Exported networks against those they were exported from: graph by graph, and behind the same segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from vosssl.backbones.vit import VisionTransformer
from vosssl.clip import Clip
from vosssl.data.synthetic import SyntheticClips
from vosssl.engine.export import write_graphs
from vosssl.engine.parity import agreement, followed
from vosssl.methods.vit_seg import ViTSeg
from vosssl.modes.build import build
from vosssl.modes.export import graphs_of
from vosssl.propagation.class_segmentation import ClassSegmenter
from vosssl.propagation.graph_folder import Example, ExportedNetwork

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
