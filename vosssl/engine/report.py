"""Reports: lists of scores, every average a group-by; and the table of a model beside its floors."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vosssl.data.files import atomic_write
from vosssl.engine.scoring import Curve
from vosssl.engine.significance import Interval, Measured, composed_interval, measured_by_metric
from vosssl.metrics.score import Score

DISCOVERY_COLUMNS = (
    "video/fg_ari",
    "video/ari",
    "video/mbo",
    "video/miou",
    "image/fg_ari",
    "image/ari",
    "image/mbo",
    "image/miou",
    "J&F",
    "J",
    "F",
)
DAVIS_COLUMNS = ("J&F", "J", "J/recall", "J/decay", "F", "F/recall", "F/decay")
COMPARISON_COLUMNS = (
    "video/fg_ari",
    "video/ari",
    "video/mbo",
    "image/fg_ari",
    "image/ari",
    "image/mbo",
    "J&F",
)
REPORTED = ("protocol", "global", "intervals", "sequences")  # of a report's JSON; the rest are facts
COMPOSED = {"J&F": ("J", "F"), "G": ("J/seen", "F/seen", "J/unseen", "F/unseen")}  # means of means


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        scores: all of them.
        protocol: name of the protocol of J and F.
        curves: per-frame J and F by object, where they were kept.
        facts: anything else worth a line: seconds, frames per second, peak memory.
    """

    scores: Sequence[Score]
    protocol: str = ""
    curves: Sequence[Curve] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def mean(self, metric: str, *, video: str | None = None) -> float:
        """Weighted mean of a metric; J and F average over objects, so that every object weighs the same.

        Args:
            metric: a score's name; or `J&F`, the mean of mean J and mean F; or `G`, the mean of both over
                seen and over unseen categories.
            video: only this one; None for all.

        Returns:
            The mean; NaN where nothing was measured.
        """
        if metric in COMPOSED:
            parts = [self.mean(part, video=video) for part in COMPOSED[metric]]
            return math.fsum(parts) / len(parts)
        values, weights = self._by_metric.get(metric, Measured({}, {}))
        pairs = [
            pair
            for name in (values if video is None else [video] if video in values else [])
            for pair in zip(values[name], (weights or {})[name], strict=True)
        ]
        weight = math.fsum(weight for _, weight in pairs)
        return math.fsum(value * weight for value, weight in pairs) / weight if weight else math.nan

    def measured(self, metric: str) -> list[Measured]:
        """The values that a metric's mean is of, by video; several of them for a mean of means."""
        return [self._by_metric.get(part, Measured({}, {})) for part in COMPOSED.get(metric, (metric,))]

    def interval(self, metric: str) -> Interval:
        """The 95 % bootstrap interval of a metric's mean over videos; the same one every time.

        Args:
            metric: as for `mean`.

        Returns:
            (low, high); NaN for fewer than two videos.
        """
        return composed_interval(self.measured(metric))

    def intervals(self) -> dict[str, list[float] | None]:
        """`[low, high]` of every metric's mean; None for fewer than two videos."""
        found = {metric: self.interval(metric) for metric in self.metrics}
        return {metric: None if math.isnan(ends.low) else [*ends] for metric, ends in found.items()}

    @cached_property
    def _by_metric(self) -> dict[str, Measured]:
        return measured_by_metric(self.scores)

    @property
    def videos(self) -> tuple[str, ...]:
        """Names of the videos, in the order they were scored."""
        return tuple(dict.fromkeys(score.video for score in self.scores))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what was measured, `J&F` included, the usual columns first."""
        present = {score.metric for score in self.scores}
        present |= {name for name, parts in COMPOSED.items() if present.issuperset(parts)}
        order = dict.fromkeys((*DISCOVERY_COLUMNS, *DAVIS_COLUMNS, *sorted(present)))
        return tuple(metric for metric in order if metric in present)

    def means(self) -> dict[str, float]:
        """Every metric's mean over all videos."""
        return {metric: self.mean(metric) for metric in self.metrics}

    def per_video(self, metric: str) -> dict[str, float]:
        """A metric's mean over each video's objects; videos without it are left out."""
        values = {video: self.mean(metric, video=video) for video in self.videos}
        return {video: value for video, value in values.items() if not math.isnan(value)}

    def table(self, *, columns: Sequence[str] | None = None) -> str:
        """Plain text: a row per video, then the mean.

        Args:
            columns: metrics; None for all.

        Returns:
            Aligned lines.
        """
        columns = self.metrics if columns is None else columns
        rows: list[list[str | float]] = []
        for video in self.videos:
            rows.append([video, *(self.mean(metric, video=video) for metric in columns)])
        rows.append(["mean", *(self.mean(metric) for metric in columns)])
        title = f"protocol {self.protocol}, {len(self.videos)} videos" if self.protocol else ""
        return format_table(["video", *columns], rows, title=title)

    def as_dict(self) -> dict[str, Any]:
        """Everything with full precision: protocol, `global` means, their 95 % `intervals` over videos,
        `sequences` with objects, facts."""
        return {
            "protocol": self.protocol,
            "global": clean(self.means()),
            "intervals": self.intervals(),
            "sequences": {video: self._sequence(video) for video in self.videos},
            **dict(self.facts),
        }

    @classmethod
    def from_json(cls, path: str | Path) -> Report:
        """Reads what `to_json` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no report; names the file.
        """
        content = _read_report(Path(path))
        scores: list[Score] = []
        curves: list[Curve] = []
        for video, entry in content["sequences"].items():
            found: set[str] = set()
            weights = entry.get("object_samples", {})
            for identity, metrics in entry.get("objects", {}).items():
                for metric, value in metrics.items():
                    found.add(metric)
                    if metric.endswith("/frames"):
                        frames, values = tuple(value), tuple(value.values())
                        curves.append(
                            Curve(video, int(identity), metric.removesuffix("/frames"), frames, values)
                        )
                    else:
                        weight = weights.get(identity, 1.0)
                        scores.append(Score(video, int(identity), metric, value, weight))
            samples = entry.get("samples", {})
            scores += [
                Score(video, None, metric, value, samples.get(metric, 1.0))
                for metric, value in entry.items()
                if isinstance(value, float | int) and metric not in found and metric not in COMPOSED
            ]
        facts = {name: value for name, value in content.items() if name not in REPORTED}
        return cls(scores, protocol=content["protocol"], curves=curves, facts=facts)

    def to_json(self, path: str | Path) -> None:
        """Writes `as_dict`, atomically."""
        write_json(path, self.as_dict())

    def to_csv(self, path: str | Path) -> None:
        """Writes one line per score (video, object, metric, value, weight), atomically."""
        with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Score._fields)
            writer.writerows(
                [s.video, "" if s.object is None else s.object, s.metric, repr(s.value), s.weight]
                for s in self.scores
            )

    def _sequence(self, video: str) -> dict[str, Any]:
        sequence: dict[str, Any] = clean({metric: self.mean(metric, video=video) for metric in self.metrics})
        objects: dict[str, dict[str, Any]] = {}
        samples: dict[str, float] = {}
        object_samples: dict[str, float] = {}
        for score in self.scores:
            if score.video == video and score.object is None and score.weight != 1:
                samples[score.metric] = score.weight
            if score.video == video and score.object is not None:
                objects.setdefault(str(score.object), {})[score.metric] = score.value
                if score.weight != 1:
                    object_samples[str(score.object)] = score.weight
        for curve in self.curves:
            if curve.video == video:
                objects.setdefault(str(curve.object), {})[f"{curve.metric}/frames"] = dict(
                    zip(curve.frames, curve.values, strict=True)
                )
        sequence |= {"samples": samples} if samples else {}
        sequence |= {"object_samples": object_samples} if object_samples else {}
        return sequence | ({"objects": objects} if objects else {})


@dataclass(frozen=True)
class Comparison:
    """A model beside the trivial baselines, on the same videos.

    Attributes:
        name: the model's.
        model: its report.
        floors: reports of the baselines by name.
        facts: time, steps, throughput, peak memory, alarms; written beside the numbers.
    """

    name: str
    model: Report
    floors: Mapping[str, Report]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def table(self, *, columns: Sequence[str] = COMPARISON_COLUMNS) -> str:
        """Plain text: the model's row first, then the floors; columns that nobody has are left out."""
        reports = {self.name: self.model, **self.floors}
        columns = [name for name in columns if any(name in report.metrics for report in reports.values())]
        rows: list[list[str | float]] = []
        for name, report in reports.items():
            rows.append([name, *(report.mean(metric) for metric in columns)])
        return format_table(["", *columns], rows, title=f"{len(self.model.videos)} videos")

    def as_dict(self) -> dict[str, Any]:
        """`model`, its `intervals` and `floors` by metric name, facts, each video's numbers for the model."""
        return {
            "name": self.name,
            "protocol": self.model.protocol,
            "videos": len(self.model.videos),
            "model": clean(self.model.means()),
            "intervals": self.model.intervals(),
            "floors": {name: clean(report.means()) for name, report in self.floors.items()},
            **dict(self.facts),
            "sequences": {
                video: clean({metric: self.model.mean(metric, video=video) for metric in self.model.metrics})
                for video in self.model.videos
            },
        }

    def to_json(self, path: str | Path) -> None:
        """Writes `as_dict`, atomically: the run's report.json."""
        write_json(path, self.as_dict())


def _read_report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no report {path}")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    sequences = content.get("sequences") if isinstance(content, dict) else None
    if not isinstance(sequences, dict) or not isinstance(content.get("protocol"), str):
        raise ValueError(f"{path} is no report of one method: it has no protocol and sequences")
    return content


def clean(values: Mapping[str, float]) -> dict[str, float | None]:
    """NaN as None: JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes JSON whole or not at all; refuses NaN and infinity, which other programs cannot read."""
    text = json.dumps(content, indent=1, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def format_table(header: Sequence[str], rows: Iterable[Sequence[str | float]], *, title: str = "") -> str:
    """Aligned plain text.

    Args:
        header: names of the columns.
        rows: a name, then numbers in [0, 1]; NaN is shown as a dash.
        title: a line above; none when empty.

    Returns:
        Lines without a trailing newline.
    """
    cells = [list(header), *([cell_text(value) for value in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    rule = "-" * len(lines[0])
    return "\n".join(
        [*([title] if title else []), lines[0].rstrip(), rule, *(ln.rstrip() for ln in lines[1:])]
    )


def cell_text(value: str | float) -> str:
    """A table's cell: texts as they are, numbers with three decimals, NaN as a dash."""
    if isinstance(value, str):
        return value
    return "-" if math.isnan(value) else f"{value:.3f}"
