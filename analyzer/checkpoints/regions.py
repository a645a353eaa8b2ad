"""Where a tensor's bytes lie, and reading them in blocks with bounded memory."""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import IngestError

Blocks = Callable[[int], Iterator[NDArray[np.generic]]]  # a limit in bytes -> flat arrays, in order

WHOLE_SPAN = 1 << 26  # a non-contiguous tensor's span up to this many bytes is read at once
_INFLATE_STEP = 1 << 16


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes of a file: ``size`` from ``start``, or what a zip member holds.

    With ``header`` true, ``start`` is that of a zip member's local header, which is skipped when
    reading; ``end`` is where the next thing in the file begins. ``packed`` is the compressed size
    of a deflated member, -1 for bytes stored as they are.
    """

    path: str
    start: int
    size: int
    end: int
    header: bool = False
    packed: int = -1


class Reader:
    """An open region: ``read(offset, size)``. Deflated regions are cheap only when read forwards."""

    def __init__(self, region: Region):
        self.region = region
        self._file = Path(region.path).open("rb", buffering=0)  # noqa: SIM115 closed by __exit__
        try:
            self.start = region.start + (self._local_header() if region.header else 0)
        except BaseException:
            self._file.close()
            raise
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._consumed = self._produced = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, offset: int, size: int) -> bytearray:
        """Exactly ``size`` bytes. Raises IngestError of kind truncated or damaged."""
        self.place(offset, size)
        return self._direct(offset, size) if self.region.packed < 0 else self._inflated(offset, size)

    def _local_header(self) -> int:
        header = os.pread(self._file.fileno(), 30, self.region.start)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise self._damaged("zip member without its local header")
        name, extra = struct.unpack("<HH", header[26:30])
        length = 30 + int(name) + int(extra)
        stored = self.region.size if self.region.packed < 0 else self.region.packed
        if self.region.start + length + stored > self.region.end:
            raise self._damaged("zip member reaches into the next one")
        return length

    def _damaged(self, message: str) -> IngestError:
        return IngestError(self.region.path, message, "damaged", self.region.start)

    @property
    def fileno(self) -> int:
        return self._file.fileno()

    def place(self, offset: int, size: int) -> int:
        """Where in the file ``size`` bytes at ``offset`` lie. Raises IngestError outside the region."""
        if offset < 0 or offset + size > self.region.size:
            raise IngestError(self.region.path, f"bytes {offset}+{size} lie outside their storage", "damaged")
        return self.start + offset

    def ends(self, at: int, missing: int) -> IngestError:
        message = f"file ends {missing} bytes before a tensor does"
        return IngestError(self.region.path, message, "truncated", at)

    def fill(self, offset: int, target: memoryview) -> None:
        """Bytes of a region that is not compressed, into memory of the caller's."""
        start, done = self.place(offset, len(target)), 0
        self._file.seek(start)
        while done < len(target):
            count = self._file.readinto(target[done:])
            if not count:
                raise self.ends(start + done, len(target) - done)
            done += count

    def _direct(self, offset: int, size: int) -> bytearray:
        target = bytearray(size)
        self.fill(offset, memoryview(target))
        return target

    def _inflated(self, offset: int, size: int) -> bytearray:
        if offset < self._produced:
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            self._consumed = self._produced = 0
        while self._produced < offset:
            self._inflate(min(offset - self._produced, _INFLATE_STEP * 16))
        target = bytearray()
        while len(target) < size:
            target += self._inflate(size - len(target))
        return target

    def _inflate(self, most: int) -> bytes:
        """Between 1 and ``most`` further bytes."""
        pending = self._inflater.unconsumed_tail
        if not pending:
            take = min(_INFLATE_STEP, self.region.packed - self._consumed)
            self._file.seek(self.start + self._consumed)
            pending = self._file.read(take) or b""
            self._consumed += len(pending)
        try:
            output = self._inflater.decompress(pending, most)
        except zlib.error as error:
            raise self._damaged(f"compressed data cannot be inflated ({error})") from None
        if not output and (self._inflater.eof or not pending):
            raise self._damaged("compressed data is shorter than the zip directory says")
        self._produced += len(output)
        return output


# --- element types -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dtype:
    """An element type: numpy's code of its raw bits, and the bytes of a widened element."""

    name: str
    raw: str
    widened: int

    @property
    def size(self) -> int:
        return np.dtype(self.raw).itemsize


DTYPES: dict[str, Dtype] = {
    dtype.name: dtype
    for dtype in (
        *(Dtype(name, code, np.dtype(code).itemsize) for name, code in (
            ("float64", "f8"), ("float32", "f4"), ("float16", "f2"),
            ("int64", "i8"), ("int32", "i4"), ("int16", "i2"), ("int8", "i1"),
            ("uint64", "u8"), ("uint32", "u4"), ("uint16", "u2"), ("uint8", "u1"),
            ("bool", "?"), ("complex64", "c8"), ("complex128", "c16"),
        )),
        Dtype("bfloat16", "u2", 4),
        Dtype("complex32", "u4", 8),
        *(Dtype(f"float8_{kind}", "u1", 4) for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu")),
    )
}  # fmt: skip


QUANTISED = {"qint8": "int8", "quint8": "uint8", "qint32": "int32"}  # torch's types, and what is stored


def _float8_table(exponent_bits: int, mantissa_bits: int, bias: int, kind: str) -> NDArray[np.float32]:
    """The 256 values of an 8-bit float (Micikevicius et al. 2022; the fnuz kinds have one NaN, no -0)."""
    codes = np.arange(256)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    magnitude = np.where(
        exponent > 0, (1 + mantissa) * 2.0 ** (exponent - bias), mantissa * 2.0 ** (1 - bias)
    )
    values = np.where(codes & 0x80, -magnitude, magnitude)
    if kind == "ieee":
        top = exponent == (1 << exponent_bits) - 1
        values[top] = np.where(mantissa[top] == 0, np.copysign(np.inf, values[top]), np.nan)
    elif kind == "fn":
        values[[0x7F, 0xFF]] = np.nan
    else:
        values[0x80] = np.nan
    return values.astype(np.float32)


def _float8(name: str) -> NDArray[np.float32]:
    if name == "float8_e8m0fnu":
        table = 2.0 ** (np.arange(256) - 127.0)
        table[255] = np.nan
        return table.astype(np.float32)
    exponent, mantissa, bias, kind = {
        "float8_e4m3fn": (4, 3, 7, "fn"),
        "float8_e5m2": (5, 2, 15, "ieee"),
        "float8_e4m3fnuz": (4, 3, 8, "fnuz"),
        "float8_e5m2fnuz": (5, 2, 16, "fnuz"),
    }[name]
    return _float8_table(exponent, mantissa, bias, kind)


_FLOAT8 = {name: _float8(name) for name in DTYPES if name.startswith("float8")}


def widen(raw: NDArray[np.generic], dtype: Dtype) -> NDArray[np.generic]:
    """Native byte order; bfloat16 and float8 as float32, complex32 as complex64."""
    native = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if dtype.name == "bfloat16":
        return (native.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype.name == "complex32":
        return native.view(np.float16).astype(np.float32).view(np.complex64)
    table = _FLOAT8.get(dtype.name)
    return native if table is None else table[native]


# --- blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredBlocks:
    """The elements of a tensor in a file: call it with a limit in bytes.

    Blocks come in row-major order of the tensor, whatever its strides. ``offset`` is in bytes
    from the region's start, ``strides`` in elements. Two tensors that share storage have equal
    StoredBlocks: that is how an alias is known.
    """

    region: Region
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    big_endian: bool = False

    def __call__(self, limit: int) -> Iterator[NDArray[np.generic]]:
        dtype = DTYPES[self.dtype]
        elements = max(1, limit // max(dtype.size, dtype.widened))
        raw = np.dtype(dtype.raw).newbyteorder(">" if self.big_endian else "<")
        if 0 in self.shape:
            return
        blocks = _contiguous if is_contiguous(self.shape, self.strides) else _strided
        for block in blocks(self, raw, elements):
            yield widen(block, dtype)


@dataclass(frozen=True, slots=True, eq=False)
class ArrayBlocks:
    """The elements of an array that is in memory already."""

    array: NDArray[np.generic]

    def __call__(self, limit: int) -> Iterator[NDArray[np.generic]]:
        yield from _pieces(self.array, max(1, limit // self.array.dtype.itemsize))


@dataclass(frozen=True, slots=True)
class JoinedBlocks:
    """The elements of several stretches one after another: a tensor kept in pieces along its first axis."""

    parts: tuple[StoredBlocks, ...]

    def __call__(self, limit: int) -> Iterator[NDArray[np.generic]]:
        for part in self.parts:
            yield from part(limit)


@dataclass(frozen=True, slots=True)
class ScaledBlocks:
    """Integers of a quantised tensor as the reals they stand for: (q - zero) * scale, as float32."""

    whole: StoredBlocks
    scale: float
    zero: int

    def __call__(self, limit: int) -> Iterator[NDArray[np.generic]]:
        for block in self.whole(max(1, limit // 4) * DTYPES[self.whole.dtype].size):
            yield (block.astype(np.int64) - self.zero).astype(np.float32) * np.float32(self.scale)


@dataclass(frozen=True, slots=True)
class GridScaledBlocks:
    """The same with a scale for each cell of a grid: ``grid`` is how many cells there are along each axis.

    One cell along an axis is all of it, as many as the axis is long are one for each index, and a
    number between is blocks: of 128 where these come out, else of equal size. Without ``zeros``
    the zero points are zero. ``factor`` multiplies every scale.
    """

    whole: StoredBlocks
    scales: Blocks
    grid: tuple[int, ...]
    zeros: Blocks | None = None
    factor: float = 1.0

    def __call__(self, limit: int) -> Iterator[NDArray[np.generic]]:
        if 0 in self.whole.shape:
            return
        columns, cells, stored = self.whole.shape[-1], self.grid[-1], DTYPES[self.whole.dtype]
        scales = self._values(self.scales)
        zeros = None if self.zeros is None else self._values(self.zeros)
        row, step = self._grid_rows(), cell_size(columns, cells)
        position, rows = 0, max(1, limit // 8 // columns)
        for block in self.whole(rows * columns * max(stored.size, stored.widened)):
            values = block.astype(np.float64).reshape(-1, columns)
            place = row[position : position + len(values)]
            if zeros is not None:
                values -= _along(zeros[place], step, columns)
            values *= _along(scales[place], step, columns)
            if self.factor != 1.0:
                values *= self.factor
            yield from _pieces(values.astype(np.float32).reshape(-1), max(1, limit // 4))
            position += len(place)

    def _values(self, part: Blocks) -> NDArray[Any]:
        """A row for each cell of all axes but the last, as exactly as they are kept."""
        return np.concatenate(list(part(1 << 20))).reshape(-1, self.grid[-1])

    def _grid_rows(self) -> NDArray[np.int64]:
        """For each row of the last axis that of the grid."""
        place = np.zeros(1, np.int64)
        for size, cells in zip(self.whole.shape[:-1], self.grid[:-1], strict=True):
            index = np.arange(size) // cell_size(size, cells)
            place = (place[:, None] * cells + index).reshape(-1)
        return place


def cell_size(size: int, cells: int) -> int:
    """Elements of an axis that share a scale; 0 where the axis does not fall into so many blocks."""
    if cells > 1 and -(-size // 128) == cells:
        return 128
    return size // cells if cells and size % cells == 0 else 0


def _along(cells: NDArray[Any], step: int, columns: int) -> NDArray[Any]:
    """Each cell for the columns that it stands for; one for all columns as it is."""
    return cells if cells.shape[1] == 1 else np.repeat(cells, step, axis=1)[:, :columns]


@dataclass(frozen=True, slots=True)
class TiledBlocks:
    """A tensor of ``shape`` kept as boxes: each tile lies at its offsets, and they cover it once.

    A band of rows is put together at a time, in as much memory as one row takes at least.
    """

    shape: tuple[int, ...]
    tiles: tuple[tuple[tuple[int, ...], StoredBlocks], ...]

    def __call__(self, limit: int) -> Iterator[NDArray[np.generic]]:
        width = max(DTYPES[self.tiles[0][1].dtype].widened, 1)
        row = element_count(self.shape[1:])
        rows = max(1, limit // max(1, row * width))
        for first in range(0, self.shape[0], rows):
            band = self._band(first, min(first + rows, self.shape[0]))
            yield from _pieces(band, max(1, limit // band.dtype.itemsize))

    def _band(self, first: int, last: int) -> NDArray[np.generic]:
        band: NDArray[np.generic] | None = None
        for offsets, tile in self.tiles:
            begin, end = max(first, offsets[0]), min(last, offsets[0] + tile.shape[0])
            if begin >= end:
                continue
            part = np.concatenate(list(rows_of(tile, begin - offsets[0], end - offsets[0])(1 << 30)))
            if band is None:
                band = np.zeros((last - first, *self.shape[1:]), part.dtype)
            place = tuple(slice(o, o + n) for o, n in zip(offsets[1:], tile.shape[1:], strict=True))
            band[(slice(begin - first, end - first), *place)] = part.reshape(end - begin, *tile.shape[1:])
        return np.zeros(0) if band is None else band


def rows_of(blocks: StoredBlocks, first: int, last: int) -> StoredBlocks:
    """The part of a tensor between two indices of its first axis."""
    offset = blocks.offset + first * blocks.strides[0] * DTYPES[blocks.dtype].size
    return replace(blocks, shape=(last - first, *blocks.shape[1:]), offset=offset)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous tensor."""
    strides = [1]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    return all(n == 1 or s == e for n, s, e in zip(shape, strides, row_major(shape), strict=True))


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the tensor's first to just behind its last in storage; 0 when it is empty."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def real(block: NDArray[np.generic]) -> NDArray[np.float64]:
    """Elements as float64; of complex ones the magnitude."""
    return np.abs(block) if block.dtype.kind == "c" else block.astype(np.float64)


def element_count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _contiguous(
    blocks: StoredBlocks, raw: np.dtype[np.generic], elements: int
) -> Iterator[NDArray[np.generic]]:
    count, width = element_count(blocks.shape), raw.itemsize
    with Reader(blocks.region) as reader:
        for first in range(0, count, elements):
            size = min(elements, count - first) * width
            yield np.frombuffer(reader.read(blocks.offset + first * width, size), dtype=raw)


def _strided(blocks: StoredBlocks, raw: np.dtype[np.generic], elements: int) -> Iterator[NDArray[np.generic]]:
    """Transposed, sliced or expanded: the whole span when small, a mapping of the file otherwise."""
    span = extent(blocks.shape, blocks.strides) * raw.itemsize
    with Reader(blocks.region) as reader:
        if span <= WHOLE_SPAN:
            yield from _pieces(_view(reader.read(blocks.offset, span), raw, blocks), elements)
        elif blocks.region.packed >= 0:
            raise IngestError(blocks.region.path, f"compressed view of {span} bytes", "too-large")
        else:
            yield from _mapped(reader.start + blocks.offset, span, raw, blocks, elements)


def _mapped(
    start: int, span: int, raw: np.dtype[np.generic], blocks: StoredBlocks, elements: int
) -> Iterator[NDArray[np.generic]]:
    before = start % mmap.ALLOCATIONGRANULARITY
    with Path(blocks.region.path).open("rb") as file:
        if file.seek(0, os.SEEK_END) < start + span:
            raise IngestError(blocks.region.path, "file ends before a tensor does", "truncated", start)
        mapping = mmap.mmap(file.fileno(), before + span, access=mmap.ACCESS_READ, offset=start - before)
    yield from _pieces(_view(memoryview(mapping)[before:], raw, blocks), elements)


def _view(
    data: bytearray | memoryview, raw: np.dtype[np.generic], blocks: StoredBlocks
) -> NDArray[np.generic]:
    strides = tuple(s * raw.itemsize for s in blocks.strides)
    return np.ndarray(blocks.shape, dtype=raw, buffer=data, strides=strides)


def _pieces(view: NDArray[np.generic], elements: int) -> Iterator[NDArray[np.generic]]:
    """Flat copies of at most ``elements`` elements, in row-major order."""
    if view.size <= elements:
        if view.size:
            yield np.ascontiguousarray(view).reshape(-1)
        return
    row = view.size // len(view)
    if row > elements:
        for part in view:
            yield from _pieces(part, elements)
        return
    rows = elements // row
    for first in range(0, len(view), rows):
        yield np.ascontiguousarray(view[first : first + rows]).reshape(-1)
