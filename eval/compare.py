"""Puts reports beside each other: means, differences, and whether these are more than the choice of videos.

    python eval/compare.py floor.json ours.json --json table.json --markdown table.md --html page.html

Exit code 2 when the reports do not measure the same thing; --force compares them anyway, with a footnote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch loads only when there is something to do
    from vosssl.engine.report import Report


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        print(compare(options))
    except (ValueError, OSError) as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(options: argparse.Namespace) -> str:
    """The table as text; writes what else was asked for.

    Raises:
        ValueError: reports that may not be compared, or options that do not fit.
        OSError: a file that is not there or cannot be written.
    """
    missing = [str(path) for path in options.reports if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no report {', '.join(missing)}, expected files that score.py --json wrote")
    names = options.names or unique_names(options.reports)
    if len(names) != len(options.reports) or len({*names}) != len(names):
        raise ValueError(f"names are {', '.join(names)}, expected {len(options.reports)} different ones")
    from vosssl.data.files import atomic_write
    from vosssl.engine.tables import SideBySide, why_not_comparable

    reports = dict(zip(names, map(read_report, options.reports), strict=True))
    reasons = why_not_comparable(reports)
    if reasons and not options.force:
        raise ValueError("; ".join(reasons) + " (--force compares them anyway, with this as a footnote)")
    table = SideBySide(reports, metric=options.metric or usual_metric(reports), notes=tuple(reasons))
    if table.metric not in table.columns:
        raise ValueError(f"no report of all has {table.metric}, they share {', '.join(table.columns)}")
    if options.html:
        write_page(options, reports)
    if options.markdown:
        with atomic_write(options.markdown) as temporary:
            temporary.write_text(table.markdown(), encoding="utf-8")
    if options.json:
        table.to_json(options.json)
    return table.text()


def read_report(path: Path) -> Report:
    """A report that `Report.to_json` wrote."""
    from vosssl.engine.report import Report

    try:
        return Report.from_json(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} holds no report of scores ({error}), expected what score.py writes"
        ) from error


def write_page(options: argparse.Namespace, reports: dict[str, Report]) -> None:
    """The HTML page of one report or two."""
    if len(reports) > 2:
        raise ValueError(f"--html shows one report or two, got {len(reports)}; write a page per pair")
    from vosssl.data.predictions import open_predictions
    from vosssl.engine.score_page import ScoredMethod, write_score_page

    folders = options.predictions or [None] * len(reports)
    if len(folders) != len(reports):
        raise ValueError(f"--predictions names {len(folders)} folders for {len(reports)} reports")
    methods = [
        ScoredMethod(name, report, folder and open_predictions(folder, kind=options.kind))
        for (name, report), folder in zip(reports.items(), folders, strict=True)
    ]
    write_score_page(
        options.html,
        methods[0].report,
        name=methods[0].name,
        predictions=methods[0].predictions,
        other=methods[1] if len(methods) == 2 else None,
        truth=options.truth,
        frames=options.frames,
    )


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Files' names without suffix, with as many folders before them as tell them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.with_suffix("").parts[-depth:]) for path in paths]
        if len({*names}) == len(names):
            return names
    return [str(path) for path in paths]


def usual_metric(reports: dict[str, Report]) -> str:
    """J&F where all have it, else the first metric that all have."""
    from vosssl.engine.tables import SideBySide

    columns = SideBySide(reports).columns
    if not columns:
        raise ValueError("the reports share no metric, so there is nothing to compare")
    return "J&F" if "J&F" in columns else columns[0]


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="compare.py", description=(__doc__ or "").split("\n\n")[0])
    found.add_argument(
        "reports",
        nargs="+",
        type=Path,
        metavar="REPORT.json",
        help="the first is what the others are held against",
    )
    found.add_argument("--names", nargs="+", help="one per report; else the files' names")
    found.add_argument("--metric", help="of the differences per sequence; J&F where there is one")
    found.add_argument("--json", type=Path, metavar="OUT", help="write means, differences and intervals")
    found.add_argument("--markdown", type=Path, metavar="OUT", help="write the table as Markdown")
    found.add_argument("--html", type=Path, metavar="OUT", help="write a page of one report or two")
    found.add_argument(
        "--predictions", nargs="+", metavar="DIR", help="for --html: labels, a folder per report"
    )
    found.add_argument("--kind", default="auto", help="of predictions, as for score.py; binary for 0 / 255")
    found.add_argument("--truth", metavar="DIR", help="for --html: the objects' labels")
    found.add_argument("--frames", metavar="DIR", help="for --html: a folder of frame folders")
    found.add_argument("--force", action="store_true", help="compare what is not comparable, with a footnote")
    return found


if __name__ == "__main__":
    sys.exit(main())
