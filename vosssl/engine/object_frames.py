"""Which frames each object is scored in, where a protocol asks object by object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from vosssl.data.prediction_set import Predictions, some
from vosssl.engine.protocol import EvalProtocol

_STEP = 5  # LVOS annotates every fifth frame


def object_frames(
    truth: Predictions, sequence: str, protocol: EvalProtocol
) -> Mapping[int, tuple[str, ...]] | None:
    """The frames in which a protocol scores each object.

    `object`: the frames in which the truth has a file of the object, without its first and its last where
    the protocol says so. `listed`: from the object's start to before its end, as `*_meta.json` beside the
    annotations (or one folder up) lists them: `videos -> sequence -> objects -> id -> frame_range`.

    Args:
        truth: of the set.
        sequence: its name.
        protocol: whose `frames` is `object` or `listed`.

    Returns:
        id -> frame names in order; None where the truth holds all objects together, so that they share the
        video's frames.

    Raises:
        FileNotFoundError: `listed`, and there is no such list.
        ValueError: the list does not name the sequence, or is damaged.

    Source: sav_dataset/utils/sav_benchmark.py of facebookresearch/sam2, commit 2b90b9f, lines 38-63 and
    107-130; lvos/evaluation.py of LingyiHongfd/lvos-evaluation, commit 25cb02d, lines 50-92.
    """
    if protocol.frames == "listed":
        return _listed(truth.path, sequence, protocol)
    found = truth.object_frames(sequence)
    if found is None:
        return None
    return {identity: _between(frames, protocol) for identity, frames in found.items()}


def scored_frames_of(truth: Predictions, sequence: str, protocol: EvalProtocol) -> set[str]:
    """Names of the frames that a protocol looks at, for whatever object.

    Raises:
        FileNotFoundError: the truth lacks some, or their list, see `object_frames`.
        ValueError: see `object_frames`.
    """
    own = None if protocol.frames == "video" else object_frames(truth, sequence, protocol)
    frames = truth.frames(sequence)
    if own is None:
        return set(_between(frames, protocol))
    wanted = set[str]().union(*own.values())
    missing = sorted(wanted - set(frames))
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} frames of {sequence} that {protocol.name} scores are not in {truth.path}: "
            f"{some(missing)}"
        )
    return wanted


def _between(frames: tuple[str, ...], protocol: EvalProtocol) -> tuple[str, ...]:
    return frames[int(protocol.skip_first) : len(frames) - int(protocol.skip_last)]


def _listed(truth: Path, sequence: str, protocol: EvalProtocol) -> Mapping[int, tuple[str, ...]]:
    ranges, path = _ranges(truth)
    if sequence not in ranges:
        raise ValueError(f"{path} has no sequence {sequence}; it has {len(ranges)} others")
    found = {}
    try:
        for identity, entry in ranges[sequence]["objects"].items():
            start, end, count = (int(entry["frame_range"][name]) for name in ("start", "end", "frame_nums"))
            # whether `end` is the last frame or the one after it, frame `count - 1` is the last
            names = tuple(
                f"{number:08d}" for number in range(start, end, _STEP)[: count - protocol.skip_last]
            )
            found[int(identity)] = names[int(protocol.skip_first) :]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}, sequence {sequence}: no objects with a frame_range ({error!r})") from error
    return found


@lru_cache(maxsize=4)
def _ranges(truth: Path) -> tuple[dict[str, Any], Path]:
    for folder in (truth, truth.parent):
        for path in sorted(folder.glob("*_meta.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not isinstance(content.get("videos"), dict):
                raise ValueError(f"{path} has no videos, expected the ranges of objects as LVOS lists them")
            return content["videos"], path
    raise FileNotFoundError(
        f"no *_meta.json in {truth} or {truth.parent}: it lists in which frames an object is scored; copy it "
        "from the data set (valid_meta.json of LVOS), or use vos-benchmark"
    )
