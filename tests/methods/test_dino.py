"""DINO's student, teacher and objective: who learns from whom, the schedules, and exact resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vosssl.clip import Batch, collate
from vosssl.data.multi_crop import MultiCrop
from vosssl.data.sampling import ClipLoader, Draw
from vosssl.data.synthetic import SyntheticClips
from vosssl.engine import checkpoint
from vosssl.engine.trainer import Trainer
from vosssl.methods.dino import Dino, DropPath, Objective

ALL = {"distillation_weight": 1.0, "masked_weight": 1.0, "correspondence_weight": 1.0}


def dino(**settings: Any) -> Dino:
    torch.manual_seed(0)
    given = {"patch_size": 8, "width": 16, "depth": 2, "heads": 2, "grid": 4, "prototypes": 24}
    return Dino(**given | {"hidden_dim": 16, "bottleneck_dim": 8} | settings)


def crops(count: int = 8) -> MultiCrop:
    clips = SyntheticClips(size=48, frames=2, count=count, flow=False)
    return MultiCrop(clips, size=32, local_size=16, local_crops=2, patch_size=8, mirror=0.0)


def batch_of(count: int = 3) -> Batch:
    return collate([crops()[Draw(index, index)] for index in range(count)], seeds=list(range(count)))


def test_every_term_reaches_the_student_and_none_the_teacher() -> None:
    network = dino().train()
    losses = Objective(steps=10, mask_probability=1.0, **ALL)(network, batch_of(), 0)
    assert set(losses) == {"distillation", "masked", "correspondence"}
    for loss in losses.values():
        network.zero_grad()
        loss.backward(retain_graph=True)
        assert network.student.patch_embed.proj.weight.grad.abs().sum() > 0
        assert all(weight.grad is None for weight in network.teacher.parameters())
        assert all(weight.grad is None for weight in network.teacher_head.parameters())
    assert not any(weight.requires_grad for weight in network.teacher.parameters())


def test_terms_without_weight_are_left_out_with_what_they_cost() -> None:
    network = dino().train()
    objective = Objective(steps=10, distillation_weight=0.0, correspondence_weight=2.0)
    assert set(objective(network, batch_of(), 0)) == {"correspondence"}
    assert (network.centre == 0).all()
    assert set(Objective(steps=10)(network, batch_of(), 0)) == {"distillation"}
    with pytest.raises(ValueError, match="at least one above"):
        Objective(steps=10, distillation_weight=0.0)


def test_the_teacher_follows_once_a_step() -> None:
    network = dino()
    before = network.teacher.patch_embed.proj.weight.clone()
    with torch.no_grad():
        network.student.patch_embed.proj.weight.add_(1.0)
    network.follow(1, 0.9)
    network.follow(1, 0.9)  # a batch in two parts asks twice
    assert torch.allclose(network.teacher.patch_embed.proj.weight, before + 0.1, atol=1e-6)
    network.follow(2, 0.0)
    assert torch.allclose(network.teacher.patch_embed.proj.weight, before + 1.0, atol=1e-6)


def test_schedules_start_and_end_where_they_say() -> None:
    objective = Objective(steps=100, momentum=(0.9, 1.0), teacher_temperature=(0.04, 0.07), teacher_warmup=10)
    assert objective.momentum(0) == pytest.approx(0.9)
    assert objective.momentum(50) == pytest.approx(0.95)
    assert objective.momentum(100) == pytest.approx(1.0)
    assert objective.teacher_temperature(0) == pytest.approx(0.04)
    assert objective.teacher_temperature(5) == pytest.approx(0.055)
    assert objective.teacher_temperature(99) == 0.07


def test_the_centre_follows_the_teachers_mean() -> None:
    network = dino().train()
    batch = batch_of()
    objective = Objective(steps=10, centre_momentum=0.9)
    large = objective.crops(batch, 0, network.patch_size).large
    tokens = network.teacher(network._normalised(large).flatten(0, 1)).cls
    expected = 0.1 * network.teacher_head(tokens).mean(0)
    objective(network, batch, 0)
    assert torch.allclose(network.centre[0], expected, atol=1e-6)


def test_prototypes_stay_while_they_are_frozen() -> None:
    network = dino().train()
    objective = Objective(steps=10, frozen_prototypes=1)
    objective(network, batch_of(), 0)["distillation"].backward()
    assert (network.student_head.prototypes.grad == 0).all()
    network.zero_grad()
    objective(network, batch_of(), 1)["distillation"].backward()
    assert network.student_head.prototypes.grad.abs().sum() > 0


def test_hidden_patches_are_hidden_from_the_student() -> None:
    network = dino()
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[..., 8:16, 8:16] += 1.0
    masks = torch.zeros(1, 16, dtype=torch.bool)
    masks[0, 5] = True
    seen = network.student(images, masks=masks).patches
    assert torch.equal(seen, network.student(changed, masks=masks).patches)
    assert not torch.equal(network.student(images).patches, network.student(changed).patches)


def test_images_get_the_teachers_features() -> None:
    network = dino().eval()
    images = torch.randn(2, 3, 32, 48)
    assert torch.equal(network(images).patches, network.teacher(images).patches)
    assert network(images).patches.shape == (2, 24, 16)


def test_dropped_paths_are_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.5)
    branch = torch.ones(64, 2, 3)
    assert set(drop(branch).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(drop.eval()(branch), branch)
    network = dino(drop_path=0.5)
    assert network.state_dict().keys() == dino().state_dict().keys()


def test_a_batch_of_other_clips_is_refused() -> None:
    clips = collate(SyntheticClips(size=32, frames=3, count=2).__getitems__([0, 1]))
    with pytest.raises(ValueError, match="MultiCrop"):
        Objective(steps=10)(dino(), clips, 0)
    bare = MultiCrop(SyntheticClips(size=48, frames=2, count=2), size=32, local_size=16, local_crops=2)
    with pytest.raises(ValueError, match="patch_size"):
        Objective(steps=10, correspondence_weight=1.0)(dino().train(), collate([bare[0], bare[1]]), 0)


def run(folder: Path, *, steps: int) -> Trainer:
    """A miniature run of all terms; its schedules are those of six steps."""
    network = dino(drop_path=0.2)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return Trainer(
        network,
        Objective(steps=6, teacher_warmup=4, frozen_prototypes=2, momentum=(0.8, 1.0), **ALL),
        ClipLoader(crops(), batch_size=2, seed=3),
        torch.optim.AdamW(weights, lr=1e-3),
        steps=steps,
        run_dir=folder,
        bar=False,
    )


def test_an_interrupted_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = run(tmp_path / "whole", steps=6)
    whole.fit()
    torch.manual_seed(1)
    run(tmp_path / "parts", steps=3).fit()
    resumed = run(tmp_path / "parts", steps=6)
    torch.manual_seed(99)
    resumed.resume(tmp_path / "parts" / "last.ckpt")
    resumed.fit()
    expected = checkpoint.load(tmp_path / "whole" / "last.ckpt")["network"]
    state = checkpoint.load(tmp_path / "parts" / "last.ckpt")["network"]
    assert expected["centre"].abs().sum() > 0
    assert expected["patch_centre"].abs().sum() > 0
    assert not torch.equal(expected["teacher.norm.weight"], expected["student.norm.weight"])
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
