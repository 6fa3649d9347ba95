"""What `python -m vosssl` prints: what there is, with examples; and one line for a wrong command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from vosssl.modes.config import closest, config_dir, options, split_override

_GUIDE = """\
vosssl: learn objects in video without labels, beside supervised baselines, under one evaluator

  python -m vosssl mode=MODE [hparam=RECIPE] [method=MODEL] [data=DATA] [resume=CHECKPOINT] [any.key=value …]

modes
  train      learn a model, then evaluate it          mode=train hparam=slots
  eval       score a model on labelled video          mode=eval resume=… data=davis16 data.root=DAVIS
  predict    label a video, a folder or a camera      mode=predict resume=… predict.source=video.mp4
  inspect    slots and masks as one HTML page         mode=inspect resume=…
  benchmark  many models, many datasets, one table    mode=benchmark benchmark.entries=[slots-synthetic,…]
  help       this text; `mode=help hparam=slots` shows one recipe

examples
  python -m vosssl mode=train hparam=slots                             # no download, CPU or GPU, 10 minutes
  python -m vosssl mode=train hparam=slots seed=1 train.batch_size=32  # any key can be set
  python -m vosssl --multirun mode=train hparam=slots seed=0,1,2       # a sweep: one run each
  python -m vosssl mode=train resume=runs/slots/TIME/last.ckpt         # go on after Ctrl-C or a kill
  python -m vosssl mode=eval resume=… data=davis16 data.root=DAVIS evaluate.task=lock_on
  python -m vosssl mode=benchmark                                      # floors on generated clips
  python -m vosssl mode=benchmark data=davis16 data.root=DAVIS 'benchmark.entries=[runs/slots/TIME/last.ckpt,
      {{name: OSVOS, predictions: FOLDER, tasks: [lock_on], supervision: masks}}]'
  python -m vosssl mode=benchmark … benchmark.folder=runs/benchmark/TIME   # go on where that run stopped
  torchrun --nproc-per-node 4 -m vosssl mode=train hparam=slotcontrast_movi_c data.root=MOVI

recipes (hparam=…)
{recipes}
models (method=…)
{models}
data (data=…)
{datasets}
keys every mode understands (cfg/main.yaml)
{keys}
"""


def guide(arguments: Sequence[str] = ()) -> str:
    """The guide, or with `hparam=`, `method=` or `data=` on the command line, that yaml with its comments."""
    for group in ("hparam", "method", "data"):
        for key, value in map(split_override, arguments):
            if key == group:
                if value not in options(group):
                    return f"there is no {group}={value}{closest(value, options(group))}\n"
                return (config_dir() / group / f"{value}.yaml").read_text()
    main = OmegaConf.load(config_dir() / "main.yaml")
    keys = [f"{key!s}={value}" for key, value in main.items() if not OmegaConf.is_config(value)]
    return _GUIDE.format(
        recipes="".join(f"  {name:<24}{_first_comment('hparam', name)}\n" for name in options("hparam")),
        models=_columns(options("method")),
        datasets=_columns(options("data")),
        keys=_columns([key.replace("=None", "=null") for key in keys if not key.startswith("mode")]),
    )


def _first_comment(group: str, name: str) -> str:
    """The first sentence of a yaml file's opening comment."""
    lines = (config_dir() / group / f"{name}.yaml").read_text().splitlines()
    comments = [line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line]
    return comments[0][:100] if comments else ""


def _columns(words: Sequence[str], *, width: int = 100) -> str:
    """Words in lines of at most `width` characters, indented."""
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) + 2 > width:
            lines.append(line)
            line = ""
        line += f"{word}  "
    return "".join(f"  {text.rstrip()}\n" for text in [*lines, line] if text)


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for an error of Hydra or OmegaConf.

    Args:
        error: what composing raised.
        overrides: the command line.

    Returns:
        What is wrong and what was probably meant.
    """
    text = str(error)
    group = re.search(r"Could not find '(\w+)/([^']+)'", text)
    if group:
        return f"there is no {group[1]}={group[2]}{closest(group[2], options(group[1]))}"
    missing_group = re.search(r"Could not override '([^']+)'", text)
    if missing_group:
        return f"there is no key {missing_group[1]!r}{closest(missing_group[1], known_keys(overrides))}"
    key = re.search(r"Key '([^']+)' is not in struct", text)
    full = re.search(r"full_key: (\S+)", text)
    if key:
        name = full[1] if full else key[1]
        hint = f"; for an argument that the yaml leaves at its default write +{name}=…" if "." in name else ""
        return f"there is no key {name!r}{closest(name, known_keys(overrides))}{hint}"
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def known_keys(overrides: Sequence[str]) -> list[str]:
    """Every dotted key of the main configuration and of the yaml files chosen on the command line."""
    chosen: list[tuple[str, Path]] = [("", config_dir() / "main.yaml")]
    for key, value in map(split_override, overrides):
        path = config_dir() / key / f"{value}.yaml"
        if key in ("hparam", "method", "data") and path.is_file():
            chosen.append(("" if key == "hparam" else f"{key}.", path))
    keys: list[str] = []
    for prefix, path in chosen:
        keys += [prefix + key for key in _dotted(OmegaConf.to_container(OmegaConf.load(path)))]
    return sorted(set(keys) | {"mode", "hparam", "method", "data"})


def _dotted(node: object, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    keys = []
    for key, value in node.items():
        if key in ("defaults", "hydra"):
            continue
        keys += [f"{prefix}{key}", *_dotted(value, f"{prefix}{key}.")]
    return keys
