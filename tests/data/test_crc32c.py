"""CRC-32C agrees with the published vectors and with the bitwise definition."""

from __future__ import annotations

import numpy as np
import pytest

from vosssl.data.crc32c import SPARSE_MULTIPLE, crc32c, masked


def bitwise(payload: bytes) -> int:
    """The definition: shift each bit through the register."""
    register = 0xFFFFFFFF
    for octet in payload:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_vectors_of_rfc_3720_hold(payload: bytes, expected: int) -> None:
    assert crc32c(payload) == expected


@pytest.mark.parametrize("length", [255, 256, 257, 1000, 65535, 65536, 65541, 200_003, 400_001])
def test_long_messages_agree_with_the_bitwise_definition(length: int) -> None:
    payload = np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes()
    assert crc32c(payload) == bitwise(payload)


def test_every_flipped_bit_is_seen() -> None:
    payload = bytearray(np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes())
    right = crc32c(payload)
    for place in (0, 7, 1234, 150_000, 299_999):
        payload[place] ^= 16
        assert crc32c(payload) != right
        payload[place] ^= 16
    assert crc32c(memoryview(payload)) == right


def test_the_sparse_sum_of_powers_is_a_multiple_of_the_polynomial() -> None:
    remainder, powers = 0x80000000, {}
    for exponent in range(max(SPARSE_MULTIPLE) + 1):
        powers[exponent] = remainder
        remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    top, middle, low = SPARSE_MULTIPLE
    assert powers[top] ^ powers[middle] ^ powers[low] ^ powers[0] == 0


def test_the_mask_is_that_of_tfrecord_files() -> None:
    # the header of a record of 24 bytes, computed by hand from crc32c of its eight length bytes
    crc = bitwise((24).to_bytes(8, "little"))
    expected = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32
    assert masked(crc32c((24).to_bytes(8, "little"))) == expected


@pytest.mark.parametrize("cut", [0, 1, 100, 70_000, 99_999])
def test_a_message_in_parts_has_the_value_of_the_whole(cut: int) -> None:
    payload = np.random.default_rng(1).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
    assert crc32c(payload[cut:], crc32c(payload[:cut])) == crc32c(payload)
