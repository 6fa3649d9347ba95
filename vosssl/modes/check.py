"""mode=check: which release of a dataset is on disk, what is missing or damaged, and with what effect."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vosssl.data.check import check_dataset
from vosssl.data.check_findings import CheckReport
from vosssl.data.check_parts import PartSpec
from vosssl.data.release import Release
from vosssl.engine.report import format_table, write_json
from vosssl.modes.config import options, yaml_of
from vosssl.modes.session import config_folders, require, start

log = logging.getLogger(__name__)
_PLACE = ("images", "annotations", "split_file", "files", "series")
_PART_KEYS = ("images", "annotations", "split_file", "labels", "binary", "kind")


def run(cfg: DictConfig) -> None:
    """Prints counts and findings, and writes check.json into a new run folder.

    Raises:
        ValueError: no dataset was chosen, or one without a folder.
        SystemExit: with status 1, where something was found that stops reading.
    """
    data = require(cfg, "data", why="mode=check")
    values = OmegaConf.to_container(data, resolve=True)
    assert isinstance(values, dict)
    parts = parts_of({str(key): value for key, value in values.items()})
    release = Release.from_dict(values.get("release"))
    if not release.expect and not parts:
        raise ValueError(f"data={data.name} is made while it is read: there are no files to check")
    root = cfg.get("root") if data.root is None else data.root
    if root in (None, ""):
        raise ValueError(f"mode=check needs the folder to look at: data={data.name} root=FOLDER")
    session = start(cfg)
    report = check_dataset(
        root,
        name=str(data.name),
        release=release,
        parts=parts,
        others=other_releases(str(data.name)),
        sample=OmegaConf.select(cfg, "check.sample"),
        workers=OmegaConf.select(cfg, "check.workers") or os.cpu_count() or 1,
        progress=sys.stderr.isatty(),
    )
    write_json(session.folder / "check.json", report.as_dict())
    log.info("\n%s\n", report_text(report, title=release.title or str(data.name)))
    log.info("check       %s", session.folder / "check.json")
    if not report.usable:
        sys.exit(1)


def report_text(report: CheckReport, *, title: str) -> str:
    """What is on disk, a table of counts, and the findings, errors first."""
    header, rows = report.rows()
    lines = [f"{title} at {report.root}", *(f"  {line}" for line in report.release), ""]
    if rows:
        lines += [format_table(header, rows), ""]
    lines += [finding.line() for finding in report.findings]
    worst = "usable" if report.usable else "not usable as it is"
    counts = [
        f"{count} {severity}{'s' if count != 1 else ''}"
        for severity in ("error", "warning", "note")
        if (count := sum(finding.severity == severity for finding in report.findings))
    ]
    return "\n".join([*lines, "", f"{worst}: {', '.join(counts) or 'nothing to report'}"])


def parts_of(data: Mapping[str, Any]) -> list[PartSpec]:
    """The parts that a dataset's yaml reads, out of the arguments of its readers.

    Args:
        data: the composed `data` group.

    Returns:
        A part for each reader of files below train, val and the like; the same files are named once.
    """
    found: dict[tuple[Any, ...], PartSpec] = {}
    for name, node in data.items():
        for reader in _readers(node) if name != "release" else ():
            target = str(reader["_target_"]).rpartition(".")[2]
            entry = {key: reader[key] for key in _PART_KEYS if reader.get(key) is not None}
            entry["part"] = name
            if target == "VideoFiles":
                entry |= {"files": "video", "images": reader.get("folder") or "", "annotations": None}
            elif target.startswith("Movi") or "shards" in reader:
                split = str(reader.get("split") or name)
                shards = str(reader.get("shards", "")).rpartition("-")[0]
                series = shards or f"{reader.get('variant')}-{split}"
                entry |= {"part": split, "annotations": None, "series": series, "images": ""}
            elif "images" not in entry:
                entry["images"] = str(
                    reader.get("folder") or "JPEGImages" if target == "FolderDataset" else ""
                )
            if target not in ("FolderDataset", "VideoFiles"):
                entry["stills"] = True
            place = tuple(entry.get(key) for key in (*_PLACE, "part" if "series" in entry else ""))
            found.setdefault(place, PartSpec.from_dict(entry))
    return list(found.values())


def _readers(node: Any) -> Iterator[Mapping[str, Any]]:
    """Nodes that construct something from a root."""
    if isinstance(node, Mapping):
        if "_target_" in node and "root" in node:
            yield node
        else:
            for inner in node.values():
                yield from _readers(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _readers(inner)


def other_releases(name: str) -> dict[str, Release]:
    """The releases that the other yaml files describe: one of them may be what is on disk."""
    where = [Path(folder) for folder in config_folders()]
    found = {}
    for other in options("data", where=where):
        block = OmegaConf.select(yaml_of("data", other, where=where), "release")
        if other != name and block is not None:
            found[other] = Release.from_dict(OmegaConf.to_container(block, resolve=False))  # type: ignore[arg-type]
    return found
