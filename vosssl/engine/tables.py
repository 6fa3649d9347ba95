"""Reports as Markdown, and several reports side by side: means with intervals, differences per sequence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vosssl.data.listing import natural_order
from vosssl.engine.report import Report, cell_text, clean, format_table, write_json
from vosssl.engine.significance import Difference, Interval, Measured, composed_difference

NAMED = 3  # examples in a message


class Section(NamedTuple):
    """One table: a line above it, the headings, and rows of a name and numbers or texts."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float]]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str | float]], *, title: str = "") -> str:
    """A Markdown table, its first column to the left, the others to the right.

    Args:
        header: names of the columns.
        rows: a name, then numbers or texts; NaN is shown as a dash.
        title: a paragraph above; none when empty.

    Returns:
        Lines that end with a newline.
    """
    cells = [list(header), *([cell_text(value) for value in row] for row in rows)]
    lines = [f"| {' | '.join(map(_escaped, row))} |" for row in cells]
    rule = f"| {' | '.join(['---', *['---:'] * (len(header) - 1)])} |"
    return "\n".join([*([title, ""] if title else []), lines[0], rule, *lines[1:], ""])


def report_markdown(report: Report, *, columns: Sequence[str] | None = None, intervals: bool = True) -> str:
    """A report as Markdown: a row per sequence, the means, and their 95 % intervals over sequences.

    Args:
        report: with scores.
        columns: metrics; None for all.
        intervals: whether the last row is there.

    Returns:
        The table with its protocol above.
    """
    columns = list(report.metrics if columns is None else columns)
    rows: list[list[str | float]] = [
        [video, *(report.mean(metric, video=video) for metric in columns)] for video in report.videos
    ]
    rows.append(["**mean**", *(report.mean(metric) for metric in columns)])
    if intervals:
        rows.append(["95 % interval", *(interval_text(report.interval(metric)) for metric in columns)])
    protocol = f"Protocol {report.protocol}, " if report.protocol else ""
    return markdown_table(["sequence", *columns], rows, title=f"{protocol}{len(report.videos)} sequences.")


def difference_of(first: Report, second: Report, metric: str) -> Difference:
    """Second minus first over the videos that both scored; NaN where they share none.

    Args:
        first: a report.
        second: another of the same protocol.
        metric: a score's name, or a mean of means such as `J&F`.

    Returns:
        The difference with its interval.
    """
    before, after = first.measured(metric), second.measured(metric)
    videos = [{video for part in parts for video in part.values} for parts in (before, after)]
    shared = videos[0] & videos[1]
    if not shared:
        return Difference(*[math.nan] * 4)
    return composed_difference(*([_only(part, shared) for part in parts] for parts in (before, after)))


def _only(part: Measured, videos: set[str]) -> Measured:
    values, weights = (
        {video: row for video, row in rows.items() if video in videos}
        for rows in (part.values, part.weights or {})
    )
    return Measured(values, weights)


def interval_text(interval: Interval, *, signed: bool = False) -> str:
    """`[low, high]`, a dash where there is none."""
    if math.isnan(interval.low):
        return "-"
    low, high = (f"{end:+.3f}" if signed else f"{end:.3f}" for end in interval)
    return f"[{low}, {high}]"


def why_not_comparable(reports: Mapping[str, Report]) -> list[str]:
    """What forbids to put reports into one table, a sentence each.

    Args:
        reports: by name; the others are held against the first.

    Returns:
        Other protocols, sequences, objects or frames; empty when all measured the same thing.
    """
    (name, first), *others = reports.items()
    found = []
    for other_name, other in others:
        if first.protocol != other.protocol:
            found.append(
                f"{name} follows protocol {first.protocol or '(none named)'}, {other_name} follows "
                f"{other.protocol or '(none named)'}: they do not measure the same"
            )
        for one, two, a, b in ((name, other_name, first, other), (other_name, name, other, first)):
            alone = [video for video in a.videos if video not in set(b.videos)]
            if alone:
                found.append(f"{one} has {_named(alone, 'sequence')} that {two} has not scored")
        found += _other_truth(name, first, other_name, other)
    return found


@dataclass(frozen=True)
class SideBySide:
    """Several reports in one table, each held against the first.

    Attributes:
        reports: by name, the first is the one that differences start from.
        metric: what differences per sequence are of.
        notes: footnotes; why the comparison is not a fair one, where it is forced.
    """

    reports: Mapping[str, Report]
    metric: str = "J&F"
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Metrics that every report has, without recall and decay."""
        first, *others = self.reports.values()
        shared = [name for name in first.metrics if all(name in other.metrics for other in others)]
        return tuple(name for name in shared if not name.endswith(("/recall", "/decay")))

    def sections(self) -> list[Section]:
        """Means, then differences of the means, then values per sequence with their differences."""
        first, *others = self.reports
        protocols = " / ".join(dict.fromkeys(r.protocol or "(none)" for r in self.reports.values()))
        mark = " *" if self.notes else ""
        means: list[list[str | float]] = [
            [name + mark, f"{len(report.videos)}", *(_mean_text(report, metric) for metric in self.columns)]
            for name, report in self.reports.items()
        ]
        found = [Section(f"Protocol {protocols}; 95 % intervals over sequences", self._header(), means)]
        if others:
            rows = [self._change(first, other) for other in others]
            header = ["difference", "sequences", *self.columns]
            found.append(Section(f"Against {first}, on the sequences of both", header, rows))
        return [*found, self._per_sequence()]

    def text(self) -> str:
        """Aligned plain text."""
        tables = [format_table(part.header, part.rows, title=part.title) for part in self.sections()]
        return "\n\n".join([*tables, *(["\n".join(self._footnotes())] if self.notes else [])])

    def markdown(self) -> str:
        """The same as Markdown."""
        tables = [
            markdown_table(part.header, part.rows, title=f"**{part.title}**") for part in self.sections()
        ]
        return "\n".join([*tables, *(line.replace("*", "\\*", 1) for line in self._footnotes())])

    def as_dict(self) -> dict[str, Any]:
        """Everything with full precision.

        Returns:
            `methods`, each with `protocol`, `global` and `intervals` as in a report; `differences`, each
            method minus the first over so many shared `sequences`: per metric its `mean`, `interval` and
            `better`, the share of draws in which it is ahead; `sequences`: what `metric` is of each method;
            `notes`. None where there is no number.
        """
        (_, first), *others = self.reports.items()
        return {
            "methods": {
                name: {
                    "protocol": report.protocol,
                    "global": clean(report.means()),
                    "intervals": report.intervals(),
                }
                for name, report in self.reports.items()
            },
            "differences": {
                name: {
                    "minus": next(iter(self.reports)),
                    "sequences": len({*first.videos} & {*other.videos}),
                    "metrics": {m: _as_dict(difference_of(first, other, m)) for m in self.columns},
                }
                for name, other in others
            },
            "metric": self.metric,
            "sequences": {
                video: clean(dict(zip(self.reports, row, strict=True)))
                for video, row in self._values_per_sequence().items()
            },
            "notes": list(self.notes),
        }

    def to_json(self, path: str | Path) -> None:
        """Writes `as_dict`, atomically."""
        write_json(path, self.as_dict())

    def _header(self) -> list[str]:
        return ["method", "sequences", *self.columns]

    def _footnotes(self) -> list[str]:
        return [f"* not a fair comparison: {note}." for note in self.notes]

    def _change(self, first: str, other: str) -> list[str | float]:
        before, after = self.reports[first], self.reports[other]
        shared = {*before.videos} & {*after.videos}
        cells = []
        for metric in self.columns:
            change = difference_of(before, after, metric)
            interval = interval_text(Interval(change.low, change.high), signed=True)
            cells.append("-" if math.isnan(change.mean) else f"{change.mean:+.3f} {interval}")
        return [f"{other} - {first}", f"{len(shared)}", *cells]

    def _per_sequence(self) -> Section:
        """A row per sequence of any report, the largest loss of the last report first."""
        first, *others = self.reports
        rows: list[list[str | float]] = []
        for video, row in self._values_per_sequence().items():
            changes = [value - row[0] for value in row[1:]]
            rows.append([video, *row, *("-" if math.isnan(c) else f"{c:+.3f}" for c in changes)])
        rows.sort(key=lambda row: _sort_key(row, len(others)))
        header = ["sequence", *self.reports, *(f"{other} - {first}" for other in others)]
        return Section(f"{self.metric} per sequence", header, rows)

    def _values_per_sequence(self) -> dict[str, list[float]]:
        """What the metric is in each sequence of any report, a value per report; NaN where it has none."""
        values = [report.per_video(self.metric) for report in self.reports.values()]
        videos = dict.fromkeys(video for report in self.reports.values() for video in report.videos)
        return {video: [known.get(video, math.nan) for known in values] for video in videos}


def _as_dict(difference: Difference) -> dict[str, Any]:
    ends = clean({"low": difference.low, "high": difference.high})
    numbers: dict[str, Any] = clean({"mean": difference.mean, "better": difference.better})
    return numbers | {"interval": None if ends["low"] is None else [*ends.values()]}


def _sort_key(row: Sequence[str | float], others: int) -> tuple[bool, float]:
    """By the last difference (or, of one report, by the value); unknown ones last."""
    last = row[-1]
    if others and last == "-":
        return True, 0.0
    value = float(last)
    return math.isnan(value), value if not math.isnan(value) else 0.0


def _mean_text(report: Report, metric: str) -> str:
    mean = report.mean(metric)
    return "-" if math.isnan(mean) else f"{mean:.3f} {interval_text(report.interval(metric))}"


def _other_truth(name: str, first: Report, other_name: str, other: Report) -> list[str]:
    """Sequences of both in which other objects, or frames up to another one, were scored."""
    found = []
    for what, here, there in (
        ("scored other objects in", _objects(first), _objects(other)),
        ("stopped at other frames of", _last_frames(first), _last_frames(other)),
    ):
        differing = [video for video in here if video in there and here[video] != there[video]]
        if differing:
            found.append(f"{name} and {other_name} {what} {_named(differing, 'sequence')}")
    return found


def _objects(report: Report) -> dict[str, set[int]]:
    objects: dict[str, set[int]] = {}
    for score in report.scores:
        if score.object is not None:
            objects.setdefault(score.video, set()).add(score.object)
    return objects


def _last_frames(report: Report) -> dict[str, str]:
    """The last scored frame of each video. (The first may depend on the prediction, as in vos-benchmark.)"""
    frames: dict[str, str] = {}
    for curve in report.curves:
        for last in curve.frames[-1:]:
            frames[curve.video] = max(frames.get(curve.video, last), last, key=natural_order)
    return frames


def _named(names: Sequence[str], what: str) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(names[:NAMED])}{more}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
