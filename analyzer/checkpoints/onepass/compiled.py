"""The pass as numba compiles it: reads a piece of a tensor block by block and sums it.

Imported only where the code is built (:mod:`analyzer.checkpoints.onepass.native` keeps it); what
runs needs no interpreter and allocates nothing. Loops work on stretches of 4,096 elements, so that
the several simple loops over one stretch read memory once and the first-level cache after that.

The functions of ``exported`` take a file and an offset, or -1 for what is in ``buffer`` already,
the number of elements, bytes to be read at a time, a buffer for these, and the units: their sums, how many, the
elements of a row (0 where the units are the last axis), and the piece's place among them. They
return how many elements could be read.
"""
# mypy: disallow-untyped-decorators=False

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numpy.typing import NDArray

from analyzer.checkpoints.onepass import fused
from analyzer.checkpoints.onepass.layout import BLOCK, BOUNDS, LANE_SUMS, ROW, SCRATCH, SINGLE_BINS, STRETCH
from analyzer.model import FloatArray

_INFINITY = np.int32(0x7F800000)
_LEAST_NORMAL = np.int32(0x00800000)
_ALL_BUT_SIGN = np.int32(0x7FFFFFFF)
_FAR = 64.0  # mean² over variance above which powers about zero lose digits of the fourth moment
# Sums may be taken in any order, as vectors need; NaN and Inf keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_jit = njit(fastmath=_FAST, error_model="numpy")

Single = NDArray[np.float32]
Bits = NDArray[np.int32]
Bins = NDArray[np.uint32]
Counts = NDArray[np.int64]  # zeros, subnormals, NaN, Inf

_pread = types.ExternalFunction("pread", types.intp(types.int32, types.uintp, types.uintp, types.int64))


@intrinsic
def _address(_: Any, pointer: Any) -> Any:
    def generate(context: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.ptrtoint(arguments[0], context.get_value_type(types.uintp))

    return types.uintp(pointer), generate


@_jit
def _read(file: int, address: int, size: int, offset: int) -> int:
    """Bytes read, fewer than ``size`` only where the file ends or cannot be read; without a file all are there."""
    if file < 0:
        return size
    done = 0
    while done < size:
        got = _pread(file, address + done, size - done, offset + done)
        if got <= 0:
            break
        done += got
    return done


# --- output units ----------------------------------------------------------------------------------


@_jit
def _row_squares(x: Single, units: FloatArray, position: int, length: int) -> None:
    """Adds squares to their row's sum; the first element is the one at ``position``."""
    row, left, i = position // length, length - position % length, 0
    while i < x.size:
        part = x[i : i + left]
        total = 0.0
        for k in range(part.size):
            value = np.float64(part[k])
            total += value * value
        units[row] += total
        row, i, left = row + 1, i + left, length


@_jit
def _column_squares(x: Single, units: FloatArray, position: int) -> None:
    first, i = position % units.size, 0
    while i < x.size:
        part = x[i : i + units.size - first]
        sums = units[first:]
        for k in range(part.size):
            value = np.float64(part[k])
            sums[k] += value * value
        i, first = i + part.size, 0


@_jit
def _unit_squares(x: Single, units: FloatArray, position: int, length: int) -> None:
    """``length`` is that of a row, 0 where the units are the last axis."""
    if units.size == 0:
        return
    if length > 0:
        _row_squares(x, units, position, length)
    else:
        _column_squares(x, units, position)


# --- float32 ---------------------------------------------------------------------------------------


@_jit
def _leading_bits(bits: Bits, bins: Bins) -> None:
    for i in range(bits.size):
        bins[(bits[i] >> np.int32(16)) & np.int32(0xFFFF)] += np.uint32(1)


@_jit
def _count_small(bits: Bits, counts: Counts) -> None:
    zeros = small = np.int32(0)
    for i in range(bits.size):
        size = bits[i] & _ALL_BUT_SIGN
        zeros += np.int32(size == 0)
        small += np.int32(size < _LEAST_NORMAL)
    counts[0] += zeros
    counts[1] += small - zeros


@_jit
def _add_powers(x: Single, pivot: float, row: FloatArray) -> None:
    """Sums of powers 1 to 4 of the finite elements' deviations from ``pivot``."""
    s1 = s2 = s3 = s4 = 0.0
    for i in range(x.size):
        d = (np.float64(x[i]) - pivot) if np.isfinite(x[i]) else np.float64(0)
        square = d * d
        s1 += d
        s2 += square
        s3 += square * d
        s4 += square * square
    row[0] += s1
    row[1] += s2
    row[2] += s3
    row[3] += s4


@_jit
def _one_by_one(x: Single, bits: Bits, zeroed: Single, counts: Counts, row: FloatArray) -> None:
    """Everything but the bins; ``zeroed`` becomes ``x`` with 0 for what is not finite."""
    for i in range(x.size):
        size, value = bits[i] & _ALL_BUT_SIGN, np.float64(x[i])
        if size >= _INFINITY:
            zeroed[i] = np.float32(0)
            counts[3 if size == _INFINITY else 2] += 1
            continue
        zeroed[i] = x[i]
        counts[0] += np.int64(size == 0)
        counts[1] += np.int64(0 < size < _LEAST_NORMAL)
        row[4] += abs(value)
        row[5], row[6] = min(row[5], value), max(row[6], value)
        row[7] += 1
    _add_powers(zeroed[: x.size], 0.0, row)


@_jit
def _add_lanes(lanes: FloatArray, bounds: Bits, row: FloatArray) -> bool:
    """Adds what ``sum_and_count`` wrote; False, and nothing done, where an element is not finite.

    Positive floats order as their bits do, negative ones the other way round. Where all have one
    sign, the bound towards zero is the least magnitude, which is left as the first of ``bounds``.
    """
    signed, size, least = np.int32(-0x80000000), np.uint32(0), np.uint32(0xFFFFFFFF)
    unsigned = bounds.view(np.uint32)
    for k in range(fused.LANES):
        signed = max(signed, bounds[k])
        size = max(size, unsigned[fused.LANES + k])
        least = min(least, unsigned[2 * fused.LANES + k] >> np.uint32(1))
    if signed >= _INFINITY or size >= np.uint32(0xFF800000):
        return False
    unsigned[0] = least
    unsigned[1] = size if size >= np.uint32(0x80000000) else least
    unsigned[2] = np.uint32(signed) if signed >= 0 else least | np.uint32(0x80000000)
    real = bounds.view(np.float32)
    row[5], row[6] = min(row[5], np.float64(real[1])), max(row[6], np.float64(real[2]))
    for i in range(fused.SUMS):
        for k in range(fused.LANES):
            row[i] += lanes[i * fused.LANES + k]
    return True


@_jit
def _stretch(x: Single, bins: Bins, counts: Counts, row: FloatArray, scratch: FloatArray) -> Single:
    """One stretch; returns it with 0 for what is not finite."""
    bits, groups = x.view(np.int32), x.size // fused.GROUP
    zeroed = scratch[LANE_SUMS + BOUNDS :].view(np.float32)[: x.size]
    if groups * fused.GROUP == x.size:
        lanes, bounds = scratch[:LANE_SUMS], scratch[LANE_SUMS : LANE_SUMS + BOUNDS].view(np.int32)
        fused.sum_and_count(x.ctypes.data, bins.ctypes.data, lanes.ctypes.data, bounds.ctypes.data, groups)
        if _add_lanes(lanes, bounds, row):
            row[7] += x.size
            if bounds[0] < _LEAST_NORMAL:
                _count_small(bits, counts)
            return x
    else:
        _leading_bits(bits, bins)
    _one_by_one(x, bits, zeroed, counts, row)
    return zeroed


@_jit
def _block(
    x: Single,
    bins: Bins,
    units: FloatArray,
    position: int,
    length: int,
    row: FloatArray,
    counts: Counts,
    scratch: FloatArray,
) -> None:
    """One block into its row: powers 1 to 4 and absolute values, bounds, finite elements, pivot of the powers."""
    for start in range(0, x.size, STRETCH):
        part = _stretch(x[start : start + STRETCH], bins, counts, row, scratch)
        _unit_squares(part, units, position + start, length)
    mean = row[0] / max(1.0, row[7])
    if row[0] * mean > _FAR * (row[1] - row[0] * mean):
        row[:4], row[8] = 0.0, mean
        _add_powers(x, mean, row)


def _single(
    file: int,
    offset: int,
    count: int,
    block: int,
    buffer: Any,
    unit_sums: Any,
    unit_count: int,
    length: int,
    position: int,
    bin_counts: Any,
    row_values: Any,
    whole: Any,
    workspace: Any,
) -> int:
    """float32: a row of sums for each block, and zeros, subnormals, NaN and Inf of all."""
    x, bins = carray(buffer, BLOCK // 4), carray(bin_counts, SINGLE_BINS)
    units, counts = carray(unit_sums, unit_count), carray(whole, 4)
    rows, scratch = carray(row_values, (count * 4 // block + 1, ROW)), carray(workspace, SCRATCH)
    done, row = 0, 0
    while done < count:
        size = min(block // 4, count - done)
        read = _read(file, _address(buffer), size * 4, offset + done * 4) // 4
        _block(x[:read], bins, units, position + done, length, rows[row], counts, scratch)
        done, row = done + read, row + 1
        if read < size:
            break
    return done


# --- types of 8 and 16 bits ------------------------------------------------------------------------


@_jit
def _count(codes: NDArray[np.unsignedinteger], bins: Bins) -> None:
    for i in range(codes.size):
        bins[codes[i]] += np.uint32(1)


@_jit
def _brain_values(codes: NDArray[np.uint16], _: Single, wide: NDArray[np.uint32]) -> None:
    for i in range(codes.size):
        finite = (codes[i] & np.uint16(0x7F80)) != np.uint16(0x7F80)
        wide[i] = (np.uint32(codes[i]) << np.uint32(16)) if finite else np.uint32(0)


@_jit
def _half_values(codes: NDArray[np.uint16], _: Single, wide: NDArray[np.uint32]) -> None:
    """Magnitudes: their bits 13 places up are a float32 of 2**-112 its size."""
    real = wide.view(np.float32)
    for i in range(codes.size):
        finite = (codes[i] & np.uint16(0x7C00)) != np.uint16(0x7C00)
        size = np.uint32(codes[i]) & np.uint32(0x7FFF)
        wide[i] = (size << np.uint32(13)) if finite else np.uint32(0)
    for i in range(codes.size):
        real[i] *= np.float32(2.0**112)


@_jit
def _table_values(codes: NDArray[np.unsignedinteger], table: Single, wide: NDArray[np.uint32]) -> None:
    real = wide.view(np.float32)
    for i in range(codes.size):
        real[i] = table[codes[i]]


def _coded(width: int, values_of: Any) -> Any:
    """The pass over codes of ``width`` bytes; ``values_of`` makes float32 of them, NaN and Inf as zero."""

    def counted(
        file: int,
        offset: int,
        count: int,
        block: int,
        buffer: Any,
        unit_sums: Any,
        unit_count: int,
        length: int,
        position: int,
        bin_counts: Any,
        values: Any,
        workspace: Any,
    ) -> int:
        codes, bins = carray(buffer, BLOCK // width), carray(bin_counts, 1 << 8 * width)
        units, table = carray(unit_sums, unit_count), carray(values, 1 << 8 * width)
        wide = carray(workspace, SCRATCH).view(np.uint32)
        done = 0
        while done < count:
            size = min(block // width, count - done)
            read = _read(file, _address(buffer), size * width, offset + done * width) // width
            for start in range(0, read, STRETCH):
                part = codes[start : min(read, start + STRETCH)]
                _count(part, bins)
                if units.size:
                    values_of(part, table, wide)
                    stretch = wide[: part.size].view(np.float32)
                    _unit_squares(stretch, units, position + done + start, length)
            done += read
            if read < size:
                break
        return done

    return counted


# --- what is exported ------------------------------------------------------------------------------

_INTS = (types.int64,) * 3  # elements of units: how many, of a row, the place among them


def _exported(function: Any, element: Any, *last: Any) -> Any:
    pointers = [types.CPointer(kind) for kind in (*last, types.float64)]
    signature = types.int64(
        types.int32, types.int64, types.int64, types.int64, types.CPointer(element), types.CPointer(types.float64),
        *_INTS, types.CPointer(types.uint32), *pointers,
    )  # fmt: skip
    return cfunc(signature, fastmath=_FAST, error_model="numpy")(function)


def exported() -> dict[str, Any]:
    """Name and compiled function of each kind of elements."""
    return {
        "single": _exported(_single, types.float32, types.float64, types.int64),
        "brain": _exported(_coded(2, _brain_values), types.uint16, types.float32),
        "half": _exported(_coded(2, _half_values), types.uint16, types.float32),
        "byte": _exported(_coded(1, _table_values), types.uint8, types.float32),
        "word": _exported(_coded(2, _table_values), types.uint16, types.float32),
    }


def object_code(llvm: Any, machine: Any) -> bytes:
    """Machine code of all kinds, as functions ``analyzer_KIND``. ``llvm`` is llvmlite's binding.

    Raises RuntimeError where this numba or LLVM does not compile it.
    """
    try:
        functions = exported()
    except NumbaError as error:
        raise RuntimeError(f"numba does not compile the pass: {error}") from error
    whole = None
    for kind, function in functions.items():
        text = function.inspect_llvm().replace(function.native_name, f"analyzer_{kind}")
        module = llvm.parse_assembly(_without_interpreter(text))
        whole = module if whole is None else whole
        if whole is not module:
            whole.link_in(module)
    assert whole is not None
    whole.verify()
    return bytes(machine.emit_object(whole))


def _without_interpreter(text: str) -> str:
    """numba's code for exceptions, which none of ours can raise, calls nothing outside any more."""
    text = re.sub(
        r"^(@[\w.]+) = external global (\w+).*$", r"\1 = internal global \2 undef", text, flags=re.M
    )
    return re.sub(
        r"^declare ([^@]*)@(?!llvm\.|pread\b|mem)([\w.]+)(\([^)]*\)).*$",
        r"define internal \1@\2\3 {\n  unreachable\n}",
        text,
        flags=re.M,
    )
