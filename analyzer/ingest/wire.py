"""Protocol buffers' wire format, without their library.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Bytes that are not a protocol buffer message."""


class Field(NamedTuple):
    """One field of a message: ``value`` of a varint; ``start:end`` of the bytes of any other."""

    number: int
    wire: int
    value: int
    start: int
    end: int


def varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """The unsigned 64-bit number at ``at``, and the offset behind it."""
    value = 0
    for k in range(10):
        if at + k >= end:
            raise WireError("a number is cut off")
        byte = data[at + k]
        value |= (byte & 0x7F) << (7 * k)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + k + 1
    raise WireError("a number is longer than 10 bytes")


def fields(data: memoryview, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[at:end]``, in the order they were written."""
    while at < end:
        key, at = varint(data, at, end)
        number, wire = key >> 3, key & 7
        value, start = 0, at
        if wire == VARINT:
            value, at = varint(data, at, end)
        elif wire == LENGTH:
            size, start = varint(data, at, end)
            at = start + size
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise WireError(f"wire type {wire} is not in use")
        if at > end or not number:
            raise WireError("a field ends beyond its message")
        yield Field(number, wire, value, start, at)


def signed(value: int, bits: int = 64) -> int:
    """Two's complement of the low ``bits`` of an unsigned number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def double(data: memoryview, field: Field) -> float:
    return float(struct.unpack_from("<d", data, field.start)[0])


def text(data: memoryview, field: Field) -> str:
    return text_of(bytes(data[field.start : field.end]))


def text_of(data: bytes) -> str:
    """A string; bytes that are not UTF-8 are kept as escapes, so that distinct names stay distinct."""
    return data.decode("utf-8", "backslashreplace")


def packed(data: memoryview, field: Field, dtype: str) -> NDArray[np.generic]:
    """A repeated fixed-width field: one element, or all of them packed."""
    size = np.dtype(dtype).itemsize
    if (field.end - field.start) % size:
        raise WireError("a packed field ends inside an element")
    return np.frombuffer(data[field.start : field.end], dtype)


def packed_varints(data: memoryview, field: Field) -> list[int]:
    """A repeated varint field: one element, or all of them packed."""
    if field.wire == VARINT:
        return [field.value]
    at, out = field.start, []
    while at < field.end:
        value, at = varint(data, at, field.end)
        out.append(value)
    return out
