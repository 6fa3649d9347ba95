"""Every yaml file composes, builds what it describes, and documents itself."""

from __future__ import annotations

import hydra
import pytest
import torch
from omegaconf import OmegaConf

import vosssl
from vosssl.modes.build import build, method_config
from vosssl.modes.config import config_dir, options

RECIPES = options("hparam")


def compose(*overrides: str):
    with hydra.initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        return hydra.compose("main", overrides=list(overrides))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_composes_and_its_training_parts_build(name: str) -> None:
    cfg = compose("mode=train", f"hparam={name}")
    assert set(cfg.train) == set(OmegaConf.load(config_dir() / "main.yaml").train), "an unknown key in train"
    with torch.device("meta"):
        network = build(cfg.method.network)
    assert callable(build(cfg.method.objective))
    optimizer = build(cfg.optimizer, params=[p for p in network.parameters() if p.requires_grad])
    assert isinstance(optimizer, torch.optim.Optimizer)
    if cfg.schedule:
        assert callable(build(cfg.schedule))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_its_command_and_what_to_expect(name: str) -> None:
    text = (config_dir() / "hparam" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_")
    assert f"hparam={name}" in text
    for word in ("hardware", "time", "expect"):
        assert word in text.lower(), f"{name}.yaml does not state its {word}"


@pytest.mark.parametrize("name", options("method"))
def test_a_method_is_named_like_its_file_and_its_network_builds(name: str) -> None:
    config = method_config(name)
    assert config.name == name
    if "network" in config:
        with torch.device("meta"):
            build(config.network)


@pytest.mark.parametrize("name", options("data"))
def test_a_dataset_is_named_like_its_file_and_its_targets_exist(name: str) -> None:
    config = OmegaConf.load(config_dir() / "data" / f"{name}.yaml")
    assert config.name == name
    for split in ("train", "val"):
        if split in config and config[split] is not None:
            assert hydra.utils.get_object(config[split]["_target_"])


def test_list_models_names_the_files_of_the_method_folder() -> None:
    assert vosssl.list_models() == options("method")
    assert {"dino-vits16", "slots-synthetic", "copy-first-mask"} <= set(vosssl.list_models())
