"""The benchmark's table: methods that were run, floors first, and published numbers where they may stand."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vosssl.data.files import atomic_write
from vosssl.engine.protocol import EvalProtocol
from vosssl.engine.published import Published
from vosssl.engine.report import clean, write_json

Kind = Literal["floor", "measured", "published"]

METRICS = {
    "J&F": "J&F",
    "J": "J",
    "F": "F",
    "G": "G",
    "video/fg_ari": "FG-ARI",
    "video/ari": "ARI",
    "video/mbo": "mBO",
}  # metric -> heading
FACTS = ("frames/s", "memory GB", "parameters", "training data", "supervision", "source")
UNVERIFIED = {"N": "†", "M": "‡"}
LEGEND = {"†": "read in somebody else's summary", "‡": "recalled"}
WIDEST = 30  # characters of training data, supervision and source on the terminal
LISTED = 5  # methods that a footnote about other protocols names


@dataclass(frozen=True)
class Row:
    """One method on one dataset.

    Attributes:
        name: what the table calls it.
        kind: a floor, something that was run here, or a published number.
        means: by metric, in [0, 1].
        frames_per_second: of segmenting and decoding; None when unknown.
        peak_memory_bytes: of the CUDA allocator, or of the process; None when unknown.
        parameters: of the network; None without one or when unknown.
        training_data: what it was trained on.
        supervision: labels used in training, or given where the protocol gives none.
        source: weights, folder of predictions, or paper.
        verified: of a published number, see `published.VERIFIED`.
        notes: footnotes.
        sequences: each video's numbers.
        objects: each video's number of objects.
    """

    name: str
    kind: Kind
    means: Mapping[str, float]
    frames_per_second: float | None = None
    peak_memory_bytes: int | None = None
    parameters: int | None = None
    training_data: str = ""
    supervision: str = ""
    source: str = ""
    verified: str = ""
    notes: tuple[str, ...] = ()
    sequences: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    objects: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """The rows of one dataset and task: every number below its headings was measured under its protocol.

    Attributes:
        dataset: name of the data.
        task: `discovery` or `lock_on`.
        protocol: what was compared with what.
        videos: how many were measured here.
        frames: only the first so many frames of each were measured; None for all.
        rows: floors, then what was run, then published numbers.
        notes: footnotes of the whole block.
    """

    dataset: str
    task: str
    protocol: EvalProtocol
    videos: int
    frames: int | None = None
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """One line."""
        task = self.task.replace("_", "-")
        return f"{self.dataset}, {task}, protocol {self.protocol.name}, {self.extent}"

    @property
    def extent(self) -> str:
        """How much of the dataset was measured."""
        of = f" of {self.protocol.videos}" if self.protocol.videos not in (0, self.videos) else ""
        part = f", first {self.frames} frames of each" if self.frames else ""
        return f"{self.videos}{of} videos{part}"

    @property
    def is_part(self) -> bool:
        """Whether less was measured than what published numbers are of."""
        return self.frames is not None or self.protocol.videos not in (0, self.videos)


@dataclass(frozen=True)
class BenchmarkTable:
    """All blocks; rendered as one table with one heading.

    Attributes:
        blocks: one for each dataset and task.
        machine: where speed and memory were measured, and how; a line below the table.
    """

    blocks: tuple[Block, ...]
    machine: str = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that anybody has."""
        rows = [row for block in self.blocks for row in block.rows]
        return tuple(metric for metric in METRICS if any(_has(row, metric) for row in rows))

    @property
    def header(self) -> list[str]:
        """Headings of all columns."""
        return ["", *(METRICS[metric] for metric in self.metrics), *FACTS]

    def text(self) -> str:
        """Aligned plain text: a line for each block, its rows below, footnotes at the end.

        Long words are cut; Markdown and CSV hold them whole.
        """
        notes = Footnotes()
        body = [
            (title, [[*cells[:-3], *map(_cut, cells[-3:])] for cells in rows])
            for title, rows in self._body(notes)
        ]
        lines = [self.header, *(cells for _, rows in body for cells in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        numbers = 1 + len(self.metrics) + 3  # columns after the name that are set to the right

        def line(cells: Sequence[str]) -> str:
            set_cells = [
                cell.rjust(width) if 0 < place < numbers else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return "  ".join(set_cells).rstrip()

        head = line(self.header)
        parts = [head, "-" * len(head)]
        for title, rows in body:
            parts += [title, *map(line, rows), ""]
        return "\n".join([*parts, *notes.lines(), self.machine]).rstrip()

    def markdown(self) -> str:
        """One Markdown table with a bold line for each block, and footnotes below."""
        notes = Footnotes()
        header = self.header
        rule = ["---", *["---:"] * (len(self.metrics) + 3), *["---"] * 3]
        lines = [header, rule]
        for title, rows in self._body(notes):
            lines += [[f"**{title}**", *[""] * (len(header) - 1)], *rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in lines)
        below = [*notes.lines(), *([self.machine] if self.machine else [])]
        return "\n".join([table, "", *(f"- {note}" for note in below)]).rstrip() + "\n"

    def to_csv(self, path: str | Path) -> None:
        """Writes one line per row with full precision, atomically."""
        facts = ("frames_per_second", "peak_memory_bytes", "parameters", "training_data", "supervision")
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            place = ("dataset", "task", "protocol", "videos", "kind", "method")
            writer.writerow([*place, *self.metrics, *facts, "source", "verified", "notes"])
            for block in self.blocks:
                for row in block.rows:
                    writer.writerow(
                        [
                            *(
                                block.dataset,
                                block.task,
                                block.protocol.name,
                                block.videos,
                                row.kind,
                                row.name,
                            ),
                            *(repr(row.means[name]) if _has(row, name) else "" for name in self.metrics),
                            *("" if getattr(row, fact) is None else getattr(row, fact) for fact in facts),
                            *(row.source, row.verified, "; ".join(_notes(block, row))),
                        ]
                    )

    def to_json(self, path: str | Path) -> None:
        """Writes everything, each video's numbers too, atomically."""
        write_json(path, {"machine": self.machine, "blocks": [_block_dict(block) for block in self.blocks]})

    def _body(self, notes: Footnotes) -> Iterator[tuple[str, list[list[str]]]]:
        """Each heading with its rows; published rows have a heading of their own."""
        for block in self.blocks:
            ran = [row for row in block.rows if row.kind != "published"]
            title = notes.marked(block.title, block.notes)
            yield title, [self._cells(block, row, notes) for row in ran]
            known = [row for row in block.rows if row.kind == "published"]
            if known:
                whole = f"all {block.protocol.videos} videos" if block.protocol.videos else "the whole set"
                title = f"{block.dataset}, protocol {block.protocol.name}, published, {whole}"
                yield title, [self._cells(block, row, notes) for row in known]

    def _cells(self, block: Block, row: Row, notes: Footnotes) -> list[str]:
        unverified = notes.unverified_mark(row.verified)
        numbers = [
            f"{round(row.means[name], 3) + 0.0:.3f}{unverified}" if _has(row, name) else "-"
            for name in self.metrics
        ]
        rate = "-" if row.frames_per_second is None else f"{row.frames_per_second:.1f}"
        memory = "-" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e9:.2f}"
        size = "-" if row.parameters is None else _count(row.parameters)
        words = [word or "-" for word in (row.training_data, row.supervision, row.source)]
        return [notes.marked(row.name, _notes(block, row)), *numbers, rate, memory, size, *words]


class Footnotes:
    """Numbers footnotes in the order in which they are first referred to."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.unverified: set[str] = set()

    def marked(self, text: str, notes: Iterable[str]) -> str:
        """A text with the marks of its footnotes, such as `name [2, 5]`."""
        numbers = []
        for note in notes:
            if note not in self.notes:
                self.notes.append(note)
            numbers.append(str(self.notes.index(note) + 1))
        return f"{text} [{', '.join(numbers)}]" if numbers else text

    def unverified_mark(self, verified: str) -> str:
        """The sign behind a published number that was not read where it was first printed."""
        sign = UNVERIFIED.get(verified, "")
        self.unverified |= {sign} - {""}
        return sign

    def lines(self) -> list[str]:
        """The footnotes, and what signs mean."""
        return [
            *(f"[{number}] {note}" for number, note in enumerate(self.notes, start=1)),
            *(
                f"{sign} {text}: check it before quoting"
                for sign, text in LEGEND.items()
                if sign in self._signs()
            ),
        ]

    def _signs(self) -> str:
        return "".join([*self.unverified, *self.notes])


def with_published(
    blocks: Iterable[Block], published: Sequence[Published], *, machine: str = ""
) -> BenchmarkTable:
    """Adds published numbers to the blocks whose data and protocol they follow, and footnotes the others.

    Args:
        blocks: what was measured.
        published: every number there is.
        machine: see BenchmarkTable.

    Returns:
        The table. Published numbers of a block's dataset under another protocol, or under none of ours, are
        named in a footnote and never stand in a column.
    """
    blocks = tuple(blocks)
    places = {(block.dataset, block.protocol.name) for block in blocks}
    elsewhere = [row for row in published if (row.dataset, row.protocol) not in places]
    finished = []
    for block in blocks:
        own = [
            row for row in published if (row.dataset, row.protocol) == (block.dataset, block.protocol.name)
        ]
        near = [row for row in elsewhere if row.dataset == block.dataset]
        rows = (*block.rows, *published_rows(own))
        finished.append(replace(block, rows=rows, notes=(*block.notes, *other_protocols(block, near))))
    return BenchmarkTable(tuple(finished), machine)


def published_rows(published: Iterable[Published]) -> list[Row]:
    """One row for each method and source, the best first; speed is added to the method's first row."""
    groups: dict[tuple[str, str], list[Published]] = {}
    speeds: dict[str, Published] = {}
    for number in published:
        if number.metric == "fps":
            speeds[number.method] = number
        elif number.metric in METRICS:
            groups.setdefault((number.method, number.source), []).append(number)
    rows = []
    for (method, source), numbers in groups.items():
        first, speed = numbers[0], speeds.pop(method, None)
        notes = list(dict.fromkeys(number.note for number in numbers if number.note))
        if speed is not None:
            notes.append(f"speed: {speed.note} ({speed.source})")
        rows.append(
            Row(
                name=f"{method} ({first.year})",
                kind="published",
                means={number.metric: number.value for number in numbers},
                frames_per_second=None if speed is None else speed.value,
                training_data=first.training_data,
                supervision=first.supervision,
                source=source,
                verified=max((number.verified for number in numbers), key="RPNM".index),
                notes=tuple(notes),
            )
        )
    return sorted(rows, key=_strength, reverse=True)


def other_protocols(block: Block, published: Iterable[Published]) -> list[str]:
    """Footnotes about published numbers of a block's dataset that follow another protocol."""
    groups: dict[tuple[str, str], list[Published]] = {}
    for number in published:
        if number.metric in METRICS:
            groups.setdefault((number.protocol, "" if number.protocol else number.note), []).append(number)
    notes = []
    for (protocol, note), numbers in groups.items():
        methods: dict[str, list[str]] = {}
        for number in numbers:
            mark = UNVERIFIED.get(number.verified, "")
            methods.setdefault(number.method, []).append(f"{METRICS[number.metric]} {number.value:.3f}{mark}")
        named = [f"{method} {' '.join(values)}" for method, values in list(methods.items())[:LISTED]]
        more = f" and {len(methods) - LISTED} more" if len(methods) > LISTED else ""
        why = f"under {protocol}" if protocol else f"under no protocol of ours: {note}"
        notes.append(f"published on {block.dataset} {why}, so not beside these: {', '.join(named)}{more}")
    return notes


def _notes(block: Block, row: Row) -> tuple[str, ...]:
    """A row's footnotes; where less was measured than what the published numbers are of, that one too."""
    compared = any(other.kind == "published" for other in block.rows)
    if row.kind == "published" or not block.is_part or not compared:
        return row.notes
    return (*row.notes, f"{block.extent}: not to be compared with published rows, which are of the whole set")


def _has(row: Row, metric: str) -> bool:
    return metric in row.means and not math.isnan(row.means[metric])


def _strength(row: Row) -> float:
    return next((row.means[metric] for metric in METRICS if _has(row, metric)), 0.0)


def _cut(cell: str) -> str:
    return cell if len(cell) <= WIDEST else f"{cell[: WIDEST - 1]}…"


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters < 1e7 else f"{parameters / 1e6:.0f} M"


def _block_dict(block: Block) -> dict[str, Any]:
    return {
        "dataset": block.dataset,
        "task": block.task,
        "protocol": block.protocol.name,
        "compare_with": block.protocol.compare_with,
        "videos": block.videos,
        "videos_of_whole_set": block.protocol.videos or None,
        "frames_limit": block.frames,
        "notes": list(block.notes),
        "rows": [
            {
                "method": row.name,
                "kind": row.kind,
                "means": clean(row.means),
                "frames_per_second": row.frames_per_second,
                "peak_memory_bytes": row.peak_memory_bytes,
                "parameters": row.parameters,
                "training_data": row.training_data,
                "supervision": row.supervision,
                "source": row.source,
                "verified": row.verified,
                "notes": list(_notes(block, row)),
                "sequences": {video: dict(values) for video, values in row.sequences.items()},
            }
            for row in block.rows
        ],
    }
