"""TFRecord files are read as they were written; damage is reported with file, record and byte."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.data.records import record, write_records
from vosssl.data.tfrecord import TFRecordFile, index_files, scan_records, shard_files

PAYLOADS = [b"first", b"", bytes(range(256)) * 5, b"last"]


def test_records_are_read_in_any_order(tmp_path: Path) -> None:
    file = TFRecordFile(write_records(tmp_path / "a", PAYLOADS))
    assert [file.read(number) for number in (2, 0, 3, 1)] == [PAYLOADS[k] for k in (2, 0, 3, 1)]
    assert len(file) == 4
    with pytest.raises(IndexError, match="record 4"):
        file.read(4)


def test_the_index_holds_where_payloads_begin(tmp_path: Path) -> None:
    spans = scan_records(write_records(tmp_path / "a", PAYLOADS[:2]))
    assert spans.tolist() == [[12, 5], [12 + 5 + 4 + 12, 0]]


@pytest.mark.parametrize("verify", ["first", "all"])
def test_a_changed_byte_is_reported_with_shard_record_and_byte(tmp_path: Path, verify: str) -> None:
    path = write_records(tmp_path / "movi-00003-of-00010", PAYLOADS)
    content = bytearray(path.read_bytes())
    place = int(scan_records(path)[2, 0])
    content[place + 700] ^= 1
    path.write_bytes(content)
    file = TFRecordFile(path, verify=verify)  # type: ignore[arg-type]
    assert file.read(0) == b"first"
    with pytest.raises(ValueError, match=rf"record 2 of .*movi-00003-of-00010 \(byte {place}\).*check value"):
        file.read(2)
    assert TFRecordFile(path, verify="none").read(2) != PAYLOADS[2]


def test_first_checks_once_and_all_every_time(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a", PAYLOADS)
    once, always = TFRecordFile(path), TFRecordFile(path, verify="all")
    assert once.read(2) == always.read(2) == PAYLOADS[2]
    content = bytearray(path.read_bytes())
    content[int(once.spans[2, 0])] ^= 1
    path.write_bytes(content)
    assert once.read(2) != PAYLOADS[2]
    with pytest.raises(ValueError, match="check value"):
        always.read(2)
    with pytest.raises(ValueError, match="check value"):
        pickle.loads(pickle.dumps(once)).read(2)  # another process checks for itself


@pytest.mark.parametrize("cut", [1, 3, 10, 17])
def test_a_file_that_was_cut_off_names_the_record_that_suffered(tmp_path: Path, cut: int) -> None:
    path = write_records(tmp_path / "a", PAYLOADS)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"record 3 of .*: truncated; download the file again"):
        TFRecordFile(path)


def test_a_damaged_length_and_another_file_are_told_apart(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a", PAYLOADS)
    content = bytearray(path.read_bytes())
    content[21] ^= 4  # the length of the second record
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"record 1 of .*byte 21.*its length 4 does not fit"):
        TFRecordFile(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="no TFRecord file"):
        TFRecordFile(path)
    with pytest.raises(FileNotFoundError, match="no TFRecord file"):
        TFRecordFile(tmp_path / "absent")


def test_a_file_cut_off_after_it_was_indexed_is_named(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a", PAYLOADS)
    for verify in ("none", "all"):
        file = TFRecordFile(path, spans=scan_records(path), verify=verify)  # type: ignore[arg-type]
        whole = path.read_bytes()
        path.write_bytes(whole[:-100])
        with pytest.raises(ValueError, match=r"record 2 of .*the file ends after"):
            file.read(2)
        path.write_bytes(whole)


def test_threads_share_a_file(tmp_path: Path) -> None:
    payloads = [bytes([number]) * 5000 for number in range(20)]
    file = TFRecordFile(write_records(tmp_path / "a", payloads), verify="all")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(file.read, list(range(20)) * 3)) == payloads * 3


def test_missing_shards_are_named(tmp_path: Path) -> None:
    for number in (0, 2):
        write_records(tmp_path / f"x-train.tfrecord-{number:05d}-of-00004", PAYLOADS[:1])
    write_records(tmp_path / "x-train.tfrecord-00000-of-00004.part", PAYLOADS[:1])  # a download under way
    with pytest.raises(FileNotFoundError, match=r"2 of 4 shards .*such as x-train\.tfrecord-00001-of-00004"):
        shard_files(tmp_path, "x-train.tfrecord")
    found = shard_files(tmp_path, "x-train.tfrecord", allow_missing=True)
    assert [path.name[17:22] for path in found] == ["00000", "00002"]
    with pytest.raises(FileNotFoundError, match="no shards y"):
        shard_files(tmp_path, "y")
    write_records(tmp_path / "x-train.tfrecord-00000-of-00009", PAYLOADS[:1])
    with pytest.raises(ValueError, match="two releases"):
        shard_files(tmp_path, "x-train.tfrecord", allow_missing=True)


def test_an_index_file_saves_the_scan_and_follows_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_records(tmp_path / f"a-{n}", PAYLOADS[: n + 1]) for n in range(3)]
    cache = tmp_path / "cache" / "index.npz"
    first = index_files(paths, cache=cache)
    scanned: list[Path] = []
    monkeypatch.setattr(
        "vosssl.data.tfrecord.scan_records", lambda path: (scanned.append(path), scan_records(path))[1]
    )
    again = index_files(paths, cache=cache)
    assert not scanned
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    write_records(paths[1], PAYLOADS)
    os.utime(paths[1], ns=(1, 1))
    assert len(index_files(paths, cache=cache)[1]) == 4
    assert scanned == [paths[1]]
    cache.write_bytes(b"damaged")
    assert [len(spans) for spans in index_files(paths, cache=cache)] == [1, 4, 3]


def test_a_record_is_framed_as_tensorflow_does() -> None:
    # the record of b"abc", computed by hand from the definition of the check value
    assert record(b"abc")[:8] == b"\x03" + bytes(7)
    assert len(record(b"abc")) == 8 + 4 + 3 + 4
