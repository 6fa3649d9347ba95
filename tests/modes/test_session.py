"""A run's folder, name and log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.modes.runs import composed
from vosssl.modes import session


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    class Noon:
        def strftime(self, form: str) -> str:
            return "noon"

    with composed(f"out={tmp_path}", "exp_name=a/b") as cfg, pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "datetime", type("Clock", (), {"now": staticmethod(Noon)}))
        folders = [session._new_folder(cfg) for _ in range(3)]
    assert [folder.name for folder in folders] == ["noon", "noon-2", "noon-3"]
    assert all(folder.is_dir() and folder.parent == tmp_path / "a" / "b" for folder in folders)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["hparam=slots", "exp_name=mine"], "mine"),
        (["hparam=slots", "method=floor-grid"], "slots"),
        (["method=floor-grid"], "floor-grid"),
        (["mode=eval"], "eval"),
    ],
)
def test_a_run_is_named_by_the_user_the_recipe_or_the_model(overrides: list[str], name: str) -> None:
    with composed(*overrides) as cfg:
        assert session.experiment_name(cfg) == name


def test_a_model_name_out_of_a_file_stays_one_folder() -> None:
    with composed() as cfg:
        OmegaConf.set_struct(cfg, False)
        cfg.method = {"name": "../../elsewhere"}
        assert "/" not in session.experiment_name(cfg)


def test_a_run_begins_with_its_configuration_and_log(tmp_path: Path) -> None:
    with composed(f"out={tmp_path}", "mode=eval", "device=cpu", "seed=7") as cfg:
        begun = session.start(cfg)
    saved = OmegaConf.load(begun.folder / "config_eval.yaml")
    assert (saved.seed, saved.exp_name, str(begun.device)) == (7, "eval", "cpu")
    assert "eval on cpu" in (begun.folder / "log.txt").read_text()


def test_a_trace_goes_to_the_log_and_not_to_the_terminal(tmp_path: Path, capfd) -> None:
    with composed(f"out={tmp_path}", "device=cpu", "mode=eval") as cfg:
        begun = session.start(cfg)
    capfd.readouterr()
    path = session.log_failure("Traceback: it broke")
    assert path is not None and path.resolve() == (begun.folder / "log.txt").resolve()
    assert "it broke" in path.read_text()
    assert capfd.readouterr().err == ""
    for handler in list(logging.getLogger("vosssl").handlers):
        logging.getLogger("vosssl").removeHandler(handler)
    assert session.log_failure("nowhere to write") is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mode=train"], "needs a recipe, hparam="),
        (["mode=eval"], "needs resume=CHECKPOINT, or method="),
        (["mode=eval", "method=motion-features"], "gives features, not masks"),
    ],
)
def test_what_a_mode_cannot_do_without_is_named(overrides: list[str], message: str) -> None:
    with composed(*overrides) as cfg, pytest.raises(ValueError, match=message):
        session.require_segmenter(cfg)


def test_a_part_that_the_data_lack_is_named() -> None:
    with composed("data=synthetic") as cfg, pytest.raises(ValueError, match="no 'test' part; it has name"):
        session.data_of(cfg, "test")
