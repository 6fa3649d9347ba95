"""Packs predictions into the zip that a public server takes, or checks a zip or folder before it is uploaded.

    python scripts/pack_predictions.py PREDICTIONS --server mose-val --data MOSE/valid --out mose.zip
    python scripts/pack_predictions.py mose.zip --server mose-val --data MOSE/valid --check

PREDICTIONS is anything that can be scored: folders of label PNGs, an image per object, run lengths, NPZ.
The frames asked for are those of DATA/JPEGImages: for YouTube-VOS pass `valid`, not `valid_all_frames`.
Servers: youtube-vos-2018, youtube-vos-2019, mose-val, lvos-v1-test, davis17-test-dev,
davis17-unsupervised-test-dev. A packed zip is checked as well. Exit code 2: something is wrong, and what is
printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout, installed or not

from vosssl.data.packing import SERVERS, expected_sequences, pack, read_split  # noqa: E402
from vosssl.data.predictions import Kind, open_predictions  # noqa: E402
from vosssl.data.submission_check import check_submission  # noqa: E402

SHOWN = 40  # problems printed


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", type=Path, help="predictions; with --check a zip or the folder of one")
    parser.add_argument("--server", choices=sorted(SERVERS), required=True)
    parser.add_argument(
        "--data", type=Path, required=True, help="holds JPEGImages and Annotations of the split"
    )
    parser.add_argument("--split", type=Path, help="text file of its sequences; default: all in the data")
    parser.add_argument("--out", type=Path, help="the zip to write")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--kind", choices=get_args(Kind), default="auto", help="what the predictions are")
    parser.add_argument("--palette", type=Path, help="palette PNG, or folder of them, of RGB predictions")
    parser.add_argument("--videos", type=Path, help="annotation file that names the videos of JSON results")
    parser.add_argument("--resize", action="store_true", help="stretch predictions of another size")
    parser.add_argument("--progress", action="store_true", help="show a bar")
    options = parser.parse_args(given)
    if not options.check and options.out is None:
        parser.error("pass --out FILE.zip, or --check")
    return options


def main(given: list[str] | None = None) -> int:
    """Packs and checks; 0 when the zip can be uploaded, 2 otherwise."""
    options = arguments(given)
    server = SERVERS[options.server]
    try:
        split = None if options.split is None else read_split(options.split)
        expected = expected_sequences(options.data, sequences=split)
        target = options.predictions
        if not options.check:
            predictions = open_predictions(
                target, kind=options.kind, palette=options.palette, videos=options.videos
            )
            target = options.out
            pack(
                predictions,
                expected,
                target,
                server=server,
                resize=options.resize,
                progress=options.progress,
            )
        problems = check_submission(target, expected, server=server, progress=options.progress)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for problem in problems[:SHOWN]:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems in {target}: do not upload it", file=sys.stderr)
        return 2
    frames = sum(len(sequence.frames) for sequence in expected.values())
    size = f", {target.stat().st_size / 1e6:.1f} MB" if target.is_file() else ""
    print(f"{target} fits {server.name}: {len(expected)} sequences, {frames} frames{size}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
