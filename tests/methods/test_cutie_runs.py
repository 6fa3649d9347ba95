"""Runs of Cutie's recipes in miniature: interrupted and gone on with, one stage after the other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vosssl.__main__ import main
from vosssl.data.sampling import ClipLoader

MINIATURE = (
    "mode=train", "hparam=cutie_tiny", "device=cpu", "floors=null", "evaluate.limit=1", "data.size=32",
    "data.objects=2", "train.steps=3", "train.batch_size=2", "train.validate_every=null",
    "train.best_metric=null", "method.network.backbone_width=8", "method.network.mask_backbone_width=8",
    "method.network.width=8", "method.network.key_width=4", "method.network.sensory_width=4",
    "method.network.decoder_widths=[4,4]", "method.network.heads=2", "method.network.queries=2",
    "method.objective.train_num_points=32",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*more: str, folder: Path, name: str) -> Path:
    assert main([*MINIATURE, *more, f"exp_name={name}"]) == 0
    (checkpoint,) = folder.glob(f"runs/{name}/*/last.ckpt")
    return checkpoint


def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(folder: Path, monkeypatch) -> None:
    whole = run(folder=folder, name="whole")
    batches = ClipLoader.batches

    def interrupted(self, start_step: int = 0) -> Iterator:
        for step, batch in enumerate(batches(self, start_step)):
            if step == 1:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(ClipLoader, "batches", interrupted)
        assert main([*MINIATURE, "exp_name=part"]) == 130
    (part,) = folder.glob("runs/part/*/last.ckpt")
    assert torch.load(part, weights_only=True)["step"] == 2
    assert main(["mode=train", f"resume={part}", "floors=null", "evaluate.limit=1"]) == 0
    one, two = (torch.load(path, weights_only=True) for path in (whole, part))
    assert one["step"] == two["step"] == 3
    assert all(torch.equal(value, two["network"][name]) for name, value in one["network"].items())


def test_pre_training_on_single_objects_goes_on_with_several(folder: Path) -> None:
    single = ["+method.network.single_object=true", "data.objects=1", "train.steps=1"]
    first = run(*single, folder=folder, name="static")
    second = run(f"weights={first}", "train.steps=1", "optimizer.lr=0", folder=folder, name="main")
    before, after = (torch.load(path, weights_only=True)["network"] for path in (first, second))
    for key in ("mask_encoder.conv1.weight", "pixel_fuser.sensory_compress.weight"):
        assert after[key].shape[1] == before[key].shape[1] + 1
        assert torch.equal(after[key][:, :-1], before[key])
    assert torch.equal(after["mask_decoder.pred.weight"], before["mask_decoder.pred.weight"])
