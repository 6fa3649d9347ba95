"""The benchmark's table: what stands beside what, and what is only a footnote."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from vosssl.engine.benchmark_table import Block, Row, published_rows, with_published
from vosssl.engine.protocol import DISCOVERY, load_protocol
from vosssl.engine.published import Published


def number(
    method: str, metric: str, value: float, protocol: str = "davis17-val", **more: object
) -> Published:
    values = {
        "year": 2024,
        "spread": None,
        "dataset": "davis17",
        "supervision": "masks",
        "training_data": "DAVIS 2017",
        "source": "a paper",
        "verified": "R",
    } | more
    return Published(method=method, metric=metric, value=value, protocol=protocol, **values)  # type: ignore[arg-type]


FLOOR = Row("copy-first-mask", "floor", {"J&F": 0.5, "J": 0.4, "F": 0.6}, supervision="none")
OURS = Row(
    "ours | mine",
    "measured",
    {"J&F": 0.7, "J": 0.7, "F": 0.7, "video/mbo": math.nan},
    frames_per_second=12.34,
    peak_memory_bytes=1_500_000_000,
    parameters=840_000,
    source="last.ckpt",
    notes=("untrained",),
    sequences={"dog": {"J": 0.7, "video/mbo": None}},
)


def block(**more: object) -> Block:
    values = {"videos": 30, "rows": (FLOOR, OURS)} | more
    return Block("davis17", "lock_on", load_protocol("davis17-val"), **values)  # type: ignore[arg-type]


def test_published_numbers_stand_below_only_under_the_same_data_and_protocol() -> None:
    published = [
        number("Cutie", "J&F", 0.888),
        number("Cutie", "fps", 36.4, note="V100"),
        number("SRL", "J", 0.482, protocol="davis17-unsupervised"),
        number("Elsewhere", "J&F", 0.9, dataset="mose"),
        number("Odd", "J", 0.3, protocol="", note="another protocol than ours"),
    ]
    table = with_published([block()], published)
    names = [row.name for row in table.blocks[0].rows]
    assert names == ["copy-first-mask", "ours | mine", "Cutie (2024)"]
    text = table.text()
    assert "under davis17-unsupervised, so not beside these: SRL J 0.482" in text
    assert "under no protocol of ours: another protocol than ours, so not beside these: Odd J 0.300" in text
    assert "Elsewhere" not in text
    assert "speed: V100" in text and "36.4" in text


def test_a_number_that_stands_in_another_block_is_not_repeated_in_a_footnote() -> None:
    other = Block("davis17", "discovery", load_protocol("davis17-unsupervised"), videos=30, rows=(OURS,))
    table = with_published(
        [block(), other], [number("A", "J", 0.1), number("B", "J", 0.2, protocol="davis17-unsupervised")]
    )
    assert [row.name for row in table.blocks[1].rows][-1] == "B (2024)"
    assert "not beside these" not in table.text()


def test_a_part_of_a_dataset_is_not_compared_with_numbers_of_the_whole() -> None:
    whole = with_published([block()], [number("Cutie", "J&F", 0.888)])
    assert "not to be compared" not in whole.text()
    for part in (block(videos=8), block(frames=10)):
        table = with_published([part], [number("Cutie", "J&F", 0.888)])
        assert f"{part.extent}: not to be compared with published rows" in table.text()
    assert block(videos=8, frames=10).extent == "8 of 30 videos, first 10 frames of each"
    assert "not to be compared" not in with_published([block(videos=8)], []).text()


def test_numbers_that_were_not_read_at_their_source_are_marked() -> None:
    table = with_published(
        [block()],
        [
            number("Read", "J&F", 0.888),
            number("Summary", "J&F", 0.7, verified="N"),
            number("Memory", "J&F", 0.6, verified="M"),
        ],
    )
    text = table.text()
    assert "0.888 " in text and "0.700†" in text and "0.600‡" in text
    assert "† read in somebody else's summary" in text and "‡ recalled" in text
    assert "†" not in with_published([block()], [number("Read", "J&F", 0.888)]).text()


def test_one_row_a_method_and_source_the_best_first() -> None:
    rows = published_rows(
        [
            number("B", "J&F", 0.5),
            number("A", "J", 0.6),
            number("A", "J&F", 0.7),
            number("A", "J&F", 0.8, source="another paper", verified="M"),
        ]
    )
    assert [(row.name, dict(row.means), row.verified) for row in rows] == [
        ("A (2024)", {"J&F": 0.8}, "M"),
        ("A (2024)", {"J": 0.6, "J&F": 0.7}, "R"),
        ("B (2024)", {"J&F": 0.5}, "R"),
    ]


def test_markdown_is_one_table_whose_lines_have_equally_many_cells() -> None:
    other = Block("clips", "discovery", DISCOVERY, videos=2, rows=(OURS,), notes=("a note",))
    text = with_published([block(), other], [number("Cutie", "J&F", 0.888)]).markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "| ours / mine [1] | 0.700 | 0.700 | 0.700 | 12.3 | 1.50 | 0.84 M |" in text
    assert "- [2] a note" in text
    assert "mBO" not in text, "a column that nobody has"


def test_csv_and_json_hold_everything_with_full_precision(tmp_path: Path) -> None:
    table = with_published([block()], [number("Cutie", "J&F", 0.888123456789)], machine="on a laptop")
    assert table.text().endswith("on a laptop") and table.markdown().endswith("- on a laptop\n")
    table.to_csv(tmp_path / "table.csv")
    table.to_json(tmp_path / "report.json")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["kind"] for row in rows] == ["floor", "measured", "published"]
    assert rows[2]["J&F"] == "0.888123456789" and rows[1]["frames_per_second"] == "12.34"
    (content,) = json.loads((tmp_path / "report.json").read_text())["blocks"]
    assert content["protocol"] == "davis17-val"
    assert content["rows"][1]["sequences"] == {"dog": {"J": 0.7, "video/mbo": None}}
    assert content["rows"][1]["means"]["video/mbo"] is None
