"""CRC-32C (Castagnoli) of large byte strings with nothing but NumPy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, lowest power in the highest bit, as are all 32-bit words here
_ONE = 0x80000000  # the polynomial 1
_ONES = 0xFFFFFFFF
_MASK_DELTA = 0xA282EAD8
# x^5321 + x^3574 + x^2491 + 1 is a multiple of the polynomial, and so is each of its 2^k-th powers, whose
# exponents are 2^k times as large: 64-bit words can be moved towards the end of the message by XOR alone.
# Found by search; of the few such sums below degree 5600 it has the widest gap between its two top powers.
SPARSE_MULTIPLE = (5321, 3574, 2491)
_STRIDES = (4, 1)  # powers of 2, in words: wide blocks for what is long, narrow ones to get close to its end
_FOLDED = 1 << 13  # 64-bit words that are left to halving; more than 5321, which XOR alone leaves
_SHORT = 256  # bytes below which a loop is faster


def crc32c(payload: bytes | bytearray | memoryview, previous: int = 0) -> int:
    """The CRC-32C of bytes.

    The message is a polynomial over two elements, the CRC its remainder. Blocks from its front are XORed to
    where a sparse multiple of the divisor says, which is exact and runs at the speed of memory; the last
    64 KB are halved again and again by multiplying their first half with a constant power of x (tables).

    Args:
        payload: any bytes.
        previous: the check value of the bytes before them, to go on from there.

    Returns:
        The check value as an unsigned 32-bit integer.

    Source: RFC 3720, appendix B.4 (test vectors); the polynomial is that of Castagnoli et al., 1993.
    """
    if len(payload) < _SHORT:
        return _bytewise(payload, previous)
    count = -(-len(payload) // 8)
    words = np.zeros(max(count, _FOLDED), np.uint64)  # zeros in front do not change a remainder
    octets = words.view(np.uint8)
    octets[-len(payload) :] = np.frombuffer(payload, np.uint8)
    first = len(octets) - len(payload)
    register = (previous ^ _ONES).to_bytes(4, "little")  # ones at the very beginning
    octets[first : first + 4] ^= np.frombuffer(register, np.uint8)
    begin = 0
    for stride in _STRIDES:
        begin = _moved_to_the_end(words, begin, stride)
    words[len(words) - _FOLDED : begin] = 0  # moved, not kept
    tail = words[-_FOLDED:].view(np.uint32)
    while len(tail) > 1:
        half = len(tail) // 2
        tail = _times_power(tail[:half], half) ^ tail[half:]
    return int(_times_power(tail, 1)[0]) ^ _ONES


def masked(crc: int) -> int:
    """A check value as TFRecord files store it: rotated right by 15 bits, plus a constant.

    Source: TensorFlow, "TFRecord and tf.train.Example", section on the file format.
    """
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _ONES


def _moved_to_the_end(words: np.ndarray, begin: int, stride: int) -> int:
    """XORs words into later ones without changing the remainder; returns where the message now begins."""
    top, middle, low = (power * stride for power in SPARSE_MULTIPLE)
    gap = top - middle  # no word of a block of this length lands in the block itself
    while (block := min(gap, len(words) - top - begin)) > 0:
        moved = words[begin : begin + block]
        for shift in (gap, top - low, top):
            target = words[begin + shift : begin + shift + block]
            np.bitwise_xor(target, moved, out=target)
        begin += block
    return begin


def _times_power(words: np.ndarray, count: int) -> np.ndarray:
    """(N,) uint32 words multiplied by x^(32 count), modulo the polynomial."""
    tables = _tables(count)
    octets = words.view(np.uint8).reshape(-1, 4)  # little-endian
    product = tables[0][octets[:, 0]]
    for place in (1, 2, 3):
        product ^= tables[place][octets[:, place]]
    return product


@lru_cache(maxsize=32)
def _tables(count: int) -> np.ndarray:
    """(4, 256) uint32: each byte at each place of a word, times x^(32 count)."""
    power, square, exponent = _ONE, _ONE >> 1, 32 * count  # 1, x
    while exponent:
        if exponent & 1:
            power = _product(power, square)
        square = _product(square, square)
        exponent >>= 1
    tables = np.zeros((4, 256), np.uint32)
    for bit in range(32):
        values = np.arange(256) >> (bit % 8) & 1 == 1
        tables[bit // 8, values] ^= np.uint32(_product(1 << bit, power))
    return tables


def _product(first: int, second: int) -> int:
    """The product of two polynomials, modulo the polynomial."""
    product = 0
    for place in range(32):
        if first & (_ONE >> place):
            product ^= second
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)  # times x
    return product


@lru_cache(maxsize=1)
def _byte_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


def _bytewise(payload: bytes | bytearray | memoryview, previous: int) -> int:
    table, crc = _byte_table(), previous ^ _ONES
    for octet in bytes(payload):
        crc = table[(crc ^ octet) & 255] ^ crc >> 8
    return crc ^ _ONES
