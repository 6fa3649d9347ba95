"""Scores predictions against the truth, exactly: J and F, FG-ARI, mBO, under one or several protocols.

    python eval/score.py PREDICTIONS TRUTH --protocol davis17-val --json report.json
    python eval/score.py PREDICTIONS TRUTH --protocol davis17-val,vos-benchmark --workers 8 --cache CACHE

Exit code 2 and one line when anything is missing or damaged; then nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vosssl.engine.report import Report


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        print(run(options))
    except (ValueError, OSError) as error:
        print(f"score.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> str:
    """Scores and writes what was asked for; returns the tables.

    Raises:
        ValueError: input that cannot be scored.
        OSError: files that are not there or cannot be written.
    """
    names = [name.strip() for name in options.protocol.split(",") if name.strip()]
    check(options, names)
    from vosssl.engine.file_scoring import evaluate  # torch loads only when there is something to do
    from vosssl.engine.tables import interval_text, report_markdown

    reports = evaluate(
        options.predictions,
        options.truth,
        names,
        sequences=options.sequences,
        kind=options.kind,
        workers=options.workers,
        cache=options.cache,
        resize=options.resize,
        ignore_extra_frames=options.ignore_extra_frames,
        progress=not options.quiet,
    )
    if options.html is not None:
        write_pages(options, reports)
    for report in reports:
        for path, write in ((options.json, report.to_json), (options.csv, report.to_csv)):
            if path is not None:
                write(numbered(path, report.protocol, len(reports)))
    if options.markdown is not None:
        from vosssl.data.files import atomic_write

        with atomic_write(options.markdown) as temporary:
            temporary.write_text("\n".join(map(report_markdown, reports)), encoding="utf-8")
    texts = []
    for report in reports:
        intervals = (
            f"{name} {report.mean(name):.4f} {interval_text(report.interval(name))}"
            for name in report.metrics
            if name in ("J&F", "J", "F", "G", "video/fg_ari", "video/mbo")
        )
        lines = [report.table(), f"95 % intervals over sequences: {', '.join(intervals)}"]
        lines += [f"may be compared with: {report.facts['compare_with']}"]
        lines += [f"incomplete: {report.facts['incomplete']}"] if "incomplete" in report.facts else []
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def check(options: argparse.Namespace, protocols: Sequence[str]) -> None:
    """Refuses what is known to be wrong without reading a label: in a blink, as torch is not loaded yet.

    Raises:
        ValueError: no protocol, an unknown one, or no process to work.
        FileNotFoundError: no such predictions, truth or frames.
    """
    from vosssl.engine.protocol import load_protocol

    if not protocols:
        raise ValueError("no protocol was named; see eval/protocols")
    for name in protocols:
        load_protocol(name)
    if options.workers < 1:
        raise ValueError(f"--workers is {options.workers}, expected at least 1")
    for what, path in (
        ("predictions", options.predictions),
        ("true labels", options.truth),
        ("folder of frames", options.frames),
    ):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"no {what} at {path}")


def write_pages(options: argparse.Namespace, reports: Sequence[Report]) -> None:
    """An HTML page per protocol, with pictures of the labels and, where they are known, of the frames."""
    from vosssl.data.predictions import open_predictions
    from vosssl.engine.score_page import write_score_page

    beside = options.truth if (options.truth / "JPEGImages").is_dir() else None
    for report in reports:
        write_score_page(
            numbered(options.html, report.protocol, len(reports)),
            report,
            name=options.predictions.stem,
            predictions=open_predictions(options.predictions, kind=options.kind),
            truth=options.truth,
            frames=options.frames or beside,
        )


def numbered(path: Path, protocol: str, reports: int) -> Path:
    """The file of one of several reports: `report.json` becomes `report.davis17-val.json`."""
    return path if reports == 1 else path.with_name(f"{path.stem}.{protocol}{path.suffix}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="score.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("predictions", type=Path, help="label PNGs per sequence, per-object PNGs, NPZ or JSON")
    made.add_argument("truth", type=Path, help="the same for the truth; a dataset root will do")
    made.add_argument("--protocol", default="davis17-val", help="a name or yaml file, or several with commas")
    made.add_argument("--json", type=Path, help="report with per-frame J and F by object")
    made.add_argument("--csv", type=Path, help="one line per score")
    made.add_argument("--markdown", type=Path, help="tables with intervals")
    made.add_argument("--html", type=Path, help="page with curves, pictures of errors, identities")
    made.add_argument("--frames", type=Path, help="for --html, a folder per sequence; else TRUTH/JPEGImages")
    made.add_argument("--workers", type=int, default=1, help="processes")
    made.add_argument("--cache", type=Path, help="folder that keeps each sequence's scores")
    made.add_argument("--resize", action="store_true", help="stretch predictions of another size")
    made.add_argument(
        "--ignore-extra-frames", action="store_true", help="leave predicted frames without truth out"
    )
    made.add_argument(
        "--kind", default="auto", help="labels, binary, colours, objects, npz, coco, burst; auto"
    )
    made.add_argument("--sequences", nargs="+", help="only these")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    return made


if __name__ == "__main__":
    sys.exit(main())
