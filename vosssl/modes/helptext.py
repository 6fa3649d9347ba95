"""What `python -m vosssl` prints: what there is, with examples; and one line for a wrong command line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vosssl.modes.config import chosen, closest, config_dir, folders, options, split_override

_BUILT = (
    "method.",
    "data.",
    "optimizer.",
    "schedule.",
    "floors.",
)  # nodes whose keys are arguments of a _target_

_GUIDE = """\
vosssl: learn objects in video without labels, beside supervised baselines, under one evaluator

  python -m vosssl mode=MODE [hparam=RECIPE] [method=MODEL] [data=DATA] [resume=CHECKPOINT] [any.key=value …]

modes
  train      learn a model, then evaluate it          mode=train hparam=slots
  eval       score a model on labelled video          mode=eval resume=… data=davis16 data.root=DAVIS
  predict    label a video, a folder or a camera      mode=predict resume=… predict.source=video.mp4
  inspect    slots and masks as one HTML page         mode=inspect resume=…
             or data as the model gets them           mode=inspect data=davis16 data.root=DAVIS
  benchmark  many models, many datasets, one table    mode=benchmark benchmark.entries=[slots-synthetic,…]
  export     ONNX graphs, run by method=exported      mode=export resume=… export.folder=FOLDER
  annotate   click, track, correct, export on a page  mode=annotate annotate.source=video.mp4
  download   a dataset, its terms shown first         mode=download data=davis17 root=DAVIS
  check      what is on disk, against the release     mode=check data=davis17 root=DAVIS
  help       this text; `mode=help hparam=slots` shows one recipe

examples
  python -m vosssl mode=train hparam=slots                             # no download, CPU or GPU, 10 minutes
  python -m vosssl mode=train hparam=slots seed=1 train.batch_size=32  # any key can be set
  python -m vosssl --multirun mode=train hparam=slots seed=0,1,2       # a sweep: one run each
  python -m vosssl mode=train resume=runs/slots/TIME/last.ckpt         # go on after Ctrl-C or a kill
  python -m vosssl mode=eval resume=… data=davis16 data.root=DAVIS evaluate.task=lock_on
  python -m vosssl mode=benchmark                                      # floors on generated clips
  python -m vosssl mode=benchmark data=davis16 data.root=DAVIS 'benchmark.entries=[runs/slots/TIME/last.ckpt,
      {name: OSVOS, predictions: FOLDER, tasks: [lock_on], supervision: masks}]'
  python -m vosssl mode=benchmark … benchmark.folder=runs/benchmark/TIME   # go on where that run stopped
  torchrun --nproc-per-node 4 -m vosssl mode=train hparam=slotcontrast_movi_c data.root=MOVI

recipes (hparam=…)
{recipes}
models (method=…)
{models}
data (data=…; root=FOLDER says where it is)
{datasets}
keys every mode understands (cfg/main.yaml)
{keys}
"""


def guide(arguments: Sequence[str] = ()) -> str:
    """The guide, or with `hparam=`, `method=` or `data=` on the command line, that yaml with its comments.

    Raises:
        ValueError: there is no such yaml; says what was probably meant.
        FileNotFoundError: there is no folder as `--config-dir` says.
    """
    where = folders(arguments)
    for group in ("hparam", "method", "data"):
        value = chosen(arguments, group)
        if value is not None:
            found = [path for place in where if (path := place / group / f"{value}.yaml").is_file()]
            if not found:
                known = options(group, where=where)
                raise ValueError(f"there is no {group}={value}{closest(value, known)}")
            return found[-1].read_text()
    main = OmegaConf.load(config_dir() / "main.yaml")
    values = {str(key): value for key, value in main.items() if not OmegaConf.is_config(value)}
    keys = [f"{key}={'null' if value is None else str(value).lower()}" for key, value in values.items()]
    parts = {
        "recipes": "".join(
            f"  {name:<27}{_first_comment('hparam', name, where)}\n"
            for name in options("hparam", where=where)
        ),
        "models": _columns(options("method", where=where)),
        "datasets": _columns(options("data", where=where)),
        "keys": _columns([key for key in keys if not key.startswith("mode")]),
    }
    text = _GUIDE
    for name, part in parts.items():  # examples hold braces of their own
        text = text.replace(f"{{{name}}}", part)
    return text


def _first_comment(group: str, name: str, where: Sequence[Path]) -> str:
    """The beginning of a yaml file's opening comment, in whole words."""
    path = next(path for place in where if (path := place / group / f"{name}.yaml").is_file())
    lines = path.read_text().splitlines()
    comments = [line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line]
    return textwrap.shorten(comments[0], 100, placeholder=" …") if comments else ""


def _columns(words: Sequence[str], *, width: int = 100) -> str:
    """Words in lines of at most `width` characters, indented."""
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) + 2 > width:
            lines.append(line)
            line = ""
        line += f"{word}  "
    return "".join(f"  {text.rstrip()}\n" for text in [*lines, line] if text)


def explain(error: Exception, overrides: Sequence[str], *, where: Sequence[Path] | None = None) -> str:
    """One line for an error of Hydra or OmegaConf.

    Args:
        error: what composing raised.
        overrides: the command line.
        where: the folders of yaml files; None: only our own.

    Returns:
        What is wrong and what was probably meant.
    """
    text = str(error)
    where = [config_dir()] if where is None else where
    launcher = re.search(r"Could not find 'hydra/launcher/([^']+)'", text)
    if launcher:
        return f"there is no launcher {launcher[1]}; those of Slurm come with pip install 'vosssl[slurm]'"
    group = re.search(r"Could not find '(\w+)/([^']+)'", text)
    if group:
        return f"there is no {group[1]}={group[2]}{closest(group[2], options(group[1], where=where))}"
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if key:
        keys, name = known_keys(overrides, where=where), key[1]
        near = closest(name, [known for known in keys if known.count(".") == name.count(".")] or keys)
        hint = (
            f" (an argument that the yaml leaves at its default: +{name}=…)"
            if name.startswith(_BUILT)
            else ""
        )
        return f"there is no key {name!r}{near}{hint}"
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def known_keys(overrides: Sequence[str], *, where: Sequence[Path] | None = None) -> list[str]:
    """Every dotted key of the main configuration and of the yaml files that the command line leads to."""
    nodes: list[tuple[str, Any]] = [("", _yaml(config_dir() / "main.yaml"))]
    wanted = [pair for pair in map(split_override, overrides) if pair[0] in ("hparam", "method", "data")]
    for group, name in wanted:  # grows by what a recipe chooses
        for place in [config_dir()] if where is None else where:
            path = place / group / f"{name}.yaml"
            if path.is_file():
                content = _yaml(path)
                nodes.append(("" if group == "hparam" else f"{group}.", content))
                for default in content.get("defaults", ()):
                    if isinstance(default, dict):
                        wanted += [(str(key).split("/")[-1], str(value)) for key, value in default.items()]
    keys: list[str] = []
    for prefix, content in nodes:
        keys += [prefix + key for key in _dotted(content)]
    return sorted(set(keys) | {"mode", "hparam", "method", "data"})


def _yaml(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path))
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _dotted(node: object, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    keys = []
    for key, value in node.items():
        if key in ("defaults", "hydra"):
            continue
        keys += [f"{prefix}{key}", *_dotted(value, f"{prefix}{key}.")]
    return keys
