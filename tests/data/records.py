"""TFRecords and examples written byte by byte, the way TensorFlow does, for the tests that read them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Values = Sequence[bytes] | np.ndarray  # byte strings, floats or integers


def reference_crc(payload: bytes) -> int:
    """The masked CRC-32C by its definition, a byte at a time."""
    register = 0xFFFFFFFF
    for octet in payload:
        register = _TABLE[(register ^ octet) & 255] ^ register >> 8
    crc = register ^ 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = [_entry(value) for value in range(256)]


def varint(value: int) -> bytes:
    """An integer as protobuf writes it; negative ones as their two's complement of 64 bits."""
    value &= (1 << 64) - 1
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def block(number: int, content: bytes) -> bytes:
    """A field of wire type 2."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Values, *, packed: bool = True) -> bytes:
    """The message Feature."""
    if not isinstance(values, np.ndarray):
        return block(1, b"".join(block(1, value) for value in values))
    if values.dtype.kind == "f":
        flat = values.astype("<f4").ravel()
        content = block(1, flat.tobytes()) if packed else b"".join(b"\x0d" + v.tobytes() for v in flat)
        return block(2, content)
    numbers = [varint(int(value)) for value in values.ravel()]
    content = block(1, b"".join(numbers)) if packed else b"".join(b"\x08" + number for number in numbers)
    return block(3, content)


def example(features: Mapping[str, Values], *, packed: bool = True) -> bytes:
    """A serialised tf.train.Example."""
    entries = [
        block(1, block(1, name.encode()) + block(2, feature(values, packed=packed)))
        for name, values in features.items()
    ]
    return block(1, b"".join(entries))


def record(payload: bytes) -> bytes:
    """A record: length, its check value, payload, its check value."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        [
            length,
            struct.pack("<I", reference_crc(length)),
            payload,
            struct.pack("<I", reference_crc(payload)),
        ]
    )


def write_records(path: Path, payloads: Sequence[bytes]) -> Path:
    """A TFRecord file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(record, payloads)))
    return path
