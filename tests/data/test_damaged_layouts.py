"""Forty ways in which a dataset arrives damaged: readers and mode=check each say what it is, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.damaged_layouts import (
    DAVIS,
    LAYOUTS,
    Layout,
    checked,
    damaged,
    davis,
    finding_of,
    in_order,
    main,
    message_of_readers,
)
from vosssl.data.check import check_dataset

each = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)


@each
def test_readers_say_what_is_wrong(layout: Layout, tmp_path: Path) -> None:
    message = message_of_readers(layout, damaged(layout, tmp_path))
    assert in_order(layout.said, message), message
    assert bool(message) == bool(layout.said), message
    assert "\n" not in message


@each
def test_a_check_finds_it_and_says_whether_reading_fails(layout: Layout, tmp_path: Path) -> None:
    root = damaged(layout, tmp_path)
    report = checked(layout, root)
    finding = finding_of(layout, report)
    assert finding is not None, [one.line() for one in report.findings]
    assert finding.severity == layout.severity
    assert "\n" not in finding.message
    assert report.usable == (message_of_readers(layout, root) == "")


def test_a_whole_dataset_gives_no_more_than_notes(tmp_path: Path) -> None:
    davis(tmp_path)
    report = check_dataset(tmp_path, parts=[DAVIS])
    assert [one.line() for one in report.findings if one.severity != "note"] == []


def test_the_table_has_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(LAYOUTS) + 2
    assert all(line.count(" | ") == 2 and not line.endswith("| - |") for line in lines)
