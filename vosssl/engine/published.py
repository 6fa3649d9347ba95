"""Numbers from papers and official repositories: eval/published/*.csv, typed and checked."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import vosssl
from vosssl.engine.protocol import list_protocols

COLUMNS = (
    "method",
    "year",
    "metric",
    "value",
    "spread",
    "dataset",
    "protocol",
    "supervision",
    "training_data",
    "source",
    "verified",
    "note",
)
OPTIONAL = {"spread", "protocol", "note"}  # cells that may be empty
UNITS = {"fps": 1.0} | dict.fromkeys(
    (
        *("J&F", "J", "F", "G", "HOTA"),
        *(f"{kind}/{name}" for kind in ("video", "image") for name in ("fg_ari", "ari", "mbo", "miou")),
    ),
    100.0,
)  # metric -> what its printed values are divided by: papers print percentages
VERIFIED = {
    "R": "read in the official repository",
    "P": "read in the paper's own table",
    "N": "read in somebody else's summary, not verified",
    "M": "recalled, not verified",
}


@dataclass(frozen=True)
class Published:
    """One number that somebody printed.

    Attributes:
        method: as the source calls it.
        year: of publication.
        metric: as our scores are called, or `fps`: frames per second on the hardware that `note` names.
        value: in [0, 1], or frames per second.
        spread: standard deviation over trainings, in the same unit; None where none is stated.
        dataset: the name of its yaml in cfg/data, or what that would be.
        protocol: which of eval/protocols it follows; "" when none does, and then `note` says why.
        supervision: labels that were used in training, or given where the protocol gives none.
        training_data: what it was trained on.
        source: the paper and table, or the repository, where the number was read.
        verified: R, P, N or M, see VERIFIED.
        note: settings, and whatever else stands between this number and ours.
    """

    method: str
    year: int
    metric: str
    value: float
    spread: float | None
    dataset: str
    protocol: str
    supervision: str
    training_data: str
    source: str
    verified: str
    note: str = ""

    @property
    def is_verified(self) -> bool:
        """Whether it was read where it was first printed."""
        return self.verified in ("R", "P")


def published_folder() -> Path:
    """Where the numbers are: inside the installed package, else beside it in a checkout.

    Raises:
        FileNotFoundError: neither is there (a broken installation).
    """
    package = Path(vosssl.__file__).parent
    for folder in (package / "published", package.parent / "eval" / "published"):
        if any(folder.glob("*.csv")):
            return folder
    raise FileNotFoundError(f"no published/*.csv in {package} or {package.parent / 'eval'}; reinstall vosssl")


def load_published(folder: str | Path | None = None) -> list[Published]:
    """Reads and checks every row of every CSV of a folder.

    Args:
        folder: None for ours.

    Returns:
        The rows, files by name, lines in order.

    Raises:
        FileNotFoundError: no CSV there.
        ValueError: a wrong header or cell, or the same number twice; names file and line.
    """
    folder = published_folder() if folder is None else Path(folder)
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"no CSV of published numbers in {folder}")
    rows: dict[tuple[str, ...], tuple[str, Published]] = {}
    protocols = list_protocols()
    for path in files:
        for place, row in _rows(path, protocols):
            key = (row.method, row.metric, row.dataset, row.protocol, row.source)
            if key in rows:
                raise ValueError(f"{place} repeats {rows[key][0]}: {' / '.join(key)}")
            rows[key] = (place, row)
    return [row for _, row in rows.values()]


def _rows(path: Path, protocols: Iterable[str]) -> Iterable[tuple[str, Published]]:
    with path.open(newline="") as file:
        reader = csv.reader(file)
        header = tuple(next(reader, ()))
        if header != COLUMNS:
            raise ValueError(f"{path} has columns {', '.join(header)}; expected {', '.join(COLUMNS)}")
        for cells in reader:
            place = f"{path}:{reader.line_num}"
            if len(cells) != len(COLUMNS):
                raise ValueError(f"{place} has {len(cells)} cells, expected {len(COLUMNS)}; quote commas")
            row = {name: cell.strip() for name, cell in zip(COLUMNS, cells, strict=True)}
            yield place, _parsed(row, place, protocols)


def _parsed(row: dict[str, str], place: str, protocols: Iterable[str]) -> Published:
    for column, cell in row.items():
        if not cell and column not in OPTIONAL:
            raise ValueError(f"{place} has no {column}; every number needs one")
    if row["metric"] not in UNITS:
        raise ValueError(f"{place} has metric {row['metric']!r}, expected one of {', '.join(UNITS)}")
    if row["verified"] not in VERIFIED:
        raise ValueError(f"{place} has verified {row['verified']!r}, expected one of {', '.join(VERIFIED)}")
    if row["protocol"] and row["protocol"] not in protocols:
        raise ValueError(
            f"{place} follows protocol {row['protocol']!r}, which is not in eval/protocols; it has "
            f"{', '.join(protocols)}; leave it empty and say in note how the number was measured"
        )
    if not row["protocol"] and not row["note"]:
        raise ValueError(f"{place} follows no protocol of ours: its note has to say how it was measured")
    unit = UNITS[row["metric"]]
    return Published(
        **{name: row[name] for name in COLUMNS if name not in ("year", "value", "spread")},
        year=int(_number(row["year"], place, "year", low=1990, high=2100)),
        value=_number(row["value"], place, "value", low=0, high=unit if unit > 1 else math.inf) / unit,
        spread=_number(row["spread"], place, "spread", low=0, high=unit) / unit if row["spread"] else None,
    )


def _number(text: str, place: str, column: str, *, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise ValueError(f"{place} has {column} {text!r}, expected a number from {low:g} to {high:g}")
    return number
