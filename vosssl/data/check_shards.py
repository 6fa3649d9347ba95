"""Datasets in shards: TFRecords of MOVi, and numbered tars; which series there are and what they lack."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vosssl.data.check_findings import CheckReport, such_as
from vosssl.data.check_footage import missing_shards, shard_groups
from vosssl.data.check_parts import PartSpec

_SHAPE = re.compile(r'"video".*?"dimensions"\s*:\s*\[\s*"?(\d+)"?,\s*"?(\d+)"?,\s*"?(\d+)"?', re.DOTALL)


@dataclass(frozen=True)
class Series:
    """Shards that belong together.

    Attributes:
        part: train, validation and the like, as their names say.
        kind: tfrecord or tar.
        paths: those that are there.
        missing: numbers of those that are not.
        total: how many there should be.
    """

    part: str
    kind: Literal["tfrecord", "tar"]
    paths: tuple[Path, ...]
    missing: tuple[int, ...]
    total: int


def find_series(root: Path) -> list[Series]:
    """All series of shards in a folder and below."""
    found = []
    kinds: tuple[Literal["tfrecord", "tar"], ...] = ("tfrecord", "tar")
    for kind in kinds:
        for stem, paths in shard_groups(root, kind).items():
            missing, total = missing_shards(paths)
            words = stem.removesuffix(".tfrecord").rpartition("-")[2]
            found.append(Series(words, kind, tuple(sorted(paths)), tuple(missing), total))
    return found


def series_of(spec: PartSpec, series: Sequence[Series]) -> Series | None:
    """The series of a part: val and validation are one word; names begin with `series` where it has one."""
    begin = str(spec.more.get("series", ""))
    fitting = (one for one in series if one.paths[0].name.startswith(begin))
    return next((one for one in fitting if one.part[:3] == spec.name[:3]), None)


def report_series(series: Series, expected_shards: int | None, report: CheckReport) -> None:
    """Findings about which shards are there, before one is opened."""
    paths, part = series.paths, series.part
    totals = {path.name.rpartition("-of-")[2] for path in paths if "-of-" in path.name}
    if len(totals) > 1:
        report.add(
            "error",
            "shards-of-two-releases",
            part,
            f"shards name {' and '.join(sorted(totals))} as their number: files of two releases in one "
            f"folder; "
            "keep one release",
        )
    total = expected_shards or series.total
    absent = len(series.missing) + max(0, total - series.total)
    if absent:
        names = [f"{number:05d}" for number in series.missing]
        train = part.startswith("train")
        effect = "training works on the rest" if train else "scores are of the rest"
        report.add(
            "error",
            "shards-missing",
            part,
            f"{absent:,} of {total:,} shards are missing{f' ({such_as(names, absent)})' if names else ''}: "
            f"a partial "
            f"dataset, {effect} only where that is allowed (allow_missing=true), numbers are not comparable",
            count=absent,
        )


def stated_records(series: Series) -> int | None:
    """Records of a series as dataset_info.json beside its shards states them."""
    path = series.paths[0].parent / "dataset_info.json"
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
        lengths = next(split["shardLengths"] for split in splits if split["name"] == series.part)
        return sum(map(int, lengths))
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def stated_size(series: Series) -> tuple[int, int] | None:
    """(H, W) of the frames in TFRecords: from features.json beside them, or the folder's name (128x128)."""
    folder = series.paths[0].parent
    path = folder / "features.json"
    match = _SHAPE.search(path.read_text(encoding="utf-8")) if path.is_file() else None
    if match:
        return int(match[2]), int(match[3])
    for name in (folder.name, folder.parent.name):
        sides = re.fullmatch(r"(\d+)x(\d+)", name)
        if sides:
            return int(sides[1]), int(sides[2])
    return None
