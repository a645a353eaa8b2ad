"""GGUF files of llama.cpp: a header of settings and tensors, then the tensors' bytes.

Plain types are read as they are. Of the quantised ones, those of blocks of 32 with one or two
scales, of blocks of 256 with small scales within (K), and those whose numbers stand for the sixteen
values of a table are turned back to float32 block by block; the others are listed as not measured.
Layouts after ggml's documentation of the file and of its block types.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.entries import Entry, Found
from analyzer.checkpoints.regions import (
    DTYPES,
    Blocks,
    Reader,
    Region,
    StoredBlocks,
    element_count,
    row_major,
)
from analyzer.checkpoints.state import assemble
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, Problem, Scalar

NAME = "gguf"
SUMMARY = (
    "GGUF files of llama.cpp (.gguf): float types, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4, MXFP4; others are listed"
)
ORDER = 33
MAX_TENSORS = 100_000
MAX_SETTINGS = 100_000
MAX_TEXT = 1 << 26
_KEPT = 500  # characters of a setting
_PLAIN = {
    0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16",
}  # fmt: skip
_NAMES = {
    2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1", 10: "q2_k", 11: "q3_k", 12: "q4_k",
    13: "q5_k", 14: "q6_k", 15: "q8_k", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl",
    21: "iq3_s", 22: "iq2_s", 23: "iq4_xs", 29: "iq1_m", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4",
}  # fmt: skip
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9


def claims(path: Path, head: bytes) -> bool:
    return head.startswith(b"GGUF") or (path.suffix.lower() == ".gguf" and head.startswith(b"FUGG"))


def open(path: Path) -> Checkpoint:
    """Index of the tensors; none is read. Raises IngestError."""
    return assemble(find(path), NAME)


def find(path: Path) -> Found:
    found = Found(str(path))
    with path.open("rb") as file:
        cursor = _Cursor(file, str(path), file.seek(0, os.SEEK_END))
        file.seek(0)
        tensors, settings = cursor.header()
        for _ in range(settings):
            key, value = cursor.text(), cursor.value(cursor.number("I"))
            if value is not None and len(found.hyperparameters) < 2_000:
                found.hyperparameters[key[:200]] = value
        described = [cursor.tensor() for _ in range(tensors)]
        alignment = found.hyperparameters.get("general.alignment", 32)
        start = _aligned(file.tell(), alignment if isinstance(alignment, int) else 32)
    unmeasured: dict[str, int] = {}
    for name, shape, kind, offset in described:
        _add(found, name, shape, kind, start + offset, cursor, unmeasured)
    for dtype, count in unmeasured.items():
        message = f"{count} tensors of type {dtype} are listed but not measured: their layout is not read"
        found.problems.append(Problem(str(path), "unsupported", message))
    if not found.entries:
        problem = found.problems[0] if found.problems else Problem("", "unsupported", "holds no tensors")
        raise IngestError(str(path), problem.message, problem.kind, problem.offset)
    return found


def _aligned(at: int, alignment: int) -> int:
    step = alignment if 0 < alignment <= 1 << 20 else 32
    return (at + step - 1) // step * step


@dataclass(slots=True)
class _Cursor:
    """Reads the header forwards; every count is checked against the bytes that are left."""

    file: BinaryIO
    path: str
    size: int
    order: str = "<"

    def header(self) -> tuple[int, int]:
        """The numbers of tensors and of settings."""
        self.take(4)
        version = self.number("I")
        if version & 0xFFFF == 0:
            self.order, version = ">", int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in (2, 3):
            raise IngestError(self.path, f"GGUF version {version} is not supported", "unsupported", 4)
        tensors, settings = self.number("Q"), self.number("Q")
        if tensors > min(MAX_TENSORS, self.size // 24) or settings > min(MAX_SETTINGS, self.size // 12):
            message = f"claims {tensors} tensors and {settings} settings in {self.size} bytes"
            raise IngestError(self.path, message, "too-large", 8)
        return tensors, settings

    def take(self, size: int) -> bytes:
        at = self.file.tell()
        if size > self.size - at:
            message = f"header needs {size} bytes at byte {at} where {self.size - at} are left"
            raise IngestError(self.path, message, "truncated", at)
        return self.file.read(size)

    def number(self, code: str) -> int:
        value = struct.unpack(self.order + code, self.take(struct.calcsize(self.order + code)))[0]
        return int(value)

    def text(self) -> str:
        length = self.number("Q")
        if length > MAX_TEXT:
            raise IngestError(self.path, f"a name of {length} bytes", "too-large", self.file.tell())
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Scalar:
        """A setting; None for an array, which is passed over."""
        if kind in _SCALARS:
            code = self.order + _SCALARS[kind]
            scalar: Scalar = struct.unpack(code, self.take(struct.calcsize(code)))[0]
            return scalar
        if kind == _TEXT:
            return self.text()[:_KEPT]
        if kind != _ARRAY:
            raise IngestError(self.path, f"a setting of unknown type {kind}", "damaged", self.file.tell())
        self.skip_array()
        return None

    def skip_array(self) -> None:
        kind, count = self.number("I"), self.number("Q")
        left = self.size - self.file.tell()
        if kind in _SCALARS:
            width = struct.calcsize(self.order + _SCALARS[kind])
            if count * width > left:
                raise IngestError(self.path, f"an array of {count} numbers in {left} bytes", "truncated")
            self.file.seek(count * width, os.SEEK_CUR)
        elif kind == _TEXT and count * 8 <= left:
            for _ in range(count):
                length = self.number("Q")
                self.take(0 if length <= self.size else length)
                self.file.seek(length, os.SEEK_CUR)
        else:
            message = f"an array of {count} elements of type {kind} in {left} bytes"
            raise IngestError(self.path, message, "damaged", self.file.tell())

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape (rows first, as elsewhere), type and offset within the data."""
        name, axes = self.text(), self.number("I")
        if axes > 16:
            raise IngestError(self.path, f"a tensor of {axes} axes", "damaged", self.file.tell())
        shape = tuple(self.number("Q") for _ in range(axes))
        return name[:1_000], tuple(reversed(shape)), self.number("I"), self.number("Q")


def _add(
    found: Found,
    name: str,
    shape: tuple[int, ...],
    kind: int,
    start: int,
    cursor: _Cursor,
    unmeasured: dict[str, int],
) -> None:
    big, size = cursor.order == ">", cursor.size
    count = element_count(shape)
    dtype = _PLAIN.get(kind) or _NAMES.get(kind) or f"type {kind}"
    if kind not in _PLAIN and (big or dtype not in _QUANTISED):
        unmeasured[dtype] = unmeasured.get(dtype, 0) + 1
        return
    layout = _QUANTISED.get(dtype)
    nbytes = count * DTYPES[dtype].size if layout is None else count // layout.width * layout.size
    if not all(0 <= n < 1 << 48 for n in shape) or (layout and (not shape or shape[-1] % layout.width)):
        found.fault("damaged", f"tensor {name[:80]!r}: shape {list(shape)[:8]} is impossible for {dtype}")
    elif start + nbytes > size:
        missing = start + nbytes - size
        found.fault(
            "truncated", f"tensor {name[:80]!r} not read: the file ends {missing} bytes before it does", start
        )
    else:
        region = Region(found.path, start, nbytes, size)
        blocks: Blocks = (
            StoredBlocks(region, dtype, shape, row_major(shape), 0, big)
            if layout is None
            else QuantisedBlocks(region, dtype, count)
        )
        found.entries.append(Entry(name, dtype, shape, blocks, "model", path=name, nbytes=nbytes))


# --- quantised blocks -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QuantisedBlocks:
    """Elements of a quantised tensor as float32, in order."""

    region: Region
    dtype: str
    count: int

    def __call__(self, limit: int) -> Iterator[NDArray[np.generic]]:
        layout = _QUANTISED[self.dtype]
        many, blocks = max(1, limit // (4 * layout.width)), self.count // layout.width
        with Reader(self.region) as reader:
            for first in range(0, blocks, many):
                number = min(many, blocks - first)
                raw = np.frombuffer(reader.read(first * layout.size, number * layout.size), np.uint8)
                with np.errstate(all="ignore"):
                    yield layout.values(raw.reshape(number, layout.size)).reshape(-1)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Elements and bytes of a block, and the ones from the others: rows of bytes -> rows of float32."""

    width: int
    size: int
    values: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def _half(rows: NDArray[np.uint8], at: int) -> NDArray[np.float32]:
    """The 16-bit float at one place of each block, as a column."""
    return np.ascontiguousarray(rows[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(rows: NDArray[np.uint8], at: int) -> NDArray[np.uint8]:
    """Sixteen bytes hold 32 numbers of four bits: the low halves first, then the high ones."""
    packed = rows[:, at : at + 16]
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(rows: NDArray[np.uint8], at: int) -> NDArray[np.uint8]:
    """32 bits, the lowest first, as the fifth bit of each number."""
    bits: NDArray[np.uint8] = np.unpackbits(rows[:, at : at + 4], axis=1, bitorder="little") << np.uint8(4)
    return bits


def _q8_0(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _half(rows, 0) * rows[:, 2:].view(np.int8).astype(np.float32)


def _q4_0(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _half(rows, 0) * (_nibbles(rows, 2).astype(np.float32) - 8)


def _q4_1(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _half(rows, 0) * _nibbles(rows, 4).astype(np.float32) + _half(rows, 2)


def _q5_0(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    numbers = _nibbles(rows, 6) | _fifth_bits(rows, 2)
    return _half(rows, 0) * (numbers.astype(np.float32) - 16)


def _q5_1(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    numbers = _nibbles(rows, 8) | _fifth_bits(rows, 4)
    return _half(rows, 0) * numbers.astype(np.float32) + _half(rows, 2)


def _small_scales(rows: NDArray[np.uint8], at: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Eight scales and eight minima of six bits each, packed in twelve bytes."""
    packed = rows[:, at : at + 12]
    low, high, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (rest & 15) | (low >> 6 << 4)], axis=1)
    minima = np.concatenate([high & 63, (rest >> 4) | (high >> 6 << 4)], axis=1)
    return scales.astype(np.float32)[:, :, None], minima.astype(np.float32)[:, :, None]


def _halves(rows: NDArray[np.uint8], at: int) -> NDArray[np.uint8]:
    """128 bytes hold eight runs of 32 numbers of four bits: low and high halves of 32 bytes in turn."""
    packed = rows[:, at : at + 128].reshape(len(rows), 4, 1, 32)
    return np.concatenate([packed & 15, packed >> 4], axis=2).reshape(len(rows), 8, 32)


def _q4_k(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    scales, minima = _small_scales(rows, 4)
    numbers = _halves(rows, 16).astype(np.float32)
    return _half(rows, 0)[:, :, None] * scales * numbers - _half(rows, 2)[:, :, None] * minima


def _q5_k(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    scales, minima = _small_scales(rows, 4)
    fifth = rows[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    numbers = (_halves(rows, 48) | fifth << 4).astype(np.float32)
    return _half(rows, 0)[:, :, None] * scales * numbers - _half(rows, 2)[:, :, None] * minima


def _q6_k(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Two halves of 128: four bits of each number in 64 bytes, the other two in 32; a scale for 16."""
    low = rows[:, :128].reshape(len(rows), 2, 1, 2, 32)
    four = np.concatenate([low & 15, low >> 4], axis=2).reshape(len(rows), 2, 4, 32)
    two = rows[:, 128:192].reshape(len(rows), 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
    numbers: NDArray[np.float32] = (four | two << 4).astype(np.float32).reshape(len(rows), 16, 16) - 32
    scales: NDArray[np.float32] = rows[:, 192:208].view(np.int8).astype(np.float32)[:, :, None]
    return _half(rows, 208)[:, :, None] * scales * numbers


def _pairs(rows: NDArray[np.uint8], at: int) -> NDArray[np.uint8]:
    """64 bytes hold sixteen runs of 16 numbers of two bits: the four pairs of bits of 32 bytes in turn."""
    packed = rows[:, at : at + 64].reshape(len(rows), 2, 1, 32)
    pairs = packed >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & np.uint8(3)
    return pairs.reshape(len(rows), 16, 16)


def _q2_k(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sixteen bytes hold a scale in their low halves and a minimum in their high ones."""
    scales, minima = (
        (rows[:, :16] >> np.uint8(shift) & 15).astype(np.float32)[:, :, None] for shift in (0, 4)
    )
    numbers = _pairs(rows, 16).astype(np.float32)
    return _half(rows, 80)[:, :, None] * scales * numbers - _half(rows, 82)[:, :, None] * minima


def _q3_k(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Where the third bit, which 32 bytes hold for all, is not set, four is taken off."""
    third = rows[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    numbers = _pairs(rows, 32).astype(np.float32) - 4 * (
        1 - third.reshape(len(rows), 16, 16).astype(np.float32)
    )
    low, high = rows[:, 96:104], rows[:, 104:108]
    four = np.concatenate([low & 15, low >> 4], axis=1)
    two = np.concatenate([high >> np.uint8(shift) & 3 for shift in (0, 2, 4, 6)], axis=1)
    scales = ((four | two << 4).astype(np.float32) - 32)[:, :, None]
    found: NDArray[np.float32] = _half(rows, 108)[:, :, None] * scales * numbers
    return found


_UNEVEN = np.array(  # denser around zero, as weights are
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
_MINIFLOATS = np.array(  # twice the sixteen floats with one bit of mantissa
    [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32
)


def _iq4_nl(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _half(rows, 0) * _UNEVEN[_nibbles(rows, 2)]


def _iq4_xs(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Eight scales of six bits: two of each in two bytes, four in four; then sixteen bytes for each run of 32."""
    high = np.ascontiguousarray(rows[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    low = np.stack([rows[:, 4:8] & 15, rows[:, 4:8] >> 4], axis=2).reshape(len(rows), 8)
    scales = (low | high << 4).astype(np.float32)[:, :, None] - 32
    packed = rows[:, 8:].reshape(len(rows), 8, 16)
    numbers = np.concatenate([packed & 15, packed >> 4], axis=2)
    found: NDArray[np.float32] = _half(rows, 0)[:, :, None] * scales * _UNEVEN[numbers]
    return found


def _mxfp4(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A power of two for 32 numbers, halved: the table's values are doubled."""
    powers: NDArray[np.float32] = np.ldexp(np.float32(1), rows[:, :1].astype(np.int32) - 128)
    return powers * _MINIFLOATS[_nibbles(rows, 1)]


_QUANTISED = {
    "q8_0": _Layout(32, 34, _q8_0),
    "q4_0": _Layout(32, 18, _q4_0),
    "q4_1": _Layout(32, 20, _q4_1),
    "q5_0": _Layout(32, 22, _q5_0),
    "q5_1": _Layout(32, 24, _q5_1),
    "q2_k": _Layout(256, 84, _q2_k),
    "q3_k": _Layout(256, 110, _q3_k),
    "q4_k": _Layout(256, 144, _q4_k),
    "q5_k": _Layout(256, 176, _q5_k),
    "q6_k": _Layout(256, 210, _q6_k),
    "iq4_nl": _Layout(32, 18, _iq4_nl),
    "iq4_xs": _Layout(256, 136, _iq4_xs),
    "mxfp4": _Layout(32, 17, _mxfp4),
}
