"""Where the yaml files are, and how a run's configuration comes from them, a checkpoint and arguments."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from vosssl.engine import checkpoint
from vosssl.propagation.graph_folder import read_manifest

RECIPE = ("train", "optimizer", "schedule", "seed", "first_stage")  # what a run takes over from a checkpoint
EVALUATION = ("task", "protocol")  # and of how it was evaluated; a protocol only with the data it is of
SHORT_NAMES = {"root": "data.root", "video": "predict.source", "prompt": "predict.prompt"}
EXPORTED = "exported"  # the method whose yaml lies in a folder of exported graphs
SAVED = "from_checkpoint"  # the group option under which a checkpoint's own configuration is offered
FOLDER_FLAGS = ("--config-dir", "-cd")
NULLABLE: Mapping[str, type] = {  # keys whose default is null, and what they are otherwise
    "threads": int,
    "train.clip_norm": float,
    "train.ema": float,
    "train.max_seconds": float,
    "train.validate_every": int,
    "evaluate.limit": int,
    "evaluate.frames": int,
    "predict.limit": int,
    "benchmark.limit": int,
    "benchmark.frames": int,
    "annotate.size": int,
    "check.sample": int,
    "check.workers": int,
}
FROM_ZERO = ("seed", "annotate.port", "train.workers", "inspect.step")  # whole numbers that may be 0
_PLAIN_NAME = re.compile(r"\w[\w.+-]*")  # names from a file become folders: no separators, no leading dot
_LEARNING = ("method", "data", "train", "optimizer", "schedule", "seed")  # what decides how a run goes
_WORDS = {bool: "true or false", int: "a whole number", float: "a number"}


def config_dir() -> Path:
    """The folder of yaml files: inside an installed wheel, or beside the package in a checkout.

    Raises:
        FileNotFoundError: neither is there (a broken installation).
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "cfg", package.parent / "cfg"):
        if (folder / "main.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"no cfg/main.yaml in {package} or {package.parent}; reinstall vosssl (pip install -e . or the wheel)"
    )


def folders(arguments: Sequence[str]) -> list[Path]:
    """The folders of yaml files: ours, and the one that a command line adds with `--config-dir`.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    found = [config_dir()]
    for flag, following in pairwise([*arguments, ""]):
        name, _, value = flag.partition("=")
        if name in FOLDER_FLAGS:
            folder = Path(value or following).expanduser().absolute()
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"no folder {value or following!r}; --config-dir takes a folder that holds hparam/, "
                    "method/ or data/ with your own yaml files"
                )
            found.append(folder)
    return found


def options(group: str, *, where: Sequence[Path] | None = None) -> list[str]:
    """Names of the yaml files of one group, such as every recipe below cfg/hparam.

    Args:
        group: hparam, method or data.
        where: what `folders` found; None: only our own.
    """
    places = [config_dir()] if where is None else where
    return sorted({path.stem for place in places for path in (place / group).glob("*.yaml")})


def yaml_of(group: str, name: str, *, where: Sequence[Path] | None = None) -> DictConfig:
    """One yaml file of a group, not composed with anything; of two folders that hold it, the later one's.

    Args:
        group: method or data.
        name: of the file, without its suffix.
        where: what `folders` found; None: only our own.

    Raises:
        ValueError: there is none; says what was probably meant.
    """
    places = [config_dir()] if where is None else where
    found = [path for place in places if (path := place / group / f"{name}.yaml").is_file()]
    if not found:
        raise ValueError(f"there is no {group}={name}{closest(name, options(group, where=where))}")
    config = OmegaConf.load(found[-1])
    assert isinstance(config, DictConfig)
    return config


def closest(word: str, words: Sequence[str]) -> str:
    """`; did you mean …?` when something resembles the word, otherwise the whole list."""
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there is {', '.join(words)}" if 0 < len(words) <= 60 else ""


def split_override(argument: str) -> tuple[str, str]:
    """`data.root=x` -> (`data.root`, `x`), without Hydra's leading `+` or `~`."""
    key, _, value = argument.partition("=")
    return key.lstrip("+~"), value


def chosen(arguments: Sequence[str], key: str) -> str | None:
    """The last value that the command line gives a key, or None."""
    values = [value for name, value in map(split_override, arguments) if name == key]
    return values[-1].strip("'\"") if values else None


def long_names(arguments: Sequence[str]) -> list[str]:
    """`root=DIR` -> `data.root=DIR`, which every dataset reads; `video=` and `prompt=` likewise.

    Raises:
        ValueError: both the short and the long name are given.
    """
    for short, long in SHORT_NAMES.items():
        if chosen(arguments, short) is not None and chosen(arguments, long) is not None:
            raise ValueError(f"{short}= and {long}= are one key; pass one of them")
    shorts = {f"{short}=": f"{long}=" for short, long in SHORT_NAMES.items()}
    return [
        next(
            (
                argument.replace(short, long, 1)
                for short, long in shorts.items()
                if argument.startswith(short)
            ),
            argument,
        )
        for argument in arguments
    ]


def offer_saved_config(arguments: Sequence[str]) -> list[str]:
    """With `resume=` on the command line, makes the checkpoint's own configuration the base of this run.

    The saved method, data and recipe become the option `from_checkpoint` of their groups, so that everything
    else on the command line overrides them under Hydra's usual checks.

    Args:
        arguments: the command line.

    Returns:
        The command line with `method=`, `data=` and `hparam=` added where the user did not choose them.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is missing, broken or holds no configuration.
    """
    path = chosen(arguments, "resume")
    if path in (None, "", "null"):
        return offer_exported_method(arguments)
    saved = saved_config(str(path))
    store = ConfigStore.instance()
    recipe = {key: saved[key] for key in RECIPE if key in saved}
    evaluated = saved.get("evaluate")
    if isinstance(evaluated, dict):
        kept = EVALUATION[: 1 if chosen(arguments, "data") else None]
        recipe["evaluate"] = {key: evaluated[key] for key in kept if key in evaluated}
    extra = []
    for group, node in (("method", saved.get("method")), ("data", saved.get("data")), ("hparam", recipe)):
        if node and chosen(arguments, group) is None:
            store.store(
                group=group, name=SAVED, node=node, package="_global_" if group == "hparam" else group
            )
            extra.append(f"{group}={SAVED}")
    name = str(saved.get("exp_name") or "")
    if _PLAIN_NAME.fullmatch(name) and chosen(arguments, "exp_name") is None:
        extra.append(f"exp_name='{name}'")
    return [*arguments, *extra]


def offer_exported_method(arguments: Sequence[str]) -> list[str]:
    """With `method=exported weights=FOLDER`, makes the method that was exported there the one of this run.

    Raises:
        FileNotFoundError, ValueError: see `exported_method`.
    """
    folder = chosen(arguments, "weights")
    if chosen(arguments, "method") != EXPORTED or folder in (None, "", "null"):
        return list(arguments)
    node = exported_method(str(folder))
    ConfigStore.instance().store(group="method", name=SAVED, node=node, package="method")
    return [f"method={SAVED}" if split_override(one)[0] == "method" else one for one in arguments]


def exported_method(folder: str | Path) -> dict[str, Any]:
    """The method's yaml in a folder of exported graphs, plain values only.

    Raises:
        FileNotFoundError, ValueError: there is no such folder, or its manifest is broken or says no method.
    """
    method = read_manifest(folder).get("method")
    if not isinstance(method, dict) or not isinstance(method.get("network"), dict):
        raise ValueError(f"the manifest in {folder} does not say which model it is of; export it again")
    _refuse_interpolation(method, str(folder))
    return method


def saved_config(path: str | Path) -> dict[str, Any]:
    """The configuration inside a checkpoint of ours, plain values only.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is missing, broken, or holds anything but plain values.
    """
    saved = checkpoint.load(Path(path)).get("config")
    if not isinstance(saved, dict) or not isinstance(saved.get("method"), dict):
        raise ValueError(
            f"{path} does not say which model it is of; give its weights to the model that it was saved "
            f"from: method=… weights={path}"
        )
    _refuse_interpolation(saved, str(path))
    return saved


def _refuse_interpolation(node: Any, path: str) -> None:
    """Saved values are plain: `${…}` would be evaluated on this machine; only `${data.…}` is let through."""
    if isinstance(node, Mapping):
        for value in node.values():
            _refuse_interpolation(value, path)
    elif isinstance(node, list):
        for value in node:
            _refuse_interpolation(value, path)
    elif isinstance(node, str) and "${" in node and not re.fullmatch(r"\$\{data\.\w+\}", node):
        raise ValueError(f"the configuration in {path} holds {node!r}, expected plain values; not loaded")


def check_values(cfg: DictConfig) -> None:
    """Compares the values of the main configuration's own keys with what they have to be.

    Raises:
        ValueError: a word where a number belongs, a number below the smallest that means something.
    """
    defaults = OmegaConf.load(config_dir() / "main.yaml")
    for key, default in _leaves(OmegaConf.to_container(defaults)):
        value, wanted = OmegaConf.select(cfg, key), NULLABLE.get(key, type(default))
        if wanted not in _WORDS or (value is None and key in NULLABLE):
            continue
        fits = isinstance(value, (int, float) if wanted is float else wanted)
        if not fits or (wanted is not bool and isinstance(value, bool)):
            null = " or null" if key in NULLABLE else ""
            raise ValueError(f"{key} is {value!r}, expected {_WORDS[wanted]}{null}")
        least = 0 if key in FROM_ZERO else 1
        if wanted is int and value < least:
            raise ValueError(f"{key} is {value}, expected at least {least}")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys that decide how a run goes and differ between two plain configurations, with both values."""
    old, new = dict(_leaves(dict(before))), dict(_leaves(dict(now)))
    return {
        key: (old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and key.partition(".")[0] in _LEARNING
    }


def _leaves(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and values, without those of Hydra."""
    if not isinstance(node, dict):
        return [(prefix, node)]
    return [
        leaf
        for key, value in node.items()
        if key not in ("hydra", "defaults")
        for leaf in _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    ]


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as nested dicts, lists and scalars: what a checkpoint stores.

    Only the data keep their references to `data.root` and the like, so that a checkpoint can be used where
    the data are somewhere else.
    """
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    values = {str(key): value for key, value in container.items()}
    if config.get("data"):
        values["data"] = OmegaConf.to_container(config.data, resolve=False)
        values["data"].pop("release", None)  # where files came from says nothing about a run
    return values
