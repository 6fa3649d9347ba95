"""Published numbers: ours are complete, and a wrong row is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from vosssl.engine.protocol import list_protocols
from vosssl.engine.published import COLUMNS, UNITS, load_published

GOOD = "Cutie-base,2024,J&F,88.8,,davis17,davis17-val,masks,DAVIS 2017,Cutie Table 1,P,480p"


def table(folder: Path, *lines: str, header: str = ",".join(COLUMNS)) -> Path:
    (folder / "some.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def test_a_row_is_read_with_types_and_in_units_of_one(tmp_path: Path) -> None:
    fast = "Cutie-base,2024,fps,36.4,,davis17,davis17-val,masks,DAVIS 2017,Cutie Table 1,N,V100"
    spread = '"XMem, again",2022,J,86.2,0.23,davis17,davis17-val,masks,DAVIS 2017,XMem docs,R,'
    first, speed, other = load_published(table(tmp_path, GOOD, fast, spread))
    assert (first.method, first.year, first.metric, first.note) == ("Cutie-base", 2024, "J&F", "480p")
    assert first.value == pytest.approx(0.888)
    assert first.is_verified and first.spread is None
    assert speed.value == 36.4 and not speed.is_verified
    assert other.method == "XMem, again" and other.spread == pytest.approx(0.0023)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD.replace("Cutie Table 1", ""), "some.csv:2 has no source"),
        (GOOD.replace("88.8", ""), "some.csv:2 has no value"),
        (GOOD.replace("88.8", "888"), "value '888', expected a number from 0 to 100"),
        (GOOD.replace("88.8", "about 88"), "value 'about 88'"),
        (GOOD.replace("2024", "24"), "year '24'"),
        (GOOD.replace("J&F", "IoU"), "metric 'IoU'"),
        (GOOD.replace(",P,", ",X,"), "verified 'X'"),
        (GOOD.replace("davis17-val", "davis-17"), "protocol 'davis-17', which is not in eval/protocols"),
        (GOOD.replace("davis17-val", "").replace("480p", ""), "note has to say"),
        (GOOD + ",more", "has 13 cells, expected 12"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_published(table(tmp_path, row))


def test_a_wrong_header_the_same_number_twice_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no CSV"):
        load_published(tmp_path)
    with pytest.raises(ValueError, match=r"repeats .*some\.csv:2"):
        load_published(table(tmp_path, GOOD, GOOD))
    with pytest.raises(ValueError, match="has columns name"):
        load_published(table(tmp_path, GOOD, header="name"))


def test_every_row_of_ours_has_a_source_and_a_protocol_that_exists_or_a_reason() -> None:
    rows = load_published()
    assert len(rows) > 300
    assert all(row.source and row.training_data and row.supervision for row in rows)
    assert all(row.note if not row.protocol else row.protocol in list_protocols() for row in rows)
    assert {row.metric for row in rows} <= set(UNITS)


def test_numbers_that_the_field_quotes_stand_under_their_protocols() -> None:
    rows = {(row.method, row.metric, row.dataset, row.protocol): row for row in load_published()}
    assert rows["STCN s012", "J&F", "davis17", "davis17-val"].value == pytest.approx(0.853)
    assert rows["RCF + CRF", "J", "davis16", "davis16-val"].value == pytest.approx(0.830)
    chunks = rows["VideoSAUR v2", "video/fg_ari", "ytvis2021", "ytvis2021-chunks"]
    whole = rows["VideoSAUR v2", "video/fg_ari", "ytvis2021", "ytvis2021"]
    assert (chunks.value, whole.value) == (pytest.approx(0.397), pytest.approx(0.312))
    assert not rows["DINO ViT-S/16", "J&F", "davis17", "davis17-val"].is_verified
