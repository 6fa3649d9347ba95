"""Where the yaml files are, and how a run's configuration comes from them, a checkpoint and arguments."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from vosssl.engine import checkpoint

RECIPE = ("train", "optimizer", "schedule", "seed", "first_stage")  # what a run takes over from a checkpoint
SAVED = "from_checkpoint"  # the group option under which a checkpoint's own configuration is offered


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


def options(group: str) -> list[str]:
    """Names of the yaml files of one group, such as every recipe below cfg/hparam."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def closest(word: str, words: Sequence[str]) -> str:
    """`; did you mean …?` when something resembles the word, otherwise the whole list."""
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there is {', '.join(words)}" if 0 < len(words) <= 40 else ""


def split_override(argument: str) -> tuple[str, str]:
    """`data.root=x` -> (`data.root`, `x`), without Hydra's leading `+` or `~`."""
    key, _, value = argument.partition("=")
    return key.lstrip("+~"), value


def chosen(arguments: Sequence[str], key: str) -> str | None:
    """The last value that the command line gives a key, or None."""
    values = [value for name, value in map(split_override, arguments) if name == key]
    return values[-1].strip("'\"") if values else None


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
        return list(arguments)
    saved = saved_config(str(path))
    store = ConfigStore.instance()
    recipe = {key: saved[key] for key in RECIPE if key in saved}
    extra = []
    for group, node in (("method", saved.get("method")), ("data", saved.get("data")), ("hparam", recipe)):
        if node and chosen(arguments, group) is None:
            store.store(
                group=group, name=SAVED, node=node, package="_global_" if group == "hparam" else group
            )
            extra.append(f"{group}={SAVED}")
    if saved.get("exp_name") and chosen(arguments, "exp_name") is None:
        extra.append(f"exp_name={saved['exp_name']}")
    return [*arguments, *extra]


def saved_config(path: str | Path) -> dict[str, Any]:
    """The configuration inside a checkpoint of ours, plain values only.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is missing, broken, or holds anything but plain values.
    """
    saved: dict[str, Any] = checkpoint.load(Path(path))["config"]
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
    return values
