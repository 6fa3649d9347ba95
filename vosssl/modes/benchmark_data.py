"""Which labelled videos a benchmark runs on: yaml nodes to datasets with the protocols that they follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vosssl.data.video import FirstFrames, Video
from vosssl.engine.protocol import DISCOVERY, LOCK_ON, EvalProtocol, load_protocol
from vosssl.modes.build import build
from vosssl.modes.config import yaml_of
from vosssl.modes.contenders import TASKS, Task
from vosssl.modes.session import config_folders, from_checkpoint

DATASET_KEYS = ("data", "name", "root", "limit", "protocols", "options")


@dataclass(frozen=True)
class Dataset:
    """Labelled videos to compare on.

    Attributes:
        name: what the table and published numbers call it.
        node: its yaml's part for evaluation, composed.
        protocols: what counts, for each task.
        trusted_only: the yaml came inside a file that somebody else may have made.
        limit: only the first so many videos.
        frames: only the first so many frames of each.
    """

    name: str
    node: Mapping[str, Any]
    protocols: Mapping[Task, EvalProtocol]
    trusted_only: bool = False
    limit: int | None = None
    frames: int | None = None

    @cached_property
    def videos(self) -> list[Video]:
        """The videos, lazily read; missing files are told when this is first asked for."""
        videos: Iterable[Video] = build(self.node, trusted_only=self.trusted_only).videos()
        chosen = islice(videos, self.limit)
        if self.frames is None:
            return list(chosen)
        return [FirstFrames(video, self.frames) for video in chosen]


def datasets_of(cfg: DictConfig) -> list[Dataset]:
    """What `data=` chose, then `benchmark.datasets`; generated clips when there is neither.

    Raises:
        ValueError: an unknown dataset or key.
    """
    limit, frames = cfg.benchmark.limit, cfg.benchmark.frames
    entries = plain_list(cfg.benchmark.datasets) or ()
    datasets = [_dataset(entry, limit=limit, frames=frames) for entry in entries]
    if cfg.get("data"):
        chosen = _of_data(cfg.data, name=cfg.data.name, limit=limit, frames=frames)
        datasets.insert(0, replace(chosen, trusted_only=from_checkpoint("data")))
    datasets = datasets or [_dataset("synthetic", limit=limit, frames=frames)]
    names = [dataset.name for dataset in datasets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"two datasets are called {twice!r}; give one of them a name:")
    return datasets


def _dataset(entry: str | Mapping[str, Any], *, limit: int | None, frames: int | None) -> Dataset:
    """One entry of `benchmark.datasets`: the name of a yaml in cfg/data, or a mapping with DATASET_KEYS."""
    given: dict[str, Any] = {"data": entry} if isinstance(entry, str) else dict(entry)
    unknown = [str(key) for key in given if key not in DATASET_KEYS]
    if unknown or "data" not in given:
        raise ValueError(f"dataset {given} of the benchmark, expected data and any of {DATASET_KEYS[1:]}")
    name = str(given["data"])
    node = yaml_of("data", name, where=config_folders())
    for key, value in {"root": given.get("root"), **(given.get("options") or {})}.items():
        if value is not None:
            OmegaConf.update(node, key, value, merge=True)
    return _of_data(
        node,
        name=str(given.get("name") or name),
        limit=given.get("limit", limit),
        frames=frames,
        protocols=given.get("protocols") or {},
    )


def _of_data(
    data: DictConfig,
    *,
    name: str,
    limit: int | None,
    frames: int | None,
    protocols: Mapping[str, str] | None = None,
) -> Dataset:
    protocols = protocols or {}
    if not data.get("val"):
        raise ValueError(f"data={name} has no videos to evaluate on (no part `val`)")
    wrong = [task for task in protocols if task not in TASKS]
    if wrong:
        raise ValueError(f"protocols of {name} are for {wrong[0]!r}, expected {' and '.join(TASKS)}")
    lock_on = protocols.get("lock_on") or data.get("protocol")
    discovery = protocols.get("discovery") or data.get("discovery_protocol")
    node = OmegaConf.to_container(OmegaConf.create({"data": data}), resolve=True)
    assert isinstance(node, dict)
    return Dataset(
        name,
        node["data"]["val"],
        {
            "lock_on": load_protocol(lock_on) if lock_on else LOCK_ON,
            "discovery": load_protocol(discovery) if discovery else DISCOVERY,
        },
        limit=limit,
        frames=frames,
    )


def plain_list(node: Any) -> Any:
    """Lists and dicts instead of OmegaConf's."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
