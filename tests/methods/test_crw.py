"""CRW against the authors' program, its checkpoints, its switches, and that it learns and resumes."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fill import filled, noise_video
from vosssl.__main__ import main
from vosssl.backbones.weights import load_weights
from vosssl.clip import Batch, collate
from vosssl.data.sampling import ClipLoader
from vosssl.data.synthetic import SyntheticClips
from vosssl.losses.random_walk import random_walk_loss
from vosssl.methods.crw import CRW, Objective, crw_segmenter
from vosssl.modes.build import create_model
from vosssl.ops.images import IMAGENET_MEAN, IMAGENET_STD

GOLDENS = Path(__file__).parents[1] / "goldens" / "label_propagation"
SMALL: dict[str, Any] = {"width": 4, "dim": 8, "stages": 3, "first_stride": 1, "pool": False}
FEW: dict[str, Any] = {"side": 3, "patch": 0.25, "size": 8}


@cache
def goldens() -> dict[str, Tensor]:
    with np.load(GOLDENS / "crw.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@cache
def official() -> CRW:
    network = CRW()
    network.load_state_dict(filled(network.state_dict()))
    return network.eval()


def golden_input(name: str) -> Tensor:
    frames = noise_video(*goldens()[name].tolist())
    return (frames - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


def batch_of(count: int, *, frames: int = 4, size: int = 32) -> Batch:
    clips = SyntheticClips(size=size, frames=frames, count=count).__getitems__(list(range(count)))
    return collate(clips, seeds=list(range(count)))


def test_keys_and_shapes_are_the_official_ones_in_training_and_at_test() -> None:
    expected = json.loads((GOLDENS / "crw_keys.json").read_text())
    for name, network in (("crw_train", official()), ("crw_test", official().for_test())):
        found = [[key, list(value.shape)] for key, value in network.state_dict().items()]
        assert found == expected[name]


@torch.no_grad()
def test_maps_in_training_and_at_test_are_the_official_ones() -> None:
    images, arrays = golden_input("crw/encoder/input"), goldens()
    last, third = official().encoder(images), official().for_test()(images)
    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(last.mean((2, 3)), arrays["crw/encoder/train_mean"], **close)
    torch.testing.assert_close(last[:, ::16, ::2, ::2], arrays["crw/encoder/train"], **close)
    torch.testing.assert_close(third.mean((2, 3)), arrays["crw/encoder/test_mean"], **close)
    torch.testing.assert_close(third[:, ::8, ::2, ::2], arrays["crw/encoder/test"], **close)


@torch.no_grad()
def test_nodes_of_patches_and_their_loss_are_the_official_ones() -> None:
    patches = golden_input("crw/patches/input").view(2, 3, 4, 3, 64, 64)  # (B, T, N, 3, h, w)
    nodes = official()(patches)
    torch.testing.assert_close(nodes, goldens()["crw/patches/nodes"], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        random_walk_loss(nodes).loss[None], goldens()["crw/patches/loss"], atol=1e-5, rtol=0
    )


def test_a_single_image_has_a_node_at_every_place_of_its_map() -> None:
    network = CRW(**SMALL).eval()
    images = torch.randn(2, 3, 1, 3, 16, 12)
    nodes = network(images)
    assert nodes.shape == (2, 8, 3, 8 * 6)
    place = network.encoder(images[1, 2])[:, :, 4, 5]
    torch.testing.assert_close(nodes[1, :, 2, 4 * 6 + 5], F.normalize(network.selfsim_fc(place)[0], dim=0))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_training_file_loads_strictly_with_either_name_of_its_convolutions(
    tmp_path: Path, wrapped: bool
) -> None:
    state = filled(official().state_dict(), salt="file")
    names = {key: key.replace("conv1.weight", "conv1.1.weight") if wrapped else key for key in state}
    content = {
        "model": {names[key]: value for key, value in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 24,
        "args": argparse.Namespace(dropout=0.1),
    }
    torch.save(content, tmp_path / "pretrained.pth")
    network = create_model("crw-resnet18", weights=tmp_path / "pretrained.pth")
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    del content["model"]["selfsim_fc.0.bias"]
    with pytest.raises(ValueError, match="1 missing"):
        load_weights(network, content)


def test_the_network_at_test_shares_the_weights_of_the_trained_one() -> None:
    network = CRW(**SMALL)
    features = network.for_test()
    with torch.no_grad():
        network.encoder.model.conv1.weight.zero_()
    assert features.encoder.model.conv1.weight.abs().max() == 0
    assert features.training
    assert not network.eval().for_test().training


def test_edges_are_dropped_in_training_alone_unless_the_bug_is_asked_for() -> None:
    batch, network = batch_of(2), CRW(**SMALL)
    whole = Objective(**FEW, edge_dropout=0)
    network.eval()
    exact = whole.walk(network, batch).loss
    assert torch.equal(Objective(**FEW, edge_dropout=0.4).walk(network, batch).loss, exact)
    thinned = Objective(**FEW, edge_dropout=0.4, drop_in_evaluation=True).walk(network, batch).loss
    assert not torch.allclose(thinned, exact)


def test_dropped_edges_belong_to_their_sample_and_add_up_only_on_request() -> None:
    seeds, nodes = torch.tensor([5, 6]), torch.zeros(2, 8, 4, 50)
    there, home = Objective(edge_dropout=0.3).dropped(seeds, nodes)  # type: ignore[misc]
    assert there.shape == (2, 3, 50, 50)
    assert there.float().mean().item() == pytest.approx(0.3, abs=0.02)
    overlap = (home & there.transpose(-2, -1)).float().mean().item()
    assert overlap == pytest.approx(0.09, abs=0.02)
    alone, _ = Objective(edge_dropout=0.3).dropped(seeds[1:], nodes[1:])  # type: ignore[misc]
    assert torch.equal(there[1:], alone)
    _, more = Objective(edge_dropout=0.3, drops_add_up=True).dropped(seeds, nodes)  # type: ignore[misc]
    assert torch.equal(more, home | there.transpose(-2, -1))


def test_terms_add_up_to_the_mean_over_cycles_and_flip_changes_them() -> None:
    batch, network = batch_of(2, frames=5), CRW(**SMALL).eval()
    objective = Objective(**FEW)
    terms = objective(network, batch, 0)
    assert list(terms) == ["cycle_4", "cycle_6", "cycle_8"]
    torch.testing.assert_close(sum(terms.values()), objective.walk(network, batch).loss)
    assert next(iter(Objective(**FEW, shortest=1)(network, batch, 0))) == "cycle_2"
    flipped = Objective(**FEW, flip=True).walk(network, batch).loss
    assert not torch.allclose(flipped, objective.walk(network, batch).loss)


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    network, objective, batch = CRW(**SMALL), Objective(**FEW, edge_dropout=0), batch_of(4)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for step in range(15):
        loss = torch.stack(list(objective(network, batch, step).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2


def test_the_segmenter_follows_with_the_map_before_the_last_stage() -> None:
    segmenter = crw_segmenter(CRW(**SMALL).eval(), context=2, radius=4)
    clip = SyntheticClips(size=32, frames=3, count=1)[0]
    assert clip.labels is not None
    first = segmenter.step(clip.frames[0], clip.labels[0])
    assert torch.equal(first, clip.labels[0])
    assert segmenter.step(clip.frames[1]).shape == (32, 32)
    assert segmenter.memory.features.shape[1:] == (16, 16, 16)


def test_two_stages_and_a_small_first_kernel_see_thirteen_pixels() -> None:
    small = {"width": 4, "stages": 2, "blocks": 1, "first_stride": 1, "first_side": 3, "pool": False}
    network = CRW(**small).eval().for_test()
    images = torch.rand(1, 3, 40, 40, requires_grad=True)
    features = network(images)
    assert features.shape == (1, 8, 20, 20)
    features[0, :, 10, 10].sum().backward()
    seen = images.grad.abs().sum((0, 1)).nonzero()  # rows and columns around 20
    assert seen.min() >= 20 - 6 and seen.max() <= 20 + 6


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="edge_dropout is 1"):
        Objective(edge_dropout=1)
    with pytest.raises(ValueError, match="side is 1"):
        Objective(side=1)


RUN = (
    "mode=train", "hparam=crw", "device=cpu", "data.train.size=32", "data.val.size=32", "data.val.count=2",
    "data.val.frames=3", "method.network.width=4", "method.network.dim=8", "method.objective.side=3",
    "method.objective.size=8", "train.steps=4", "train.batch_size=2", "train.max_seconds=null",
    "train.validate_every=2", "train.validation_clips=1",
)  # fmt: skip


def test_an_interrupted_run_goes_on_to_the_same_weights_and_shows_numbers_floors_and_a_picture(
    tmp_path: Path, monkeypatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*RUN, "exp_name=whole"]) == 0
    (whole,) = tmp_path.glob("runs/whole/*/last.ckpt")
    report = json.loads((whole.parent / "report.json").read_text())
    assert set(report["floors"]) == {"copy first mask", "colours alone", "untrained"}
    assert (whole.parent / "validation.png").is_file() and (whole.parent / "best.ckpt").is_file()
    assert "validation: J&F" in (whole.parent / "log.txt").read_text()
    batches = ClipLoader.batches

    def interrupted(self, start_step: int = 0) -> Iterator:
        for step, batch in enumerate(batches(self, start_step)):
            if step == 1:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(ClipLoader, "batches", interrupted)
        assert main([*RUN, "exp_name=part", "floors=null"]) == 130
    (part,) = tmp_path.glob("runs/part/*/last.ckpt")
    assert torch.load(part, weights_only=True)["step"] == 2
    assert main(["mode=train", f"resume={part}", "floors=null"]) == 0
    one, other = (torch.load(path, weights_only=True) for path in (whole, part))
    assert one["step"] == other["step"] == 4
    assert all(torch.equal(value, other["network"][name]) for name, value in one["network"].items())
    moments = [
        (value, other["optimizer"]["state"][index][name])
        for index, state in one["optimizer"]["state"].items()
        for name, value in state.items()
    ]
    assert moments and all(torch.equal(first, second) for first, second in moments)
