"""ONNX models: initializers and constants, by a small reader of protocol buffers' wire format.

Integers that a DequantizeLinear node makes reals of are measured as these reals.
Numbers of fields and types after ``onnx.proto``. Tensors with ``external_data`` lie in files beside
the model: only files within its folder are opened.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.entries import Entry, Found
from analyzer.checkpoints.regions import (
    DTYPES,
    ArrayBlocks,
    Blocks,
    GridScaledBlocks,
    Region,
    StoredBlocks,
    cell_size,
    element_count,
    row_major,
    widen,
)
from analyzer.checkpoints.state import assemble
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem

NAME = "onnx"
SUMMARY = (
    "ONNX models (.onnx), also with external data: initializers and constants, dequantised as the graph does"
)
ORDER = 32
MAX_TENSORS = 200_000
MAX_DECODED = 1 << 24  # bytes of varints that are decoded in memory
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PRODUCER, _GRAPH = 2, 7  # of a model
_NODE, _INITIALIZER = 1, 5  # of a graph
_INPUT, _OUTPUT, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5  # of a node
_ATTRIBUTE_NAME, _INTEGER, _TENSOR = 1, 3, 5  # of an attribute
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 24: "float8_e8m0fnu",
}  # fmt: skip

Data = mmap.mmap


class _Broken(Exception):
    def __init__(self, message: str, at: int, kind: str = "damaged"):
        super().__init__(message)
        self.at = at
        self.kind = kind


def claims(path: Path, head: bytes) -> bool:
    """By suffix: a message has no magic number, but begins with the tag of one of its first fields."""
    return path.suffix.lower() == ".onnx" and head[:1] in (b"\x08", b"\x12", b"\x1a", b"\x3a")


def open(path: Path) -> Checkpoint:
    """Index of the model's tensors; none is read. Raises IngestError."""
    return assemble(find(path), NAME)


def find(path: Path) -> Found:
    found = Found(str(path))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _read_model(data, found)
        except _Broken as broken:
            message = f"{broken} at byte {broken.at}; the {len(found.entries)} tensors before it were read"
            found.problems.insert(0, Problem(str(path), broken.kind, message, broken.at))
    if not found.entries:
        problem = (
            found.problems[0] if found.problems else Problem("", "unsupported", "a graph without weights")
        )
        raise IngestError(str(path), problem.message, problem.kind, problem.offset)
    return found


def _fields(data: Data, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type and extent of each field of a message; of a varint its value and no extent."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield number, wire, value, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at, end)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _Broken(f"unknown wire type {wire}", at)
        yield number, wire, at, min(at + length, end)
        if at + length > end:
            cut = end == len(data)
            what = "the file was cut off" if cut else "a field reaches out of its message"
            raise _Broken(what, end, "truncated" if cut else "damaged")
        at += length


def _varint(data: Data, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _Broken("a number is cut off", at, "truncated" if end == len(data) else "damaged")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise _Broken("a number of more than ten bytes", at)


def _text(data: Data, start: int, end: int) -> str:
    return data[start : min(end, start + 1_000)].decode("utf-8", "replace")


def _read_model(data: Data, found: Found) -> None:
    dequantised: list[_Dequantise] = []
    for number, wire, start, end in _fields(data, 0, len(data)):
        if wire != _BYTES:
            continue
        if number == _PRODUCER:
            found.metadata["producer"] = _text(data, start, min(end, start + 100))
        elif number == _GRAPH:
            for part, kind, first, last in _fields(data, start, end):
                if kind == _BYTES and part == _INITIALIZER:
                    _add(data, found, first, last, "")
                elif kind == _BYTES and part == _NODE:
                    _add_constants(data, found, first, last)
                    if (node := _dequantising(data, first, last)) is not None:
                        dequantised.append(node)
    _dequantise(found, dequantised)


def _add_constants(data: Data, found: Found, start: int, end: int) -> None:
    """The tensors among a node's attributes, under the name of its output."""
    name, tensors = "", []
    for number, wire, first, last in _fields(data, start, end):
        if wire == _BYTES and number == _OUTPUT:
            name = name or _text(data, first, last)
        elif wire == _BYTES and number == _ATTRIBUTE:
            inner = _fields(data, first, last)
            tensors += [(a, b) for part, kind, a, b in inner if kind == _BYTES and part == _TENSOR]
    for first, last in tensors:
        _add(data, found, first, last, name)


# --- quantised tensors -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Dequantise:
    """A DequantizeLinear node: names of integers, scales and perhaps zero points, and the scales' axis."""

    inputs: tuple[str, ...]
    axis: int


def _dequantising(data: Data, start: int, end: int) -> _Dequantise | None:
    """The node, where it is of that kind; an axis of -1 is the last one."""
    inputs: list[str] = []
    operator, axis = "", 1
    for number, wire, first, last in _fields(data, start, end):
        if wire == _BYTES and number == _INPUT and len(inputs) < 4:
            inputs.append(_text(data, first, last))
        elif wire == _BYTES and number == _OPERATOR:
            operator = _text(data, first, last)
        elif wire == _BYTES and number == _ATTRIBUTE:
            facts = {part: (a, b) for part, _, a, b in _fields(data, first, last)}
            if _text(data, *facts.get(_ATTRIBUTE_NAME, (0, 0))) == "axis":
                axis = facts.get(_INTEGER, (0, 0))[0]
    if operator != "DequantizeLinear" or len(inputs) < 2:
        return None
    return _Dequantise(tuple(inputs[:3]), axis - (1 << 64) if axis >= 1 << 63 else axis)


def _dequantise(found: Found, nodes: list[_Dequantise]) -> None:
    """Puts reals in the place of integers that nodes make reals of; where scales do not fit, integers stay."""
    place = {entry.name: k for k, entry in enumerate(found.entries)}
    for node in nodes:
        known = [found.entries[place[name]] if name in place else None for name in node.inputs]
        if None not in known and (real := _reals(*(entry for entry in known if entry), axis=node.axis)):
            found.entries[place[node.inputs[0]]] = real


def _reals(whole: Entry, scales: Entry, zeros: Entry | None = None, *, axis: int) -> Entry | None:
    """One scale, one for each index of the axis, or one for each block along it; None for what does not fit."""
    if not isinstance(whole.blocks, StoredBlocks) or (zeros and zeros.shape != scales.shape):
        return None
    grid = scales.shape
    if element_count(grid) == 1:
        grid = (1,) * len(whole.shape)
    elif len(grid) == 1 and -len(whole.shape) <= axis < len(whole.shape):
        grid = tuple(grid[0] if k == axis % len(whole.shape) else 1 for k in range(len(whole.shape)))
    if len(grid) != len(whole.shape) or not all(map(cell_size, whole.shape, grid)):
        return None
    blocks = GridScaledBlocks(whole.blocks, scales.blocks, grid, zeros.blocks if zeros else None)
    nbytes = element_count(whole.shape) * DTYPES[whole.dtype].size
    return replace(whole, blocks=blocks, dtype=f"q{whole.dtype}", nbytes=nbytes)


# --- tensors ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tensor:
    """A TensorProto, its data as extents in the file."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    raw: tuple[int, int] | None = None
    typed: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    location: int = 0


def _tensor(data: Data, start: int, end: int) -> _Tensor:
    tensor = _Tensor()
    for number, wire, first, last in _fields(data, start, end):
        if number == 1:
            tensor.dims += [first] if wire == _VARINT else _varints(data, first, last, 64)
        elif number == 2 and wire == _VARINT:
            tensor.data_type = first
        elif number == 8 and wire == _BYTES:
            tensor.name = _text(data, first, last)
        elif number == 9 and wire == _BYTES:
            tensor.raw = first, last
        elif number == 13 and wire == _BYTES:
            pair = {
                part: _text(data, a, b) for part, kind, a, b in _fields(data, first, last) if kind == _BYTES
            }
            tensor.external[pair.get(1, "")] = pair.get(2, "")
        elif number == 14 and wire == _VARINT:
            tensor.location = first
        elif number in (4, 5, 7, 10, 11) and wire == _BYTES:
            tensor.typed.setdefault(number, []).append((first, last))
    return tensor


def _varints(data: Data, start: int, end: int, most: int) -> list[int]:
    values: list[int] = []
    while start < end:
        value, start = _varint(data, start, end)
        values.append(value)
        if len(values) > most:
            raise _Broken(f"more than {most} numbers", start)
    return values


def _add(data: Data, found: Found, start: int, end: int, name: str) -> None:
    """One tensor, or the reason why it is not read. What is too short of its own is no end of the model."""
    if len(found.entries) >= MAX_TENSORS:
        raise _Broken(f"more than {MAX_TENSORS} tensors", start, "too-large")
    try:
        tensor = _tensor(data, start, end)
        name = (tensor.name or name or f"constant{len(found.entries)}")[:1_000]
        dtype = _DTYPES.get(tensor.data_type)
        if tensor.data_type == 8:
            return  # text
        shape = tuple(tensor.dims)
        if dtype is None or len(shape) > 64 or not all(n < 1 << 48 for n in shape):
            what = (
                "its shape is impossible"
                if dtype
                else f"elements of type {tensor.data_type} are not measured"
            )
            raise IngestError("", what, "damaged" if dtype else "unsupported")
        blocks = _blocks(data, Path(found.path), tensor, dtype, shape)
    except (IngestError, _Broken) as error:
        at = error.at if isinstance(error, _Broken) else start
        reason = error.message if isinstance(error, IngestError) else str(error)
        found.fault(error.kind, f"tensor {name[:80]!r} not read: {reason}", at)
        return
    found.entries.append(Entry(name, dtype, shape, blocks, "model", path=name))


def _blocks(data: Data, path: Path, tensor: _Tensor, dtype: str, shape: tuple[int, ...]) -> Blocks:
    """Raises IngestError where the data is not what type and shape ask for."""
    wanted = element_count(shape) * DTYPES[dtype].size
    if tensor.location == 1 or tensor.external:
        return _external(path, tensor.external, dtype, shape, wanted)
    extent = tensor.raw
    if extent is None and dtype in ("float32", "float64", "complex64", "complex128"):
        parts = tensor.typed.get(4 if dtype in ("float32", "complex64") else 10, [])
        extent = parts[0] if len(parts) == 1 else None
    if extent is not None:
        if extent[1] - extent[0] != wanted:
            message = f"shape {list(shape)[:8]} needs {wanted} bytes where {extent[1] - extent[0]} are"
            raise IngestError("", message, "truncated" if extent[1] == len(data) else "damaged")
        region = Region(str(path), extent[0], wanted, len(data))
        return StoredBlocks(region, dtype, shape, row_major(shape))
    return ArrayBlocks(_decoded(data, tensor, dtype, shape))


def _decoded(data: Data, tensor: _Tensor, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Elements written one by one: small types as varints, 16 bits and less as their raw bits."""
    size = sum(last - first for parts in tensor.typed.values() for first, last in parts)
    if size > MAX_DECODED:
        raise IngestError("", f"{size} bytes of numbers written one by one", "too-large")
    values: list[int] = []
    for number in (5, 7, 11):
        for first, last in tensor.typed.get(number, ()):
            values += _varints(data, first, last, MAX_DECODED)
    if len(values) != element_count(shape):
        raise IngestError("", f"shape {list(shape)[:8]} with {len(values)} elements", "damaged")
    raw = np.dtype(DTYPES[dtype].raw)
    bits = np.array(values, dtype=np.uint64)
    plain = bits.astype(f"u{raw.itemsize}") if raw.kind != "b" else bits.astype(bool)
    return widen(plain.view(raw), DTYPES[dtype]).reshape(shape)


def _external(path: Path, facts: dict[str, str], dtype: str, shape: tuple[int, ...], wanted: int) -> Blocks:
    name, folder = facts.get("location", ""), path.parent.resolve()
    target = (folder / name).resolve() if "\0" not in name else folder
    if not name or Path(name).is_absolute() or "\\" in name or folder not in target.parents:
        message = f"its data is said to be in {name[:80]!r}, outside the model's folder: not opened"
        raise IngestError("", message, "unsafe")
    if not target.is_file():
        raise IngestError("", f"its data is in {name[:80]!r}, which is missing", "missing")
    offset, length = _number(facts.get("offset", "0")), _number(facts.get("length", str(wanted)))
    size = target.stat().st_size
    if length != wanted:
        raise IngestError(
            "", f"shape {list(shape)[:8]} needs {wanted} bytes, its data has {length}", "damaged"
        )
    if offset + length > size:
        message = f"{name[:80]!r} ends {offset + length - size} bytes before its data does"
        raise IngestError("", message, "truncated")
    return StoredBlocks(Region(str(target), offset, length, size), dtype, shape, row_major(shape))


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise IngestError("", "the place of its data is no number", "damaged")
    return int(text)
