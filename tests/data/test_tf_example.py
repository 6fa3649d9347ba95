"""tf.train.Example is read as protobuf defines it; anything else is refused with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.records import block, example, varint
from vosssl.data.tf_example import (
    Span,
    bytes_values,
    decode_varints,
    example_features,
    float_values,
    int64_spans,
    int64_values,
    varint_offsets,
)
from vosssl.data.tfrecord import Payload, Place

FEATURES = {
    "name": [b"video", b"", b"\x00\xff" * 300],
    "ratios": np.array([0.5, -1.25, 3e30], np.float32),
    "counts": np.array([0, 1, 127, 128, 300, 65535, 2**40, 2**63 - 1, -1, -(2**63)], np.int64),
}


def payload_of(content: bytes) -> Payload:
    return Payload(Place(Path("shard-00007"), 5, 1000), len(content), content=content)


@pytest.mark.parametrize("packed", [True, False])
def test_values_come_back_as_written(packed: bool) -> None:
    payload = payload_of(example(FEATURES, packed=packed))
    found = example_features(payload)
    assert list(found) == list(FEATURES)
    assert bytes_values(payload, found["name"]) == FEATURES["name"]
    assert np.array_equal(float_values(payload, found["ratios"]), FEATURES["ratios"])
    assert np.array_equal(int64_values(payload, found["counts"]), FEATURES["counts"])


def test_an_example_written_by_hand_is_read() -> None:
    # Example { features { feature { key: "a" value { int64_list { value: [3, 270] } } } } }
    content = bytes.fromhex("0a 0e 0a 0c 0a 01 61 12 07 1a 05 0a 03 03 8e 02".replace(" ", ""))
    payload = payload_of(content)
    assert int64_values(payload, example_features(payload)["a"]).tolist() == [3, 270]


def test_unknown_fields_are_skipped_and_the_value_may_come_before_its_name() -> None:
    feature = block(3, block(1, b"\x05"))
    entry = block(2, feature) + varint(7 << 3) + varint(9) + block(1, b"late")
    content = block(9, b"unknown") + block(1, block(1, entry)) + varint(3 << 3 | 5) + bytes(4)
    payload = payload_of(content)
    assert int64_values(payload, example_features(payload)["late"]).tolist() == [5]


def test_a_part_of_a_long_list_is_decoded_alone() -> None:
    values = np.random.default_rng(0).integers(0, 65536, 30_000)
    payload = payload_of(example({"flow": values}))
    ((start, stop),) = int64_spans(payload, example_features(payload)["flow"]).tolist()
    offsets = varint_offsets(payload, Span(start, stop), every=5000)
    assert len(offsets) == 7
    assert offsets[-1] == stop
    part = decode_varints(payload, Span(int(offsets[2]), int(offsets[4])))
    assert np.array_equal(part, values[10_000:20_000])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x0a\x7fshort", "does not fit"),
        (b"\xff" * 11, "more than 10 bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x80", "number is cut off"),
        (b"", "holds no features"),
        (block(1, block(1, block(1, b"\xff\xfe") + block(2, block(3, b"")))), "no text"),
    ],
)
def test_other_bytes_are_refused_with_shard_and_record(content: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=rf"record 5 of shard-00007 \(byte 1\d+\).*{what}"):
        example_features(payload_of(content))


def test_every_cut_of_an_example_is_refused_or_read_in_part() -> None:
    content = example(FEATURES)
    for length in range(len(content)):
        with pytest.raises(ValueError, match="record 5"):
            example_features(payload_of(content[:length]))


def test_random_damage_never_ends_in_another_error() -> None:
    generator, content = np.random.default_rng(1), example(FEATURES)
    for _ in range(500):
        changed = bytearray(content)
        changed[int(generator.integers(len(content)))] = int(generator.integers(256))
        payload = payload_of(bytes(changed))
        try:
            for feature in example_features(payload).values():
                {"bytes": bytes_values, "float": float_values, "int64": int64_values}[feature.kind](
                    payload, feature
                )
        except ValueError as error:
            assert "record 5 of shard-00007" in str(error)


def test_a_feature_of_another_kind_and_lists_cut_off_are_refused() -> None:
    payload = payload_of(example(FEATURES))
    found = example_features(payload)
    with pytest.raises(ValueError, match="feature name holds bytes values, expected int64"):
        int64_values(payload, found["name"])
    broken = payload_of(block(1, block(1, block(1, b"a") + block(2, block(3, block(1, b"\x01\x80"))))))
    with pytest.raises(ValueError, match="integers is cut off"):
        int64_values(broken, example_features(broken)["a"])
    floats = payload_of(block(1, block(1, block(1, b"a") + block(2, block(2, block(1, bytes(5)))))))
    with pytest.raises(ValueError, match="whole floats"):
        float_values(floats, example_features(floats)["a"])
