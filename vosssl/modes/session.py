"""What every mode begins with: the run's folder and log, its device, and the objects its yaml describes."""

from __future__ import annotations

import copy
import logging
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vosssl.data.files import atomic_write
from vosssl.engine.distributed import World, resolve_device
from vosssl.engine.rng import seed_everything
from vosssl.modes.build import build, build_network, why_no_segmenter
from vosssl.modes.config import SAVED, closest, config_dir, options, plain
from vosssl.propagation.segmenter import VideoSegmenter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """One run of one mode.

    Attributes:
        config: the composed configuration as plain values, as checkpoints store it.
        folder: where the run writes; `runs/<exp_name>/<time>`.
        world: the processes of the run and this one's device.
    """

    config: dict[str, Any]
    folder: Path
    world: World

    @property
    def device(self) -> torch.device:
        """Where networks live."""
        return self.world.device


def start(cfg: DictConfig, *, folder: Path | None = None, world: World | None = None) -> Session:
    """Makes the run's folder with its composed configuration and log, seeds everything, chooses the device.

    Args:
        cfg: the composed configuration.
        folder: go on in this folder instead of a new one.
        world: the processes that torchrun started; None for this one alone.

    Returns:
        The session.
    """
    world = world or World(device=resolve_device(cfg.device))
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    torch.set_float32_matmul_precision("high")
    seed_everything(cfg.seed)
    config = plain(cfg)
    config["exp_name"] = experiment_name(cfg)
    if folder is None:
        folder = Path(world.gather(str(_new_folder(cfg)) if world.is_main else "")[0])
    if world.is_main:
        name = "config.yaml" if cfg.mode == "train" else f"config_{cfg.mode}.yaml"
        with atomic_write(folder / name) as path:
            path.write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    _open_log(folder if world.is_main else None, verbose=cfg.verbose)
    log.info("%s on %s, writing to %s", cfg.mode, world.device, folder.resolve())
    return Session(config, folder, world)


def experiment_name(cfg: DictConfig) -> str:
    """The user's exp_name, else the recipe's or the model's name, else the mode."""
    choices = HydraConfig.get().runtime.choices
    for name in (cfg.exp_name, choices.get("hparam"), choices.get("method")):
        if name and name != SAVED:
            return str(name)
    name = str((cfg.get("method") or {}).get("name") or cfg.mode)
    return re.sub(r"[^\w+-]", "_", name)  # it may come out of a file: it names a folder, it leads nowhere


def _new_folder(cfg: DictConfig) -> Path:
    """Makes runs/<exp_name>/<time>, never one that exists, or takes the numbered folder of a sweep."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        return Path(hydra.runtime.output_dir)
    folder = Path(cfg.out) / experiment_name(cfg) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder.parent.mkdir(parents=True, exist_ok=True)
    attempt, free = 1, folder
    while True:
        try:  # making it is what claims it: another run may start in the same second
            free.mkdir()
            return free
        except FileExistsError:
            attempt += 1
            free = folder.with_name(f"{folder.name}-{attempt}")


def _open_log(folder: Path | None, *, verbose: bool) -> None:
    """Messages to the terminal (short) and to log.txt in the run's folder (with times)."""
    root = logging.getLogger("vosssl")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.DEBUG if verbose else logging.INFO if folder else logging.WARNING)
    root.propagate = False
    if folder is not None:
        terminal = logging.StreamHandler()
        terminal.setFormatter(logging.Formatter("%(message)s"))
        terminal.addFilter(lambda record: verbose or not _is_routine(record))
        root.addHandler(terminal)
        file = logging.FileHandler(folder / "log.txt")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(file)


def log_failure(trace: str) -> Path | None:
    """Adds a trace to the log.txt of the run that is under way; None when there is none yet."""
    for handler in logging.getLogger("vosssl").handlers:
        if isinstance(handler, logging.FileHandler):
            record = logging.LogRecord("vosssl", logging.ERROR, "", 0, trace, None, None)
            handler.handle(record)
            return Path(os.path.relpath(handler.baseFilename))
    return None


def _is_routine(record: logging.LogRecord) -> bool:
    """The trainer's line per so many steps: the progress bar shows the same, log.txt keeps it."""
    return record.name == "vosssl.engine.trainer" and str(record.msg).startswith("step %d of %d")


def require(cfg: DictConfig, group: str, *, why: str) -> DictConfig:
    """A configuration group that a mode cannot do without.

    Raises:
        ValueError: it was not chosen; says what to type.
    """
    node = cfg.get(group)
    if not node:
        if cfg.mode == "train":
            raise ValueError(
                f"{why} needs a recipe, hparam=…, or method=… and data=…{closest('', options('hparam'))}"
            )
        raise ValueError(f"{why} needs resume=CHECKPOINT, or {group}=…{closest('', options(group))}")
    return node


def require_segmenter(cfg: DictConfig) -> DictConfig:
    """The method, which has to give masks.

    Raises:
        ValueError: no method was chosen, or one that gives only features.
    """
    method = require(cfg, "method", why=f"mode={cfg.mode}")
    if "segmenter" not in method:
        raise ValueError(why_no_segmenter(method))
    return method


def network_of(cfg: DictConfig, session: Session, *, weights: str | None = None) -> nn.Module:
    """The method's network on the session's device.

    Args:
        cfg: the composed configuration.
        session: the run.
        weights: a checkpoint of ours, an official one, or a known name; None for fresh weights.

    Returns:
        The network.
    """
    method = require(cfg, "method", why=f"mode={cfg.mode}")
    if "network" not in method:
        raise ValueError(f"{method.name} has nothing to train; choose another method=")
    network = build_network(method, weights=weights, trusted_only=from_checkpoint("method"))
    return network.to(session.device)


def given_weights(cfg: DictConfig) -> str | None:
    """What a model is looked at with: a run's checkpoint, the weights asked for, or the released ones."""
    return cfg.resume or cfg.weights or cfg.method.get("weights")


def segmenter_of(
    cfg: DictConfig, session: Session, *, network: nn.Module | None = None, frozen: bool = True
) -> VideoSegmenter:
    """The method's segmenter around its network; methods without a network (copy-first-mask) have none.

    Args:
        cfg: the composed configuration.
        session: the run.
        network: the method's network; None constructs it with the weights of the run.
        frozen: whether the network is put into evaluation mode for good; False leaves that to a trainer.

    Returns:
        The segmenter; of a method that looks at whole videos an `OfflineSegmenter`.
    """
    method = require_segmenter(cfg)
    trusted_only = from_checkpoint("method")
    if "network" not in method:
        return build(method.segmenter, trusted_only=trusted_only)
    if network is None:
        network = network_of(cfg, session, weights=given_weights(cfg))
    if frozen:
        network.eval().requires_grad_(False)
    return build(method.segmenter, trusted_only=trusted_only, network=network)


def data_of(cfg: DictConfig, split: str) -> Any:
    """The training clips (`train`) or the evaluation videos (`val`) of the chosen data."""
    require(cfg, "data", why=f"mode={cfg.mode}")
    data = with_labels(cfg).data
    if split not in data:
        raise ValueError(f"data={data.get('name')} has no {split!r} part; it has {', '.join(map(str, data))}")
    return build(data[split], trusted_only=from_checkpoint("data"))


def with_labels(cfg: DictConfig) -> DictConfig:
    """The configuration with labels for training, for methods whose yaml says `needs_labels`.

    The yaml files of real data leave the training labels out, since most methods here do without. A network
    of background and foreground also takes masks of 0 and 255 as they are.

    Args:
        cfg: the composed configuration; it stays as it is.

    Returns:
        A copy where something changes.
    """
    train = (cfg.get("data") or {}).get("train")
    if not (cfg.get("method") or {}).get("needs_labels") or not isinstance(train, DictConfig):
        return cfg
    changed: dict[str, Any] = {}
    if "annotations" in train and train.annotations is None:
        val = cfg.data.get("val") or {}
        same = val.get("images") == train.get("images")  # else they are labels of other videos
        changed["train.annotations"] = cfg.data.get("annotations") or (
            val.get("annotations") if same else None
        )
    if cfg.method.network.get("num_classes", 2) == 2:
        parts = [part for part in ("train", "val") if cfg.data.get(part)]
        changed |= {f"{part}.binary": True for part in parts if cfg.data[part].get("binary", True) is None}
    if not changed:
        return cfg
    copied = copy.deepcopy(cfg)
    for key, value in changed.items():
        OmegaConf.update(copied, f"data.{key}", value)
    return copied


def config_folders() -> list[Path]:
    """The folders of yaml files that Hydra reads in this run: ours, then the one of `--config-dir`."""
    sources = HydraConfig.get().runtime.config_sources
    given = [Path(source.path) for source in sources if source.schema == "file"]
    return [config_dir(), *(folder for folder in given if folder != config_dir())]


def from_checkpoint(group: str) -> bool:
    """Whether a group's configuration came inside the checkpoint, and may construct only what we trust."""
    return HydraConfig.get().runtime.choices.get(group) == SAVED
