"""Tables of reports: Markdown, differences solved by hand, and reports that may not stand side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from vosssl.engine.report import Report
from vosssl.engine.scoring import Curve
from vosssl.engine.tables import (
    SideBySide,
    difference_of,
    markdown_table,
    report_markdown,
    why_not_comparable,
)
from vosssl.metrics.score import Score


def report(values: dict[str, float], *, protocol: str = "davis17-val", objects: int = 1) -> Report:
    """J as given, F a tenth below."""
    scores = [
        Score(video, identity, metric, value - (0.1 if metric == "F" else 0.0))
        for video, value in values.items()
        for identity in range(1, objects + 1)
        for metric in ("J", "F")
    ]
    return Report(scores, protocol=protocol)


FLOOR = report({"dog": 0.4, "cat": 0.6})
OURS = report({"dog": 0.9, "cat": 0.5})


def test_markdown_aligns_numbers_to_the_right_and_escapes_bars() -> None:
    table = markdown_table(["a|b", "J"], [["x", 0.12345], ["y", math.nan], ["z", "text"]], title="Title")
    assert table.splitlines() == [
        "Title",
        "",
        "| a\\|b | J |",
        "| --- | ---: |",
        "| x | 0.123 |",
        "| y | - |",
        "| z | text |",
    ]


def test_a_report_ends_with_its_mean_and_interval() -> None:
    lines = report_markdown(FLOOR, columns=["J&F", "J"]).splitlines()
    assert lines[0] == "Protocol davis17-val, 2 sequences."
    assert lines[-3:] == [
        "| cat | 0.550 | 0.600 |",
        "| **mean** | 0.450 | 0.500 |",
        "| 95 % interval | [0.350, 0.550] | [0.400, 0.600] |",
    ]
    assert "interval" not in report_markdown(FLOOR, intervals=False)


def test_the_difference_is_taken_on_shared_sequences_only() -> None:
    more = report({"dog": 0.9, "cat": 0.5, "cow": 0.1})
    assert difference_of(FLOOR, more, "J") == difference_of(FLOOR, OURS, "J")
    assert difference_of(FLOOR, OURS, "J").mean == pytest.approx(0.2)
    assert math.isnan(difference_of(FLOOR, report({"cow": 0.1}), "J").mean)
    assert FLOOR.interval("J") == pytest.approx((0.4, 0.6))


def test_the_comparison_as_json_holds_differences_with_intervals(tmp_path: Path) -> None:
    more = report({"dog": 0.9, "cat": 0.5, "cow": 0.1})
    SideBySide({"floor": FLOOR, "ours": more}, metric="J", notes=("why",)).to_json(tmp_path / "table.json")
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["methods"]["floor"]["intervals"]["J"] == pytest.approx([0.4, 0.6])
    change = content["differences"]["ours"]
    assert (change["minus"], change["sequences"]) == ("floor", 2)
    assert change["metrics"]["J"]["mean"] == pytest.approx(0.2)
    assert change["metrics"]["J"]["interval"] == pytest.approx([-0.1, 0.5])
    assert content["sequences"]["cow"] == {"floor": None, "ours": 0.1}
    assert content["notes"] == ["why"]


def test_reports_of_the_same_thing_may_be_compared() -> None:
    assert why_not_comparable({"floor": FLOOR, "ours": OURS}) == []
    assert why_not_comparable({"alone": FLOOR}) == []


def test_other_protocols_sequences_objects_and_frames_forbid_it() -> None:
    def reasons(other: Report) -> str:
        return " ".join(why_not_comparable({"floor": FLOOR, "other": other}))

    protocol = report({"dog": 0.1, "cat": 0.2}, protocol="davis16-val")
    assert "floor follows protocol davis17-val, other follows davis16-val" in reasons(protocol)
    assert "floor has sequence cat that other has not scored" in reasons(report({"dog": 0.1}))
    assert "other has sequence cow that floor has not" in reasons(report({"dog": 0.1, "cat": 0.2, "cow": 1}))
    assert "other objects in sequences dog, cat" in reasons(report({"dog": 0.1, "cat": 0.2}, objects=2))
    long, short = (
        Report(FLOOR.scores, protocol="davis17-val", curves=[Curve("dog", 1, "J", frames, values)])
        for frames, values in ((("1", "2"), (0.5, 0.5)), (("1",), (0.5,)))
    )
    assert why_not_comparable({"a": long, "b": short}) == ["a and b stopped at other frames of sequence dog"]
    many = report({f"v{i}": 0.5 for i in range(9)})
    assert "sequences v0, v1, v2 and 6 more" in " ".join(why_not_comparable({"many": many, "b": FLOOR}))


def test_frames_that_begin_with_the_prediction_may_be_compared() -> None:
    early, late = (
        Report(FLOOR.scores, curves=[Curve("dog", 1, "J", frames, (0.5,) * len(frames))])
        for frames in (("9", "10"), ("10",))
    )
    assert why_not_comparable({"a": early, "b": late}) == []


def test_a_mean_over_seen_and_unseen_objects_has_its_interval() -> None:
    parts = {"J/seen": 0.8, "F/seen": 0.6, "J/unseen": 0.4, "F/unseen": 0.2}
    scores = [Score(video, 1, part, value) for video in ("dog", "cat") for part, value in parts.items()]
    assert Report(scores).interval("G") == pytest.approx((0.5, 0.5))
    assert difference_of(Report(scores), Report(scores), "G")[:3] == (0.0, 0.0, 0.0)


def test_side_by_side_shows_means_differences_and_sequences() -> None:
    text = SideBySide({"floor": FLOOR, "ours": OURS}, metric="J").text()
    means, differences, sequences = text.split("\n\n")
    assert means.splitlines()[0] == "Protocol davis17-val; 95 % intervals over sequences"
    assert "0.500 [0.400, 0.600]" in means
    assert "0.700 [0.500, 0.900]" in means
    assert "+0.200 [-0.100, +0.500]" in differences
    rows = [line.split() for line in sequences.splitlines()[3:]]
    assert rows == [["cat", "0.600", "0.500", "-0.100"], ["dog", "0.400", "0.900", "+0.500"]]


def test_a_forced_comparison_carries_its_footnote() -> None:
    table = SideBySide({"floor": FLOOR, "ours": OURS}, notes=("they differ",))
    assert "ours *" in table.text()
    assert table.text().splitlines()[-1] == "* not a fair comparison: they differ."
    assert table.markdown().splitlines()[-1] == "\\* not a fair comparison: they differ."


def test_sequences_of_one_report_are_a_dash_in_the_other() -> None:
    table = SideBySide({"a": FLOOR, "b": report({"dog": 0.5, "cow": 0.7})}, metric="J")
    rows = [line.split() for line in table.text().split("\n\n")[2].splitlines()[3:]]
    assert rows == [
        ["dog", "0.400", "0.500", "+0.100"],
        ["cat", "0.600", "-", "-"],
        ["cow", "-", "0.700", "-"],
    ]


def test_one_report_alone_is_a_table_too() -> None:
    means, sequences = SideBySide({"ours": OURS}).text().split("\n\n")
    assert "ours" in means
    assert [line.split()[0] for line in sequences.splitlines()[3:]] == ["cat", "dog"]


def test_only_shared_metrics_become_columns() -> None:
    other = Report([*OURS.scores, Score("dog", 1, "J/recall", 1.0), Score("dog", None, "video/mbo", 0.5)])
    assert SideBySide({"a": other}).columns == ("video/mbo", "J&F", "J", "F")
    assert SideBySide({"a": other, "b": OURS}).columns == ("J&F", "J", "F")
