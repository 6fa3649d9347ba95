"""Where yaml files are, values of the wrong kind, and configurations that come out of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.modes.runs import composed, with_config
from vosssl.engine.checkpoint import FORMAT
from vosssl.modes import config


def test_the_last_value_of_a_key_counts() -> None:
    assert config.chosen(["mode=train", "+seed=1", "seed='2'"], "seed") == "2"
    assert config.chosen(["mode=train"], "seed") is None


def test_a_similar_word_is_suggested_and_else_what_there_is() -> None:
    assert config.closest("trian", ["train", "eval"]) == "; did you mean train?"
    assert config.closest("xyz", ["train", "eval"]) == "; there is train, eval"


@pytest.mark.parametrize("form", [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]])
def test_own_yaml_files_are_found_beside_ours(form: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "hparam").mkdir(parents=True)
    (tmp_path / "mine" / "hparam" / "own.yaml").touch()
    where = config.folders(form)
    assert where == [config.config_dir(), tmp_path / "mine"]
    assert {"own", "slots"} <= set(config.options("hparam", where=where))
    assert "own" not in config.options("hparam")


def test_a_missing_folder_of_yaml_files_is_named() -> None:
    assert config.folders([]) == [config.config_dir()]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        config.folders(["--config-dir", "nowhere", "mode=train"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=abc", "train.steps is 'abc', expected a whole number"),
        ("train.steps=1.5", "a whole number"),
        ("train.steps=true", "a whole number"),
        ("train.steps=0", "at least 1"),
        ("seed=-1", "at least 0"),
        ("train.max_seconds=soon", "a number or null"),
        ("train.compile=2", "true or false"),
        ("predict.limit=0", "at least 1"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_by_its_key(override: str, message: str) -> None:
    with composed(override) as cfg, pytest.raises(ValueError, match=message):
        config.check_values(cfg)


def test_every_recipe_has_values_of_the_right_kind() -> None:
    for name in config.options("hparam"):
        with composed("mode=train", f"hparam={name}", "train.max_seconds=1", "seed=0") as cfg:
            config.check_values(cfg)


def test_every_key_that_may_be_null_exists() -> None:
    main = OmegaConf.load(config.config_dir() / "main.yaml")
    for key in (*config.NULLABLE, *config.FROM_ZERO):
        node, _, leaf = key.rpartition(".")
        assert leaf in (OmegaConf.select(main, node) if node else main), key


def test_changes_name_what_decides_how_a_run_goes() -> None:
    before = {"seed": 0, "train": {"steps": 1}, "out": "a", "method": {"name": "m"}}
    now = {"seed": 0, "train": {"steps": 2}, "out": "b", "method": {"name": "m", "size": 3}}
    assert config.changes(before, now) == {"method.size": (None, 3), "train.steps": (1, 2)}


def test_a_checkpoint_is_the_base_of_a_run_that_resumes_it(checkpoint: Path) -> None:
    arguments = config.offer_saved_config([f"resume={checkpoint}", "hparam=slots"])
    assert arguments[2:] == ["method=from_checkpoint", "data=from_checkpoint", "exp_name='tiny'"]
    assert config.offer_saved_config(["mode=train"]) == ["mode=train"]


def test_a_resumed_run_is_evaluated_as_its_recipe_says(checkpoint: Path, tmp_path: Path) -> None:
    def change(saved):
        saved["evaluate"] |= {"task": "lock_on", "protocol": "davis16-val", "limit": 1}

    resume = f"resume={with_config(checkpoint, tmp_path / 'a.ckpt', change)}"
    expected = {
        (): ("lock_on", "davis16-val"),
        ("evaluate.task=discovery", "evaluate.protocol=null"): ("discovery", None),
        ("data=synthetic",): ("lock_on", None),  # a protocol is of its data
        ("hparam=slots",): ("discovery", None),
    }
    for more, (task, protocol) in expected.items():
        with composed(*config.offer_saved_config(["mode=eval", resume, *more])) as cfg:
            assert (cfg.evaluate.task, cfg.evaluate.protocol) == (task, protocol), more
            assert cfg.evaluate.limit is None


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a ${data.root}", "${data.root}${oc.env:HOME}"])
def test_a_checkpoint_that_would_read_this_machine_is_refused(
    value: str, checkpoint: Path, tmp_path: Path
) -> None:
    def change(saved):
        saved["data"]["train"]["list"] = [{"deep": value}]

    path = with_config(checkpoint, tmp_path / "a.ckpt", change)
    with pytest.raises(ValueError, match="expected plain values"):
        config.saved_config(path)


@pytest.mark.parametrize("saved", [None, 5, {}, {"method": "x"}])
def test_a_checkpoint_without_its_configuration_says_so(saved, tmp_path: Path) -> None:
    torch.save({"format": FORMAT, "config": saved}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="does not say which model"):
        config.saved_config(tmp_path / "a.ckpt")


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/x", ".hidden", "a,b", "x=y"])
def test_a_name_out_of_a_checkpoint_leads_nowhere(name: str, checkpoint: Path, tmp_path: Path) -> None:
    path = with_config(checkpoint, tmp_path / "a.ckpt", lambda saved: saved.update(exp_name=name))
    assert not [a for a in config.offer_saved_config([f"resume={path}"]) if a.startswith("exp_name")]


def test_root_is_short_for_the_data_s_root() -> None:
    assert config.long_names(["mode=check", "root=DIR"]) == ["mode=check", "data.root=DIR"]
    assert config.long_names(["data.root=DIR"]) == ["data.root=DIR"]
    with pytest.raises(ValueError, match="one key"):
        config.long_names(["root=A", "data.root=B"])


def test_a_checkpoint_does_not_keep_where_its_data_came_from() -> None:
    with composed("data=davis17", "data.root=DIR") as cfg:
        assert "release" in cfg.data
        kept = config.plain(cfg)["data"]
    assert kept["root"] == "DIR" and "release" not in kept
