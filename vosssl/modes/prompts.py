"""Clicks, boxes and masks of objects, as they are written on a command line or in a small file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor
from yaml import YAMLError  # OmegaConf reads with PyYAML

from vosssl.data.io import read_labels
from vosssl.modes.config import closest
from vosssl.ops.resize import Size
from vosssl.propagation.object_prompts import ObjectPrompt
from vosssl.propagation.segmenter import Box

KEYS = ("object", "frame", "points", "box", "mask")
EXAMPLE = "'prompt={points: [[320, 180], [300, 90, 0]]}': x, y and 1 on the object or 0 beside it"


def read_prompts(given: object) -> tuple[list[dict[str, Any]], Path] | None:
    """The prompts that `predict.prompt` holds or names.

    Args:
        given: a mapping of one object, a list of them, or the path of a YAML or JSON file of either.

    Returns:
        One mapping for each prompt, and the folder that masks are looked for in; None for anything else, such
        as a label image.

    Raises:
        FileNotFoundError, ValueError: no such file, or one that is no YAML.
    """
    if isinstance(given, DictConfig | ListConfig):
        return _entries(OmegaConf.to_container(given, resolve=True), "prompt"), Path()
    if not isinstance(given, str) or Path(given).suffix not in (".yaml", ".yml", ".json"):
        return None
    path = Path(given).expanduser()
    if path.suffix == ".json" and path.is_file():
        with path.open() as file:
            beginning = file.read(200)
        if not beginning.lstrip().startswith("[") and '"prompts"' not in beginning:
            return None  # annotations of a dataset
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; a prompt is such as {EXAMPLE}")
    try:
        content = json.loads(path.read_text()) if path.suffix == ".json" else _yaml(path)
    except (YAMLError, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return _entries(content, str(path)), path.parent


def _yaml(path: Path) -> object:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)  # a file may not look at this machine


def _entries(content: object, where: str) -> list[dict[str, Any]]:
    """Mappings with known keys."""
    if isinstance(content, Mapping) and "prompts" in content:
        content = content["prompts"]
    entries = [content] if isinstance(content, Mapping) else content
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError(
            f"{where} holds {content!r}, expected one prompt or a list of them, such as {EXAMPLE}"
        )
    if not entries:
        raise ValueError(f"{where} is empty, expected prompts such as {EXAMPLE}")
    for entry in entries:
        for key in entry:
            if key not in KEYS:
                raise ValueError(f"{where} has a prompt with {key!r}{closest(str(key), KEYS)}")
    return [dict(entry) for entry in entries]


def object_prompt(entry: Mapping[str, Any], size: Size, *, folder: Path = Path()) -> ObjectPrompt:
    """One prompt.

    Args:
        entry: `object` (1) and `frame` (0), and `points` [[x, y, 1 or 0], …], `box` [left, top, right,
            bottom], or `mask`, a label image; of one with several objects, the object's own label is taken.
        size: (H, W) of the video's frames.
        folder: where the label image is looked for.

    Raises:
        ValueError: whatever cannot be: no numbers, an empty box, a mask without the object.
        FileNotFoundError: no such mask.
    """
    identity, frame = (_whole(entry.get(key, default), key) for key, default in (("object", 1), ("frame", 0)))
    points = tuple(_point(point) for point in _listed(entry.get("points") or [], "points"))
    box = None
    if entry.get("box") is not None:
        sides = _listed(entry["box"], "box")
        if len(sides) != 4 or not all(map(_is_number, sides)):
            raise ValueError(f"box is {entry['box']}, expected [left, top, right, bottom] in pixels")
        box = Box(*map(float, sides))
    mask = None if entry.get("mask") is None else _mask(folder / str(entry["mask"]), identity, size)
    return ObjectPrompt(identity, frame, points, box, mask)


def _mask(path: Path, identity: int, size: Size) -> Tensor:
    labels = read_labels(path.expanduser(), size=size)
    own = labels == identity
    if bool(own.any()):
        return own
    values = sorted(set(labels.unique().tolist()) - {0})
    if len(values) != 1:
        found = f"labels {', '.join(map(str, values))}" if values else "nothing but background"
        raise ValueError(f"the mask {path} is empty for object {identity}: it holds {found}")
    return labels == values[0]  # of one object, under whatever number


def _point(point: object) -> tuple[float, float, bool]:
    parts = _listed(point, "a point")
    if (
        len(parts) not in (2, 3)
        or not all(map(_is_number, parts))
        or (len(parts) == 3 and parts[2] not in (0, 1))
    ):
        raise ValueError(f"a point is {point}, expected [x, y] or [x, y, 1 on the object or 0 beside it]")
    return float(parts[0]), float(parts[1]), len(parts) == 2 or bool(parts[2])


def _listed(value: object, what: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what}: {value!r}, expected a list in brackets, such as {EXAMPLE}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, expected a whole number")
    return value
