"""mode=train: stages, caches, interruptions, resuming, and runs whose evaluation fails."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.modes.runs import TINY, composed, trained, with_config
from vosssl.__main__ import main
from vosssl.data.sampling import ClipLoader
from vosssl.engine import checkpoint as checkpoints
from vosssl.modes import train


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one_line(capfd, *arguments: str, status: int = 1) -> str:
    """The only line that starts with `vosssl: ` of a command that fails."""
    capfd.readouterr()
    try:
        assert main(arguments) == status
    except SystemExit as stopped:
        assert stopped.code == status
    error = capfd.readouterr().err
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("vosssl: ")]
    return line


def equal_networks(first: Path, second: Path) -> bool:
    one, two = (torch.load(path, weights_only=True) for path in (first, second))
    same = [torch.equal(value, two["network"][name]) for name, value in one["network"].items()]
    return one["step"] == two["step"] and all(same)


def test_ctrl_c_saves_says_how_to_go_on_and_going_on_gives_the_same_weights(
    folder: Path, capfd, monkeypatch
) -> None:
    whole = trained("train.steps=4", "exp_name=whole", folder=folder)
    batches = ClipLoader.batches

    def interrupted(self, start_step: int = 0) -> Iterator:
        for step, batch in enumerate(batches(self, start_step)):
            if step == 1:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(ClipLoader, "batches", interrupted)
        line = one_line(capfd, *TINY, "train.steps=4", "exp_name=part", status=130)
    assert line.startswith(
        "vosssl: stopped at step 2, everything is saved; go on with: python -m vosssl mode=train"
    )
    assert main(line.partition("python -m vosssl ")[2].split()) == 0
    (part,) = folder.glob("runs/part/*/last.ckpt")
    assert equal_networks(whole, part)


def test_a_resumed_run_tells_what_changed_and_takes_the_new_learning_rate(
    folder: Path, checkpoint: Path, monkeypatch
) -> None:
    copy = with_config(checkpoint, folder / "last.ckpt", lambda saved: None)
    assert main(["mode=train", f"resume={copy}", "floors=null", "train.steps=3", "optimizer.lr=0.5"]) == 0
    text = (folder / "log.txt").read_text()
    assert "changed since the checkpoint: optimizer.lr 0.0015 -> 0.5" in text
    assert "changed since the checkpoint: train.steps 2 -> 3" in text
    assert torch.load(copy, weights_only=True)["optimizer"]["param_groups"][0]["initial_lr"] == 0.5


def test_parameter_groups_get_their_rates_and_a_resumed_run_takes_new_ones(folder: Path) -> None:
    rule = "{name: corrector, match: corrector, lr_factor: %s, weight_decay: 0.5}"
    checkpoint = trained(f"train.parameter_groups=[{rule % 0.1}]", folder=folder)
    first = torch.load(checkpoint, weights_only=True)["optimizer"]["param_groups"]
    assert [group["name"] for group in first] == ["corrector", "rest"]
    assert first[0]["initial_lr"] == pytest.approx(0.1 * first[1]["initial_lr"])
    more = ["train.steps=3", f"train.parameter_groups=[{rule % 0.2}]"]
    assert main(["mode=train", f"resume={checkpoint}", "floors=null", *more]) == 0
    second = torch.load(checkpoint, weights_only=True)["optimizer"]["param_groups"]
    assert second[0]["initial_lr"] == pytest.approx(2 * first[0]["initial_lr"])
    assert second[1] | {"lr": 0, "params": 0} == first[1] | {"lr": 0, "params": 0}


def test_a_finished_run_says_that_nothing_is_left(folder: Path, checkpoint: Path) -> None:
    copy = with_config(checkpoint, folder / "last.ckpt", lambda saved: None)
    assert main(["mode=train", f"resume={copy}", "floors=null"]) == 0
    text = (folder / "log.txt").read_text()
    assert "nothing is left to train: step 2 of 2" in text
    assert "changed since" not in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["optimizer._target_=torch.optim.SGD"], "to start anew from its weights give weights="),
        (["train.ema=0.9"], "set ema alike"),
        (["method=motion-features"], "belongs to another model"),
    ],
)
def test_a_run_that_cannot_go_on_is_one_line_and_stays_whole(
    more: list[str], message: str, folder: Path, checkpoint: Path, capfd
) -> None:
    copy = with_config(checkpoint, folder / "last.ckpt", lambda saved: None)
    before = copy.read_bytes()
    assert message in one_line(capfd, "mode=train", f"resume={copy}", "train.steps=3", *more)
    assert copy.read_bytes() == before


def test_a_first_stage_is_trained_before_and_its_run_can_move(folder: Path) -> None:
    (folder / "mine" / "hparam").mkdir(parents=True)
    stage = OmegaConf.create(
        {
            "defaults": [{"override /method": "motion-features"}, {"override /data": "synthetic"}],
            "data": {"train": {"size": 32}},
            "train": {"steps": 1, "batch_size": 2},
        }
    )
    text = f"# @package _global_\n{OmegaConf.to_yaml(stage)}"
    (folder / "mine" / "hparam" / "stage.yaml").write_text(text)
    assert main(["--config-dir", "mine", *TINY, "first_stage=stage"]) == 0
    (last,) = folder.glob("runs/tiny/*/last.ckpt")
    first = last.parent / "stage" / "last.ckpt"
    assert torch.load(first, weights_only=True)["step"] == 1
    assert torch.load(last, weights_only=True)["config"]["method"]["network"]["features"] == str(
        first.relative_to(folder)
    )
    moved = last.parent.rename(folder / "moved")
    (moved / "stage").rename(folder / "elsewhere")
    assert main(["mode=train", f"resume={moved / 'last.ckpt'}", "train.steps=3", "floors=null"]) == 0
    assert torch.load(moved / "last.ckpt", weights_only=True)["step"] == 3


SMALL_DINOSAUR = (
    "mode=train", "method=dinosaur-video", "data=synthetic", "device=cpu", "exp_name=dinosaur",
    "data.train.size=32", "data.train.count=4", "data.val=null", "method.backbone_weights=null",
    "+method.network.backbone.width=24", "+method.network.backbone.heads=2",
    "+method.network.backbone.depth=1", "method.network.features_dim=24", "method.network.grid=[2,2]",
    "method.network.num_slots=3", "method.network.slot_dim=8", "method.network.hidden_dims=[8]",
    "train.steps=2", "train.batch_size=2", "train.cache=features",
)  # fmt: skip


def test_features_of_a_frozen_backbone_are_computed_once_and_kept(folder: Path) -> None:
    kept = []
    for _ in range(2):
        assert main(SMALL_DINOSAUR) == 0
        files = [path for path in (folder / "features").rglob("*") if path.is_file()]
        kept.append({path: path.stat().st_mtime_ns for path in files})
    assert kept[0] and kept[0] == kept[1]
    assert equal_networks(*folder.glob("runs/dinosaur/*/last.ckpt"))


def test_a_cache_without_a_frozen_backbone_is_refused(folder: Path, capfd) -> None:
    assert "slots-synthetic has none" in one_line(capfd, *TINY, "train.cache=features")


def test_a_full_disk_says_how_to_go_on_once_there_is_room(folder: Path, capfd, monkeypatch) -> None:
    save, saved = checkpoints.save, []

    def full(path, content) -> None:
        if saved:
            raise OSError(errno.ENOSPC, f"disk full while writing {path}")
        saved.append(path)
        save(path, content)

    monkeypatch.setattr(checkpoints, "save", full)
    line = one_line(capfd, *TINY, "train.save_every=1")
    (last,) = folder.glob("runs/tiny/*/last.ckpt")
    assert line.endswith(f"then go on with: python -m vosssl mode=train resume={last.relative_to(folder)}")
    assert torch.load(last, weights_only=True)["step"] == 1


def test_a_failed_evaluation_does_not_hide_that_training_is_saved(folder: Path, capfd, monkeypatch) -> None:
    def broken(*arguments, **named):
        raise ValueError("labels of another size")

    monkeypatch.setattr(train.evaluate, "score_and_report", broken)
    line = one_line(capfd, *TINY)
    assert "training is done and saved in runs/tiny/" in line and "labels of another size" in line


def test_a_wrong_root_of_the_evaluation_data_is_told_before_training(folder: Path, capfd) -> None:
    node = "{_target_: vosssl.data.folders.FolderDataset, root: nowhere, images: a, annotations: b}"
    assert "nowhere" in one_line(capfd, *TINY, "data.val=null", f"++data.val={node}")
    assert not list(folder.rglob("last.ckpt"))


def test_what_nobody_foresaw_is_one_line_and_its_trace_is_in_the_log(
    folder: Path, capfd, monkeypatch
) -> None:
    def broken(*arguments):
        raise KeyError("slip")

    monkeypatch.setattr(train, "trainer_of", broken)
    line = one_line(capfd, *TINY)
    assert line.startswith("vosssl: KeyError: 'slip' (not foreseen")
    (log,) = folder.glob("runs/tiny/*/log.txt")
    assert "Traceback" in log.read_text() and str(log.relative_to(folder)) in line


def test_only_methods_with_masks_and_data_with_truth_are_scored() -> None:
    for override, scored in (("method=slots-synthetic", True), ("method=motion-features", False)):
        with composed(override, "data=synthetic") as cfg:
            assert train.is_scored(cfg) == scored
    with composed("method=slots-synthetic", "data=synthetic", "data.val=null") as cfg:
        assert not train.is_scored(cfg)


def test_parts_of_a_network_start_from_weights_of_their_own(tmp_path: Path) -> None:
    files = {}
    for name in ("0", "1"):
        files[name] = tmp_path / f"{name}.pt"
        torch.save(torch.nn.Linear(2, 2).state_dict(), files[name])
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    cfg = OmegaConf.create(
        {"method": {"backbone_weights": {name: str(path) for name, path in files.items()}}}
    )
    train.load_backbone(cfg, network)
    for name, path in files.items():
        assert torch.equal(network.get_submodule(name).weight, torch.load(path)["weight"])
