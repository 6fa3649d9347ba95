"""The guide, and one line for each way to get a command line wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from vosssl.modes import helptext
from vosssl.modes.config import config_dir, options


def test_the_guide_names_every_recipe_model_and_dataset() -> None:
    guide = helptext.guide()
    words = guide.split()
    for group in ("hparam", "method", "data"):
        assert set(options(group)) <= set(words)
    assert {"seed=0", "verbose=false", "resume=null"} <= set(words)
    assert max(map(len, guide.splitlines())) <= 132


def test_a_recipe_is_shown_with_its_comments() -> None:
    assert helptext.guide(["mode=help", "hparam=slots"]) == (config_dir() / "hparam/slots.yaml").read_text()


def test_own_recipes_are_in_the_guide_and_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / "hparam").mkdir()
    (tmp_path / "hparam" / "own.yaml").write_text("# @package _global_\n# What I try.\n")
    assert "own                        What I try." in helptext.guide(["--config-dir", str(tmp_path)])
    assert "What I try" in helptext.guide([f"--config-dir={tmp_path}", "hparam=own"])


def test_an_unknown_recipe_is_an_error_with_a_hint() -> None:
    with pytest.raises(ValueError, match="no hparam=slotz; did you mean slots"):
        helptext.guide(["hparam=slotz"])


def test_keys_of_the_method_that_a_recipe_chooses_are_known() -> None:
    keys = helptext.known_keys(["mode=train", "hparam=slots"])
    assert {"train.steps", "method.network.num_slots", "data.val.count", "hparam"} <= set(keys)
    assert "method.network.num_slots" not in helptext.known_keys([])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Could not find 'hparam/slotz'\n\nAvailable", "there is no hparam=slotz; did you mean slots"),
        (
            "Could not override 'train.stepz'.\nTo append",
            "there is no key 'train.stepz'; did you mean train.steps",
        ),
        ("Could not find 'hydra/launcher/submitit_slurm'", "vosssl\\[slurm\\]"),
        ("\n\n something else\nmore", "^something else$"),
    ],
)
def test_an_error_of_hydra_becomes_one_line(text: str, line: str) -> None:
    explained = helptext.explain(ValueError(text), [])
    assert "\n" not in explained
    with pytest.raises(ValueError, match=line):
        raise ValueError(explained)


def test_adding_a_key_is_offered_only_where_it_is_an_argument() -> None:
    error = "Could not override '{}'."
    assert "+method.network.depht" in helptext.explain(ValueError(error.format("method.network.depht")), [])
    assert "+train" not in helptext.explain(ValueError(error.format("train.stepz")), [])
