"""TensorFlow's TensorProto: numbers and strings, without TensorFlow.

Source: tensorflow/core/framework/tensor.proto and types.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analyzer.ingest import wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from analyzer.model import FloatArray

FLOAT, DOUBLE, STRING, BFLOAT16, HALF = 1, 2, 7, 14, 19
CONTENT, FLOAT_VAL, STRING_VAL, HALF_VAL = 4, 5, 8, 13
MOST = 1 << 22  # elements a tensor may be padded to

# DataType -> element type, number of the typed field
NUMERIC = {
    FLOAT: ("<f4", FLOAT_VAL),
    DOUBLE: ("<f8", 6),
    3: ("<i4", 7),
    4: ("<u1", 7),
    5: ("<i2", 7),
    6: ("<i1", 7),
    9: ("<i8", 10),
    10: ("?", 11),
    11: ("<i1", 7),
    12: ("<u1", 7),
    13: ("<i4", 7),
    BFLOAT16: ("<u2", HALF_VAL),
    15: ("<i2", 7),
    16: ("<u2", 7),
    17: ("<u2", 7),
    HALF: ("<f2", HALF_VAL),
    22: ("<u4", 16),
    23: ("<u8", 17),
}


class Tensor(NamedTuple):
    """The parts of a tensor, not decoded; ``elements`` is the product of ``shape``."""

    dtype: int
    shape: tuple[int, ...]
    elements: int
    parts: tuple[wire.Field, ...]


def parse(data: memoryview, body: wire.Field) -> Tensor:
    dtype = 0
    shape: tuple[int, ...] = ()
    parts = []
    for field in wire.fields(data, body.start, body.end):
        if (field.number, field.wire) == (1, wire.VARINT):
            dtype = field.value
        elif (field.number, field.wire) == (2, wire.LENGTH):
            shape = (*shape, *_dimensions(data, field))
        else:
            parts.append(field)
    count = 1
    for size in shape:
        count *= size
    return Tensor(dtype, shape, count, tuple(parts))


def _dimensions(data: memoryview, body: wire.Field) -> tuple[int, ...]:
    sizes = []
    for dimension in wire.fields(data, body.start, body.end):
        if (dimension.number, dimension.wire) != (2, wire.LENGTH):
            continue
        size = 0
        for field in wire.fields(data, dimension.start, dimension.end):
            if (field.number, field.wire) == (1, wire.VARINT):
                size = wire.signed(field.value)
        if size < 0:
            raise wire.WireError("a tensor's size is not known")
        sizes.append(size)
    return tuple(sizes)


def numbers(data: memoryview, tensor: Tensor) -> FloatArray:
    """All elements as float64 [count]; WireError if the parts do not make up the shape.

    As in TensorFlow, a typed field may stop early: its last element then stands for the rest, and
    no element at all for zeros.
    """
    dtype, number = NUMERIC[tensor.dtype]
    values = _content(data, tensor, dtype)
    if values is None:
        values = _typed(data, tensor, dtype, number)
        if len(values) < tensor.elements <= MOST:
            values = np.pad(values, (0, tensor.elements - len(values)), "edge" if len(values) else "constant")
    if len(values) != tensor.elements:
        raise wire.WireError("a tensor's shape and its elements disagree")
    if tensor.dtype == BFLOAT16:
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float64)


def _content(data: memoryview, tensor: Tensor, dtype: str) -> NDArray[np.generic] | None:
    parts = [f for f in tensor.parts if (f.number, f.wire) == (CONTENT, wire.LENGTH) and f.end > f.start]
    return wire.packed(data, parts[-1], dtype) if parts else None


def _typed(data: memoryview, tensor: Tensor, dtype: str, number: int) -> NDArray[np.generic]:
    out: list[NDArray[np.generic]] = [np.zeros(0, dtype)]
    fixed = {FLOAT: wire.FIXED32, DOUBLE: wire.FIXED64}.get(tensor.dtype)
    for field in tensor.parts:
        if field.number != number:
            continue
        if fixed is not None and field.wire in (fixed, wire.LENGTH):
            out.append(wire.packed(data, field, dtype))
        elif fixed is None and field.wire in (wire.VARINT, wire.LENGTH):
            out.append(_from_varints(wire.packed_varints(data, field), dtype))
    return np.concatenate(out)


def _from_varints(values: list[int], dtype: str) -> NDArray[np.generic]:
    """Numbers sent as varints, cut to the width of ``dtype``; a half is sent as its bits."""
    if dtype == "?":
        return np.array([value != 0 for value in values], np.bool_)
    size = np.dtype(dtype).itemsize
    bits = [value & ((1 << (8 * size)) - 1) for value in values]
    return np.array(bits, f"<u{size}").view(dtype)


def strings(data: memoryview, tensor: Tensor) -> list[str]:
    return [wire.text(data, f) for f in tensor.parts if (f.number, f.wire) == (STRING_VAL, wire.LENGTH)]
