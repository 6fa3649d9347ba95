"""Runs of the command line inside the test's process, small enough for seconds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vosssl.__main__ import main
from vosssl.modes.config import config_dir

DATA = ("data.train.size=32", "data.val.size=32", "data.val.count=2", "data.val.frames=3")
TINY = (
    "mode=train", "hparam=slots", "exp_name=tiny", "device=cpu", "floors=null", *DATA,
    "train.steps=2", "train.batch_size=2", "train.max_seconds=null",
)  # fmt: skip


@contextmanager
def composed(*overrides: str, more: Path | None = None) -> Iterator[DictConfig]:
    """The configuration that a command line leads to, inside what Hydra knows about it."""
    path = [f"hydra.searchpath=[file://{more}]"] if more else []
    with hydra.initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("main", overrides=[*overrides, *path], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        yield hydra.compose("main", overrides=[*overrides, *path])
    GlobalHydra.instance().clear()


def trained(*more: str, folder: Path) -> Path:
    """The checkpoint of a run of two steps; the test stands in `folder`."""
    assert main([*TINY, *more]) == 0
    (checkpoint,) = folder.glob("runs/*/*/last.ckpt")
    return checkpoint


def with_config(checkpoint: Path, target: Path, change: Any) -> Path:
    """A copy of a checkpoint whose stored configuration somebody has changed."""
    content = torch.load(checkpoint, weights_only=True)
    content["config"] = copy.deepcopy(content["config"])
    change(content["config"])
    torch.save(content, target)
    return target
