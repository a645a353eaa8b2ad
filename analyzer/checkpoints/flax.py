"""Flax's serialised states (.msgpack): nested maps of arrays, read in place.

MessagePack after its specification; arrays are its extension type 1, a packed (shape, element type,
bytes), and large ones are cut into chunks, as ``flax.serialization`` writes them.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from analyzer.checkpoints.entries import Entry, Found
from analyzer.checkpoints.regions import (
    DTYPES,
    Blocks,
    JoinedBlocks,
    Region,
    StoredBlocks,
    element_count,
    row_major,
)
from analyzer.checkpoints.state import assemble
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem, Scalar

NAME = "flax"
SUMMARY = "Flax and JAX states serialised with MessagePack (.msgpack)"
ORDER = 34
MAX_VALUES = 1_000_000
MAX_DEPTH = 64
_ARRAY, _SCALAR = 1, 3  # extension types of flax.serialization
_OPTIMIZER = ("opt_state", "optimizer")
_CHUNKED = "__msgpack_chunked_array__"


def claims(path: Path, head: bytes) -> bool:
    return (
        path.suffix.lower() == ".msgpack"
        and head[:1] != b""
        and (0x80 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF))
    )


def open(path: Path) -> Checkpoint:
    """Index of the arrays; none is read. Raises IngestError."""
    return assemble(find(path), NAME)


def find(path: Path) -> Found:
    found = Found(str(path), ordered=False)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data, str(path))
        try:
            _gather(reader.value(0), "", found)
        except _Stop as stop:
            _gather(reader.root, "", found)
            message = f"{stop} at byte {reader.at}; the {len(found.entries)} arrays before it were read"
            found.problems.insert(0, Problem(str(path), stop.kind, message, reader.at))
    _note_optimizer(found)
    if not found.entries:
        problem = found.problems[0] if found.problems else Problem("", "unsupported", "holds no arrays")
        raise IngestError(str(path), problem.message, problem.kind, problem.offset)
    return found


class _Stop(Exception):
    def __init__(self, message: str, kind: str = "damaged"):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Bytes in the file."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class _Array:
    shape: tuple[int, ...]
    dtype: str
    stretch: _Stretch


class _Reader:
    """A MessagePack document, its long byte strings left where they are."""

    def __init__(self, data: mmap.mmap, path: str):
        self.data = data
        self.path = path
        self.at = 0
        self.values = 0
        self.root: object = None  # kept as it grows: what was read before a cut counts
        self.waiting: tuple[dict[str, object], str] | None = None  # where the next value goes

    def value(self, depth: int) -> object:
        self.values += 1
        if self.values > MAX_VALUES or depth > MAX_DEPTH:
            raise _Stop(f"more than {MAX_VALUES} values or {MAX_DEPTH} levels", "too-large")
        code = self._number(1)
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 256
        if code < 0x90:
            return self._map(code & 15, depth)
        if code < 0xA0:
            return self._list(code & 15, depth)
        if code < 0xC0:
            return self._text(code & 31)
        kind = _CODES.get(code)
        if kind is None:
            raise _Stop(f"unknown code 0x{code:02x}")
        return kind(self, depth)

    def _number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "big")

    def _take(self, size: int) -> bytes:
        stretch = self._skip(size)
        return self.data[stretch.start : stretch.start + size]

    def _skip(self, size: int) -> _Stretch:
        if self.at + size > len(self.data):
            raise _Stop(f"needs {size} bytes where {len(self.data) - self.at} are left", "truncated")
        self.at += size
        return _Stretch(self.at - size, size)

    def _text(self, size: int) -> str:
        stretch = self._skip(size)
        return self.data[stretch.start : stretch.start + min(size, 10_000)].decode("utf-8", "replace")

    def _map(self, count: int, depth: int) -> dict[str, object]:
        made: dict[str, object] = {}
        if self.root is None:
            self.root = made
        elif self.waiting is not None:
            self.waiting[0][self.waiting[1]] = made  # in its place before it is filled
        for _ in range(count):
            key = self.value(depth + 1)
            name = key[:200] if isinstance(key, str) else str(key)[:40]
            self.waiting = made, name
            made[name] = self.value(depth + 1)
        return made

    def _list(self, count: int, depth: int) -> list[object]:
        self.waiting = None
        return [self.value(depth + 1) for _ in range(count)]

    def _extension(self, size: int, depth: int) -> object:
        kind, end = self._number(1), self.at + size
        if kind not in (_ARRAY, _SCALAR):
            self._skip(size)
            return None
        parts = self.value(depth + 1)
        if self.at != end or not isinstance(parts, list) or len(parts) != 3:
            raise _Stop("an array that is no (shape, type, bytes)")
        shape, dtype, content = parts
        whole = isinstance(shape, list) and all(isinstance(n, int) and 0 <= n < 1 << 48 for n in shape)
        if not whole or not isinstance(dtype, str) or not isinstance(content, _Stretch):
            raise _Stop("an array that is no (shape, type, bytes)")
        return _Array(tuple(shape), dtype[:40], content)


Parse = Callable[[_Reader, int], object]


def _unpacked(code: str) -> Parse:
    return lambda reader, depth: struct.unpack(f">{code}", reader._take(struct.calcsize(code)))[0]


def _sized(read: Callable[[_Reader, int, int], object], width: int) -> Parse:
    return lambda reader, depth: read(reader, reader._number(width), depth)


def _fixed(size: int) -> Parse:
    return lambda reader, depth: reader._extension(size, depth)


_CODES: dict[int, Parse] = {
    0xC0: lambda reader, depth: None,
    0xC2: lambda reader, depth: False,
    0xC3: lambda reader, depth: True,
    **{0xC4 + i: _sized(lambda reader, size, depth: reader._skip(size), 1 << i) for i in range(3)},
    **{
        0xC7 + i: _sized(lambda reader, size, depth: reader._extension(size, depth), 1 << i) for i in range(3)
    },
    **{0xCA + i: _unpacked(code) for i, code in enumerate("fdBHIQbhiq")},
    **{0xD4 + i: _fixed(1 << i) for i in range(5)},
    **{0xD9 + i: _sized(lambda reader, size, depth: reader._text(size), 1 << i) for i in range(3)},
    **{0xDC + i: _sized(lambda reader, size, depth: reader._list(size, depth), 2 << i) for i in range(2)},
    **{0xDE + i: _sized(lambda reader, size, depth: reader._map(size, depth), 2 << i) for i in range(2)},
}


# --- what the arrays are -----------------------------------------------------------------------------

_SLOTS = {"mu": "exp_avg", "nu": "exp_avg_sq", "trace": "momentum_buffer", "count": "step"}  # optax's names
_MODEL = ("params", "model", "target")


def _gather(value: object, name: str, found: Found) -> None:
    if isinstance(value, dict) and _CHUNKED in value:
        value = _joined(value)
    if isinstance(value, dict):
        for key, item in value.items():
            _gather(item, f"{name}.{key}" if name else key, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _gather(item, f"{name}.{index}" if name else str(index), found)
    elif isinstance(value, (_Array, _Chunks)):
        _add(value, name, found)
    elif isinstance(value, (int, float, str)) and "." not in name:
        scalar: Scalar = value[:500] if isinstance(value, str) else value
        found.metadata[name] = scalar


@dataclass(frozen=True, slots=True)
class _Chunks:
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[_Array, ...]


def _joined(value: dict[str, object]) -> object:
    """An array that was cut into flat chunks, or what stands in its place."""
    shape, chunks = value.get("shape"), value.get("chunks")
    if not isinstance(shape, dict) or not isinstance(chunks, dict):
        return None
    sizes = tuple(n for n in shape.values() if isinstance(n, int))
    parts = tuple(part for part in chunks.values() if isinstance(part, _Array))
    return _Chunks(sizes, parts[0].dtype, parts) if parts else None


def _add(array: _Array | _Chunks, name: str, found: Found) -> None:
    parts = array.parts if isinstance(array, _Chunks) else (array,)
    size = DTYPES[array.dtype].size if array.dtype in DTYPES else 0
    wanted, there = element_count(array.shape) * size, sum(part.stretch.size for part in parts)
    if not size or wanted != there or any(part.stretch.size % size for part in parts):
        reason = f"shape {list(array.shape)[:8]} of {array.dtype} in {there} bytes"
        found.fault("damaged" if size else "unsupported", f"array {name[:80]!r} not read: {reason}")
        return
    pieces = tuple(_stored(part, size, found.path) for part in parts)
    whole = StoredBlocks(pieces[0].region, array.dtype, array.shape, row_major(array.shape), pieces[0].offset)
    blocks: Blocks = whole if len(pieces) == 1 else JoinedBlocks(pieces)
    group, shown, slot = _place(name)
    if slot == "step" and not shown:
        return  # the schedule's and the optimizer's counter
    found.entries.append(Entry(shown, array.dtype, array.shape, blocks, group, slot, name))


def _note_optimizer(found: Found) -> None:
    slots = {entry.slot for entry in found.entries if entry.group == "optimizer"}
    if slots:
        known = {entry.name for entry in found.entries if entry.group == "model"}
        stepped = {entry.name for entry in found.entries if entry.slot and entry.slot != "step"}
        found.metadata["optimizer_names_known"] = bool(stepped) and stepped <= known
        if "exp_avg_sq" in slots:
            found.settings["kind"] = "adam"


def _stored(part: _Array, size: int, path: str) -> StoredBlocks:
    region = Region(path, part.stretch.start, part.stretch.size, part.stretch.start + part.stretch.size)
    count = part.stretch.size // size
    return StoredBlocks(region, part.dtype, (count,), (1,))


def _place(name: str) -> tuple[str, str, str]:
    """Group, name and slot: optax keeps a tree like the parameters' for each of its slots."""
    parts = name.split(".")
    if parts[0] in _OPTIMIZER:
        at = next((i for i, part in enumerate(parts) if part in _SLOTS), None)
        if at is None:
            return "optimizer", ".".join(parts[1:]), ""
        below = parts[at + 1 :]
        return "optimizer", ".".join(below[1:] if below[:1] == ["params"] else below), _SLOTS[parts[at]]
    while len(parts) > 1 and parts[0] in _MODEL:
        parts = parts[1:]
    return "model", ".".join(parts), ""
