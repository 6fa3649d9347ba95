"""What a benchmark compares: models by name, checkpoints by path, folders of foreign predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf

from vosssl.engine import checkpoint
from vosssl.modes.build import build, build_network
from vosssl.modes.config import EXPORTED, closest, exported_method, options, saved_config, yaml_of
from vosssl.propagation.graph_folder import MANIFEST, ExportedNetwork
from vosssl.propagation.segmenter import VideoSegmenter

Task = Literal["discovery", "lock_on"]
TASKS: tuple[Task, ...] = ("lock_on", "discovery")
KEYS = (
    "name",
    "method",
    "weights",
    "predictions",
    "options",
    "tasks",
    "training_data",
    "supervision",
)  # of an entry
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Contender:
    """One line of a benchmark, not built yet.

    Attributes:
        name: what the table calls it.
        method: a method's yaml; None for predictions that another program made.
        trusted_only: the yaml came inside a file that somebody else may have made.
        weights: a checkpoint of ours, an official one, or a known name; None for fresh weights.
        predictions: folder with a folder of label images per sequence; None for a method.
        options: the segmenter's options, or how to open the predictions, by their names.
        tasks: only these.
        training_data: what it was trained on.
        supervision: labels that its training used.
        is_floor: whether it is a trivial baseline.
    """

    name: str
    method: Mapping[str, Any] | DictConfig | None = None
    trusted_only: bool = False
    weights: str | None = None
    predictions: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = TASKS
    training_data: str = NOT_STATED
    supervision: str = NOT_STATED
    is_floor: bool = False

    @property
    def is_untrained(self) -> bool:
        """Whether its network keeps the weights it was born with."""
        return self.method is not None and "network" in self.method and self.weights is None

    @property
    def source(self) -> str:
        """Where its masks come from."""
        return str(self.predictions or self.weights or "")

    def identity(self) -> dict[str, Any]:
        """What its predictions depend on, as plain values: another identity makes other predictions."""
        method = OmegaConf.create(dict(self.method or {}))
        weights = None if self.weights is None else Path(self.weights)
        if weights is not None and weights.is_dir():  # exported graphs
            weights = weights / MANIFEST
        stat = weights.stat() if weights is not None and weights.is_file() else None
        return {
            "method": OmegaConf.to_container(method, resolve=True),
            "weights": self.weights,
            "weights_size": stat and stat.st_size,
            "weights_changed": stat and stat.st_mtime_ns,
            "options": dict(self.options),
        }


@dataclass(frozen=True)
class Opened:
    """A contender, built.

    Attributes:
        segmenter: what segments.
        parameters: of its network; None without one.
    """

    segmenter: VideoSegmenter
    parameters: int | None

    def can(self, task: Task) -> bool:
        """Whether the method does this at all."""
        return self.segmenter.discovers if task == "discovery" else "masks" in self.segmenter.prompt_kinds


def contender(
    entry: str | Mapping[str, Any], *, is_floor: bool = False, where: Sequence[Path] | None = None
) -> Contender:
    """Reads one entry of `benchmark.entries`.

    Args:
        entry: a model's name, the path of a checkpoint of ours, of a folder of exported graphs or of one of
            predictions; or a mapping with any of KEYS.
        is_floor: whether it is a trivial baseline.
        where: folders of yaml files; None: only our own.

    Returns:
        The contender; nothing is built yet.

    Raises:
        ValueError: an entry that means nothing; says what was expected.
        FileNotFoundError: no such checkpoint or folder.
    """
    given = _spelt_out(entry, options("method", where=where)) if isinstance(entry, str) else dict(entry)
    unknown = [str(key) for key in given if key not in KEYS]
    if unknown:
        raise ValueError(
            f"benchmark entry {given} has a key {unknown[0]!r}{closest(unknown[0], KEYS)}; "
            f"expected any of {', '.join(KEYS)}"
        )
    base = Contender(
        str(given.get("name") or ""),
        options=dict(given.get("options") or {}),
        tasks=as_tasks(given.get("tasks") or TASKS, where=f"benchmark entry {given}"),
        is_floor=is_floor,
    )
    facts = {key: str(given[key]) for key in ("training_data", "supervision") if given.get(key)}
    if given.get("predictions"):
        return replace(base, **_foreign(given), **facts)  # type: ignore[arg-type]
    weights = None if given.get("weights") is None else str(given["weights"])
    saved = _saved(weights)
    exported = given.get("method") == EXPORTED and weights is not None
    method: Mapping[str, Any] | DictConfig
    if exported:
        method = exported_method(str(weights))
    elif given.get("method"):
        method = yaml_of("method", str(given["method"]), where=where)
    elif saved is not None and saved.get("method"):
        method = saved["method"]
    else:
        raise ValueError(
            f"benchmark entry {given} names no method, expected method (one of list_models()), weights (a "
            "checkpoint of ours, which knows its method) or predictions"
        )
    if "segmenter" not in method:
        raise ValueError(f"{method['name']} gives features, not masks: it cannot be in a benchmark of masks")
    return replace(
        base,
        name=base.name or str(method["name"]),
        method=method,
        trusted_only=exported or not given.get("method"),
        weights=weights or method.get("weights"),
        **(method_facts(method, saved) | facts),  # type: ignore[arg-type]
    )


def _foreign(given: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry with predictions of another program says."""
    folder = Path(str(given["predictions"])).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of predictions {folder}")
    if given.get("method") or given.get("weights"):
        raise ValueError(f"benchmark entry {given} names predictions and a method; it can be only one")
    if not given.get("tasks"):
        raise ValueError(
            f"predictions {folder} do not say what they were given: add tasks: [lock_on] (the first "
            "frame's masks) or tasks: [discovery] (nothing)"
        )
    return {"name": str(given.get("name") or folder.name), "predictions": folder}


def method_facts(method: Mapping[str, Any] | DictConfig, saved: Mapping[str, Any] | None) -> dict[str, str]:
    """`training_data` and `supervision` as the method's yaml or the checkpoint's configuration tell them."""
    if "network" not in method:
        return {"training_data": "", "supervision": str(method.get("supervision", "none"))}
    data = (saved or {}).get("data") or {}
    return {
        "training_data": str(data.get("name") or method.get("training_data", NOT_STATED)),
        "supervision": str(method.get("supervision", NOT_STATED)),
    }


def chosen_contender(method: DictConfig, weights: str | None, *, trusted_only: bool) -> Contender:
    """The model that `method=`, `weights=` and `resume=` on the command line mean."""
    return Contender(
        str(method.name),
        method=method,
        trusted_only=trusted_only,
        weights=weights,
        **method_facts(method, _saved(weights)),  # type: ignore[arg-type]
    )


def open_contender(entry: Contender, device: torch.device) -> Opened:
    """Builds the segmenter of a contender that has a method.

    Raises:
        ValueError: an unknown option, weights that do not fit.
    """
    method = entry.method
    assert method is not None, "predictions are not built"
    parts: dict[str, Any] = {}
    parameters = None
    if "network" in method:
        network = build_network(method, weights=entry.weights, trusted_only=entry.trusted_only)
        parts["network"] = network.to(device).eval().requires_grad_(False)
        if not isinstance(network, ExportedNetwork):  # whose weights are in its graphs
            parameters = sum(parameter.numel() for parameter in network.parameters())
    segmenter = build(method["segmenter"], trusted_only=entry.trusted_only, **parts, **entry.options)
    return Opened(segmenter, parameters)


def check_names(contenders: Sequence[Contender]) -> None:
    """Refuses two contenders of one name: they would share a folder of predictions.

    Raises:
        ValueError: names the two.
    """
    seen: dict[str, Contender] = {}
    for entry in contenders:
        if not entry.name or entry.name.startswith(".") or "/" in entry.name or "\\" in entry.name:
            raise ValueError(
                f"a benchmark entry is called {entry.name!r}; its name has to be a folder's name"
            )
        if entry.name in seen:
            raise ValueError(f"two benchmark entries are called {entry.name!r}; give one of them a name:")
        seen[entry.name] = entry


def _spelt_out(entry: str, models: Sequence[str]) -> dict[str, Any]:
    if entry in models:
        return {"method": entry}
    path = Path(entry).expanduser()
    if (path / MANIFEST).is_file():
        return {"method": EXPORTED, "weights": str(path)}
    if path.is_dir():
        return {"predictions": entry}
    if path.is_file():
        return {"weights": entry}
    raise ValueError(
        f"benchmark entry {entry!r} is no model, checkpoint or folder of predictions{closest(entry, models)}"
    )


def as_tasks(chosen: str | Iterable[str], *, where: str) -> tuple[Task, ...]:
    """Checks names of tasks; one may be given without a list.

    Raises:
        ValueError: there is no such task, or none at all.
    """
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    wrong = [name for name in names if name not in TASKS]
    if wrong or not names:
        raise ValueError(f"tasks of {where} are {names}, expected any of {', '.join(TASKS)}")
    return tuple(task for task in TASKS if task in names)


def _saved(weights: str | None) -> dict[str, Any] | None:
    """The configuration inside a checkpoint of ours; None for other weights."""
    if weights is None or not Path(weights).is_file() or not checkpoint.is_ours(weights):
        return None
    return saved_config(weights)
