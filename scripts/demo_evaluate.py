"""Scores a folder of label images, of any program, under a protocol that says every choice.

python scripts/demo_evaluate.py PREDICTIONS TRUTH --protocol davis17-val --report report.json

The same from the shell, with more to choose: eval/score.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vosssl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("predictions", type=Path, help="<sequence>/<frame>.png, COCO JSON, NPZ, …")
    parser.add_argument("truth", type=Path, help="the same, or a dataset's root")
    parser.add_argument("--protocol", default="davis17-val", help="a file of eval/protocols, without suffix")
    parser.add_argument("--report", type=Path, help="where the report goes, for eval/compare.py")
    arguments = parser.parse_args()
    report = vosssl.evaluate(arguments.predictions, arguments.truth, arguments.protocol)
    print(report.table())
    for metric in report.metrics:
        low, high = report.interval(metric)  # NaN for a single video
        print(f"{metric} {report.mean(metric):.3f}, 95 % interval over videos {low:.3f} to {high:.3f}")
    print("may be compared with:", report.facts["compare_with"])
    if arguments.report is not None:
        report.to_json(arguments.report)


if __name__ == "__main__":
    main()
