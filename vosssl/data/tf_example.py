"""The features of a serialised tf.train.Example, found without protobuf and decoded only where asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from vosssl.data.tfrecord import Payload

Kind = Literal["bytes", "float", "int64"]

_KINDS: dict[int, Kind] = {1: "bytes", 2: "float", 3: "int64"}  # fields of the message Feature
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types
_LONGEST = 10  # bytes of a varint
_WINDOW = 256  # bytes read at once while headers are followed
_BLOCK = 4096  # bytes whose values are counted together


class Span(NamedTuple):
    """Some bytes of a payload: start..stop."""

    start: int
    stop: int


class Feature(NamedTuple):
    """One feature of an example.

    Attributes:
        name: its key, such as `metadata/video_name`.
        kind: type of its values.
        span: the bytes of its list message.
    """

    name: str
    kind: Kind
    span: Span


class _Field(NamedTuple):
    """One field of a message: its number, wire type and the bytes of its value."""

    number: int
    wire: int
    span: Span


class _Wire:
    """Follows the fields of messages in a payload, reading little more than their headers."""

    def __init__(self, payload: Payload) -> None:
        self.payload = payload
        self._start = 0
        self._bytes: memoryview = memoryview(b"")

    def octet(self, place: int) -> int:
        inside = place - self._start
        if not 0 <= inside < len(self._bytes):
            if place >= self.payload.length:
                raise self.error("a field is cut off", place)
            self._start, inside = place, 0
            self._bytes = self.payload.read(place, min(place + _WINDOW, self.payload.length))
        return self._bytes[inside]

    def varint(self, place: int, stop: int) -> tuple[int, int]:
        """A number and where the next thing begins."""
        value = 0
        for index in range(_LONGEST):
            if place + index >= stop:
                raise self.error("a number is cut off", place)
            octet = self.octet(place + index)
            value |= (octet & 127) << 7 * index
            if octet < 128:
                return value, place + index + 1
        raise self.error("a number has more than 10 bytes", place)

    def fields(self, span: Span) -> Iterator[_Field]:
        """The fields of the message in these bytes."""
        place = span.start
        while place < span.stop:
            begin = place
            tag, place = self.varint(place, span.stop)
            number, wire = tag >> 3, tag & 7
            if wire == _LENGTH:
                length, place = self.varint(place, span.stop)
            elif wire == _VARINT:
                length = self.varint(place, span.stop)[1] - place
            elif wire in (_FIXED32, _FIXED64):
                length = 4 if wire == _FIXED32 else 8
            else:
                raise self.error(f"wire type {wire} is not one of tf.train.Example", begin)
            if number == 0 or place + length > span.stop:
                raise self.error(
                    f"field {number} of {length} bytes does not fit the {span.stop - place} bytes left", begin
                )
            yield _Field(number, wire, Span(place, place + length))
            place += length

    def error(self, what: str, place: int) -> ValueError:
        return self.payload.place.error(f"is no tf.train.Example: {what}", at=place)


def example_features(payload: Payload) -> dict[str, Feature]:
    """The features of an example by name; their values are not read.

    Args:
        payload: a serialised tf.train.Example.

    Returns:
        Features by name; of two with one name the later counts, and empty ones are left out.

    Raises:
        ValueError: the payload is something else or damaged; says in which file, record and byte.

    Source: TensorFlow, core/example/{example,feature}.proto; Protocol Buffers, "Encoding".
    """
    wire = _Wire(payload)
    found: dict[str, Feature] = {}
    for features in wire.fields(Span(0, payload.length)):
        if features.number != 1 or features.wire != _LENGTH:
            continue
        for entry in wire.fields(features.span):
            if entry.number == 1 and entry.wire == _LENGTH:
                feature = _entry(wire, entry.span)
                if feature is not None:
                    found[feature.name] = feature
    if not found:
        raise wire.error("it holds no features", 0)
    return found


def _entry(wire: _Wire, span: Span) -> Feature | None:
    """A key and the list that belongs to it."""
    name, chosen = "", None
    for part in wire.fields(span):
        if part.wire != _LENGTH:
            continue
        if part.number == 1:
            try:
                name = str(wire.payload.read(*part.span), "utf-8")
            except UnicodeDecodeError as error:
                raise wire.error("the name of a feature is no text", part.span.start) from error
        elif part.number == 2:
            for values in wire.fields(part.span):
                if values.number in _KINDS and values.wire == _LENGTH:
                    chosen = (_KINDS[values.number], values.span)
    return None if chosen is None else Feature(name, *chosen)


def bytes_spans(payload: Payload, feature: Feature) -> np.ndarray:
    """Where the values of a list of byte strings are.

    Returns:
        (N, 2) int64, start and stop of each in the payload.

    Raises:
        ValueError: a feature of another kind, or damaged.
    """
    wire = _checked(payload, feature, "bytes")
    spans = [field.span for field in wire.fields(feature.span) if field.number == 1 and field.wire == _LENGTH]
    return np.array(spans, np.int64).reshape(-1, 2)


def bytes_values(payload: Payload, feature: Feature) -> list[bytes]:
    """All values of a list of byte strings; see `bytes_spans`."""
    return [bytes(payload.read(start, stop)) for start, stop in bytes_spans(payload, feature).tolist()]


def float_values(payload: Payload, feature: Feature) -> np.ndarray:
    """(N,) float32 values of a list of floats, packed or not.

    Raises:
        ValueError: a feature of another kind, or damaged.
    """
    wire = _checked(payload, feature, "float")
    parts = [np.zeros(0, np.float32)]
    for field in wire.fields(feature.span):
        if field.number == 1 and field.wire in (_LENGTH, _FIXED32):
            if (field.span.stop - field.span.start) % 4:
                raise wire.error(f"{feature.name} does not hold whole floats", field.span.start)
            parts.append(np.frombuffer(payload.read(*field.span), "<f4"))
    return np.concatenate(parts).astype(np.float32, copy=False)


def int64_values(payload: Payload, feature: Feature) -> np.ndarray:
    """(N,) int64 values of a list of integers, packed or not.

    Raises:
        ValueError: a feature of another kind, or damaged.
    """
    parts = [np.zeros(0, np.int64)]
    for start, stop in int64_spans(payload, feature).tolist():
        parts.append(decode_varints(payload, Span(start, stop)))
    return np.concatenate(parts)


def int64_spans(payload: Payload, feature: Feature) -> np.ndarray:
    """(N, 2) int64, start and stop of each run of packed integers; TensorFlow writes one run."""
    wire = _checked(payload, feature, "int64")
    spans = [
        field.span
        for field in wire.fields(feature.span)
        if field.number == 1 and field.wire in (_LENGTH, _VARINT)
    ]
    return np.array(spans, np.int64).reshape(-1, 2)


def decode_varints(payload: Payload, span: Span) -> np.ndarray:
    """(N,) int64, the packed integers in some bytes of a payload; all of them are decoded at once.

    Raises:
        ValueError: the last one is cut off, or one has more than 10 bytes.
    """
    octets = np.frombuffer(payload.read(*span), np.uint8)
    ends = np.flatnonzero(octets < 128)
    if len(octets) == 0:
        return np.zeros(0, np.int64)
    if len(ends) == 0 or ends[-1] != len(octets) - 1:
        raise _Wire(payload).error("a list of integers is cut off", span.stop)
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    longest = int((ends - starts).max()) + 1
    if longest > _LONGEST:
        raise _Wire(payload).error("a number has more than 10 bytes", span.start)
    values = (octets[starts] & 127).astype(np.int64)
    for index in range(1, longest):
        places = starts + index
        bits = octets[np.minimum(places, ends)].astype(np.int64) & 127
        values |= np.where(places <= ends, bits << np.int64(7 * index), 0)
    return values


def varint_offsets(payload: Payload, span: Span, *, every: int) -> np.ndarray:
    """Where each `every`-th of the packed integers begins, so that a part can be decoded alone.

    Args:
        payload: the record.
        span: bytes of a run of packed integers.
        every: N, such as the values of one frame.

    Returns:
        (M + 1,) int64 bytes of the payload: value k N begins at the k-th; the last is where value M N would
        begin, M being the number of whole groups.
    """
    ends = np.frombuffer(payload.read(*span), np.uint8) < 128  # where a number ends
    blocks = -(-len(ends) // _BLOCK)
    padded = np.zeros(blocks * _BLOCK, bool)
    padded[: len(ends)] = ends
    grid = padded.reshape(blocks, _BLOCK)
    before = np.concatenate([[0], np.cumsum(np.count_nonzero(grid, axis=1))])  # numbers before each block
    offsets = [0]
    for last in range(every, int(before[-1]) + 1, every):
        block = int(np.searchsorted(before, last)) - 1
        offsets.append(block * _BLOCK + int(np.flatnonzero(grid[block])[last - before[block] - 1]) + 1)
    return np.array(offsets, np.int64) + span.start


def _checked(payload: Payload, feature: Feature, kind: Kind) -> _Wire:
    if feature.kind != kind:
        raise payload.place.error(
            f"feature {feature.name} holds {feature.kind} values, expected {kind}", at=feature.span.start
        )
    return _Wire(payload)
