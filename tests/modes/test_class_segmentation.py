"""Training, resuming and scoring of supervised segmentation through the command line."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.modes.runs import DATA, composed
from vosssl.__main__ import main
from vosssl.data.io import write_image, write_labels
from vosssl.data.sampling import ClipLoader
from vosssl.methods.segformer import SegFormer
from vosssl.modes.session import with_labels

SMALL = {
    "vit_seg": (
        "method.network.backbone.width=16", "method.network.backbone.heads=2",
        "method.network.backbone.depth=1", "method.network.space_time_blocks=1",
        "+method.network.head_width=8",
    ),
    "segformer_b0": (
        "method.network.widths=[8,8,10,8]", "method.network.depths=[1,1,1,1]", "method.network.head_width=8",
    ),
}  # fmt: skip


def command(recipe: str, *more: str) -> list[str]:
    own = ["mode=train", f"hparam={recipe}", "device=cpu", "threads=1", "train.batch_size=2", *SMALL[recipe]]
    return [*own, "train.steps=4", "train.validate_every=2", "train.validation_clips=1", *more]


def equal_runs(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same network and optimiser, tensor by tensor."""
    one, two = (torch.load(path, weights_only=True) for path in (first, second))
    same = [torch.equal(value, two["network"][name]) for name, value in one["network"].items()]
    moments = [
        torch.equal(value, two["optimizer"]["state"][index][name])
        for index, state in one["optimizer"]["state"].items()
        for name, value in state.items()
    ]
    return one["step"] == two["step"] == 4 and all(same) and all(moments) and len(moments) > 0


@pytest.mark.parametrize("recipe", ["vit_seg", "segformer_b0"])
def test_an_interrupted_and_resumed_run_equals_a_whole_one(recipe: str, tmp_path: Path, monkeypatch) -> None:
    """Also with stochastic depth and dropout, which draw from the global generator."""
    monkeypatch.chdir(tmp_path)
    assert main(command(recipe, "exp_name=whole", "floors=null", *DATA)) == 0
    batches = ClipLoader.batches

    def interrupted(self, start_step: int = 0) -> Iterator:
        for step, batch in enumerate(batches(self, start_step)):
            if step == 1:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(ClipLoader, "batches", interrupted)
        try:
            assert main(command(recipe, "exp_name=part", "floors=null", *DATA)) == 130
        except SystemExit as stopped:
            assert stopped.code == 130
    (part,) = tmp_path.glob("runs/part/*/last.ckpt")
    assert torch.load(part, weights_only=True)["step"] == 2
    assert main(["mode=train", f"resume={part}"]) == 0
    (whole,) = tmp_path.glob("runs/whole/*/last.ckpt")
    assert equal_runs(whole, part)
    assert (part.parent / "validation.png").is_file()


def test_more_classes_are_scored_by_class_beside_as_many_floors(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command("segformer_b0", "exp_name=many", "method.network.num_classes=9", *DATA)) == 0
    (report,) = tmp_path.glob("runs/many/*/report.json")
    content = json.loads(report.read_text())
    assert "all class 3" in content["floors"]
    assert {"J", "F", "J&F"} <= set(content["model"])
    assert 0 <= content["evaluation"]["dice"] <= 1
    log = (report.parent / "log.txt").read_text()  # said before the first validation, too
    assert (
        0 < log.index("J&F without training: all background 0 all class 1") < log.index("step 2, validation")
    )


def footage(root: Path) -> Path:
    """Two videos of three frames, a white square on black, with masks of 0 and 255."""
    for video, left in (("one", 8), ("two", 20)):
        for frame in range(3):
            image, mask = torch.zeros(3, 40, 48, dtype=torch.uint8), torch.zeros(40, 48, dtype=torch.uint8)
            image[:, 10:26, left + 2 * frame : left + 16 + 2 * frame] = 230
            mask[10:26, left + 2 * frame : left + 16 + 2 * frame] = 255
            for folder in ("JPEGImages", "Annotations"):
                (root / folder / video).mkdir(parents=True, exist_ok=True)
            write_image(root / "JPEGImages" / video / f"{frame:05d}.png", image)
            write_labels(root / "Annotations" / video / f"{frame:05d}.png", mask)
    return root


def test_own_masks_of_0_and_255_train_as_they_are_from_a_published_encoder(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = footage(tmp_path / "mine")
    other = SegFormer(widths=(8, 8, 10, 8), depths=(1, 1, 1, 1), head_width=8, num_classes=150)
    torch.save(other.state_dict(), tmp_path / "pytorch_model.bin")
    own = ["data=folder", f"data.root={root}", "data.size=32", "weights=pytorch_model.bin", "exp_name=mine"]
    held_out = ["data.train.part=[0,-1]", "data.val.part=[-1,null]"]
    assert main(command("segformer_b0", *own, *held_out)) == 0
    (report,) = tmp_path.glob("runs/mine/*/report.json")
    content = json.loads(report.read_text())
    assert set(content["floors"]) == {"all background", "all foreground", "mean training mask"}
    assert content["floors"]["all foreground"]["J"] == pytest.approx(16 * 16 / (40 * 48))
    assert content["floors"]["all background"]["J"] == 0
    best = report.parent / "best.ckpt"
    assert torch.load(best, weights_only=True)["step"] in (2, 4)
    assert main(["mode=predict", f"resume={best}", f"predict.source={root / 'JPEGImages' / 'two'}"]) == 0
    assert main(["mode=eval", f"resume={best}", "evaluate.protocol=davis16-val"]) == 0


def test_methods_that_need_labels_get_those_of_the_evaluation() -> None:
    with composed("hparam=vit_seg", "data=davis17", "data.root=x") as cfg:
        assert cfg.data.train.annotations is None
        assert with_labels(cfg).data.train.annotations == "Annotations/480p"
    with composed("hparam=vit_seg", "data=folder", "data.root=x", "method.network.num_classes=3") as cfg:
        changed = with_labels(cfg).data
        assert (changed.train.annotations, changed.train.binary) == ("Annotations", None)
    with composed("hparam=vit_seg", "data=coco", "data.root=x") as cfg:
        assert with_labels(cfg).data.train.annotations == "annotations/instances_train2017.json"
    with composed("hparam=vit_seg", "data=burst", "data.root=x") as cfg:
        assert with_labels(cfg).data.train.annotations is None
    with composed("hparam=slots", "data=folder", "data.root=x") as cfg:
        assert with_labels(cfg) is cfg
