"""A report of scores as one HTML file: bars per sequence, curves per frame, errors on the pictures,
identities over time, the worst objects first, and perhaps a second method beside the first.

Python computes what is shown and compresses pictures into sprite sheets; `score_page.js` beside this file
draws and moves them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from vosssl.data.listing import natural_order
from vosssl.engine.html_page import number, write_html_page
from vosssl.engine.protocol import DISCOVERY, EvalProtocol, load_protocol
from vosssl.engine.report import Report
from vosssl.engine.score_pictures import (
    ERROR_COLORS,
    FrameSource,
    LabelSource,
    Sources,
    as_frames,
    as_predictions,
    as_truth,
    frames_of,
    sequence_pictures,
)
from vosssl.engine.significance import Interval
from vosssl.engine.tables import difference_of, interval_text, why_not_comparable

__all__ = ["FrameSource", "LabelSource", "ScoredMethod", "write_score_page"]


@dataclass(frozen=True)
class ScoredMethod:
    """A method on the page.

    Attributes:
        name: what the page calls it.
        report: its scores; curves are drawn where it has them.
        predictions: its labels, or the folder that holds them; None: no pictures of it.
    """

    name: str
    report: Report
    predictions: LabelSource | str | Path | None = None


def write_score_page(
    path: str | Path,
    report: Report,
    *,
    name: str = "",
    predictions: LabelSource | str | Path | None = None,
    other: ScoredMethod | None = None,
    truth: LabelSource | str | Path | None = None,
    frames: FrameSource | str | Path | None = None,
    protocol: EvalProtocol | str | None = None,
    title: str = "",
    notes: Sequence[str] = (),
    display_side: int = 320,
    max_frames: int = 40,
    max_sequences: int = 40,
) -> Path:
    """Writes the page of one report, or of two side by side.

    Without labels the page has the numbers and curves, with labels also pictures of truth, predictions and
    errors, with frames also what is below them. Curves keep every frame; pictures are made of at most
    `max_frames` frames of the `max_sequences` worst sequences, no larger than `display_side`. Where the
    protocol matches proposals to objects, the pictures match them by overlap.

    Args:
        path: the HTML file, replaced at once when it is complete. Its folder is made.
        report: of the method.
        name: what it is called; "": its protocol's name.
        predictions: its labels, or the folder that holds them.
        other: a second method, shown as the first and with the difference second minus first.
        truth: the objects' labels, or the folder that holds them.
        frames: the images: a function from a sequence's name to its video, or a folder of frame folders.
        protocol: how labels are read; None: that of the report, where its name is known.
        title: headline and window title.
        notes: sentences that a reader has to know, shown above everything.
        display_side: longer side of a picture, pixels.
        max_frames: pictures per sequence.
        max_sequences: sequences with pictures.

    Returns:
        The path.

    Raises:
        ValueError: nothing was scored, or display_side or max_frames is not positive.
        FileNotFoundError: no such folder.
    """
    if display_side < 1 or max_frames < 1:
        raise ValueError(
            f"display_side is {display_side} and max_frames is {max_frames}, expected positive numbers"
        )
    if not report.videos:
        raise ValueError("the report has no scores, so there is nothing to show")
    methods = [ScoredMethod(name or report.protocol or "method", report, predictions)]
    methods += [other] if other else []
    known = _protocol(report.protocol) if protocol is None else load_protocol(protocol)
    sources = Sources(as_truth(truth), [as_predictions(m.predictions) for m in methods], as_frames(frames))
    metrics = _metrics(methods)
    sequences = [_sequence_payload(video, methods, metrics, sources.truth) for video in _videos(methods)]
    for sequence in sorted(sequences, key=_badness(metrics[0]))[:max_sequences]:
        sequence["pictures"] = sequence_pictures(
            sequence["name"],
            sequence["frameNames"],
            sources,
            protocol=known,
            method_names=[method.name for method in methods],
            display_side=display_side,
            max_frames=max_frames,
        )
    headline = title or " and ".join(method.name for method in methods)
    parts = {
        "title": escape(headline),
        "summary": _summary_html(methods, metrics),
        "notes": _notes_html(methods, notes),
        "facts": escape(_facts(methods, known, sequences)),
    }
    return write_html_page(path, "score_page", parts=parts, report=_content(methods, metrics, sequences))


def _notes_html(methods: Sequence[ScoredMethod], notes: Sequence[str]) -> str:
    """What a reader has to know, and why two methods may not be compared."""
    reasons = [f"{reason}." for reason in why_not_comparable({m.name: m.report for m in methods})]
    return "".join(f"<li>{escape(note)}</li>" for note in [*notes, *reasons])


def _content(
    methods: Sequence[ScoredMethod], metrics: Sequence[str], sequences: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What score_page.js draws from."""
    return {
        "methods": [method.name for method in methods],
        "metrics": metrics,
        "overall": {metric: _overall(methods, metric) for metric in metrics},
        "errorColors": [_rgba(color) for color in ERROR_COLORS],
        "sequences": sequences,
    }


def _overall(methods: Sequence[ScoredMethod], metric: str) -> dict[str, Any]:
    """Means over all sequences; of two methods also their difference with the ends of its interval."""
    means = [_exact(method.report.mean(metric)) for method in methods]
    if len(methods) < 2:
        return {"means": means}
    difference = difference_of(methods[0].report, methods[1].report, metric)
    return {"means": means, "change": [_exact(value) for value in difference[:3]]}


def _exact(value: float) -> float | None:
    """As `number`, with digits enough that rounding it to three again gives what the tables say."""
    return round(value, 8) if math.isfinite(value) else None


def _protocol(name: str) -> EvalProtocol | None:
    """The protocol of a report; None for a name that this library does not know."""
    if name == DISCOVERY.name:
        return DISCOVERY
    try:
        return load_protocol(name)
    except ValueError:
        return None


def _metrics(methods: Sequence[ScoredMethod]) -> list[str]:
    """What both methods have, J&F first."""
    shared = [name for name in methods[0].report.metrics if all(name in m.report.metrics for m in methods)]
    return sorted(shared or methods[0].report.metrics, key=lambda name: name != "J&F")


def _videos(methods: Sequence[ScoredMethod]) -> list[str]:
    return list(dict.fromkeys(video for method in methods for video in method.report.videos))


def _badness(metric: str) -> Any:
    """A sort key: sequences with the lowest values first, those without a value last."""

    def key(sequence: dict[str, Any]) -> float:
        known = [value for value in sequence["values"][metric] if value is not None]
        return min(known, default=math.inf)

    return key


def _sequence_payload(
    video: str, methods: Sequence[ScoredMethod], metrics: Sequence[str], truth: LabelSource | None
) -> dict[str, Any]:
    """Numbers of one sequence: a list entry per method everywhere."""
    curves = _curves(video, methods)
    scored = {frame for by_method in curves.values() for one in by_method for frame in one}
    names = sorted({*scored, *frames_of(truth, video)}, key=natural_order)
    return {
        "name": video,
        "values": {
            metric: [_exact(method.report.mean(metric, video=video)) for method in methods]
            for metric in metrics
        },
        "objects": _objects(video, methods),
        "frameNames": names,
        "curves": [
            {
                "object": identity,
                "metric": metric,
                "points": [
                    [number(one[name]) if name in one else None for name in names] for one in by_method
                ],
            }
            for (identity, metric), by_method in sorted(curves.items(), key=lambda item: item[0])
        ],
        "pictures": None,
    }


def _curves(video: str, methods: Sequence[ScoredMethod]) -> dict[tuple[int, str], list[dict[str, float]]]:
    """Object and metric -> frame -> value, one per method."""
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    for place, method in enumerate(methods):
        for curve in method.report.curves:
            if curve.video == video:
                slots = found.setdefault((curve.object, curve.metric), [{} for _ in methods])
                slots[place] = dict(zip(curve.frames, curve.values, strict=True))
    return found


def _objects(video: str, methods: Sequence[ScoredMethod]) -> list[dict[str, Any]]:
    """J and F of each object, one per method."""
    values: dict[int, dict[str, list[float | None]]] = {}
    for place, method in enumerate(methods):
        for score in method.report.scores:
            if score.video == video and score.object is not None and score.metric in ("J", "F"):
                row = values.setdefault(
                    score.object, {"J": [None] * len(methods), "F": [None] * len(methods)}
                )
                row[score.metric][place] = _exact(score.value)
    return [{"object": identity, **row} for identity, row in sorted(values.items())]


def _summary_html(methods: Sequence[ScoredMethod], metrics: Sequence[str]) -> str:
    """The table of means with intervals, and of two methods their difference."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in metrics)
    body = [
        f'<tr><th scope="row">{escape(method.name)}</th>'
        + "".join(_mean_cell(method.report, metric) for metric in metrics)
        + "</tr>"
        for method in methods
    ]
    if len(methods) == 2:
        cells = "".join(_difference_cell(methods, metric) for metric in metrics)
        body.append(f'<tr class="difference"><th scope="row">difference</th>{cells}</tr>')
    return (
        '<div class="scroll" role="region" aria-label="Summary" tabindex="0"><table class="summary">'
        f'<thead><tr><th scope="col">method</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _mean_cell(report: Report, metric: str) -> str:
    mean = report.mean(metric)
    if math.isnan(mean):
        return "<td>-</td>"
    share = min(max(mean, 0.0), 1.0) * 100
    return (
        f'<td><span class="bar" style="--share:{share:.1f}%">{mean:.3f}</span>'
        f'<span class="interval">{interval_text(report.interval(metric))}</span></td>'
    )


def _difference_cell(methods: Sequence[ScoredMethod], metric: str) -> str:
    difference = difference_of(methods[0].report, methods[1].report, metric)
    if math.isnan(difference.mean):
        return "<td>-</td>"
    kind = ' class="clear"' if difference.clear else ""
    above = "" if math.isnan(difference.better) else f"<br>&gt; 0 in {100 * difference.better:.0f} % of draws"
    return (
        f'<td{kind}><span class="change">{difference.mean:+.3f}</span>'
        f'<span class="interval">{interval_text(Interval(*difference[1:3]), signed=True)}{above}</span></td>'
    )


def _facts(
    methods: Sequence[ScoredMethod], protocol: EvalProtocol | None, sequences: Sequence[dict[str, Any]]
) -> str:
    """What the numbers are, in words."""
    name = methods[0].report.protocol
    lines = [f"Protocol {name}." if name else "No protocol was named."]
    if protocol is not None and protocol.compare_with:
        lines.append(f"Comparable with: {protocol.compare_with}.")
    lines.append(
        "Intervals hold 95 % of the means of 2000 bootstrap draws of the videos, each with all its objects; "
        "those of a difference draw the same videos for both methods."
    )
    pictured = sum(sequence["pictures"] is not None for sequence in sequences)
    if 0 < pictured < len(sequences):
        lines.append(f"Pictures are shown of {pictured} of {len(sequences)} sequences, the worst ones.")
    if pictured and protocol is not None and protocol.task == "unsupervised":
        lines.append("In pictures and timelines proposals are matched to objects by overlap.")
    return " ".join(lines)


def _rgba(color: tuple[int, int, int, int]) -> str:
    red, green, blue, alpha = color
    return f"rgb({red} {green} {blue} / {alpha / 255:.2f})"
