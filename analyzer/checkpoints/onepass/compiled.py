"""The pass as numba compiles it: no interpreter lock held, vector instructions, every loop in the first-level cache.

Imported only for large checkpoints. Loops work on stretches of 4,096 elements, so that the several
simple loops over one stretch, which the compiler can vectorise, read memory once. Compiled code is
kept beside this file or, where that folder is read-only, in numba's folder of the user's cache.
"""
# mypy: disallow-untyped-decorators=False

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from analyzer.model import FloatArray

_STRETCH = 4096
_INFINITY = np.int32(0x7F800000)
_LEAST_NORMAL = np.int32(0x00800000)
_ALL_BUT_SIGN = np.int32(0x7FFFFFFF)
# Sums may be taken in any order, as vectors need; NaN and Inf keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_jit = njit(nogil=True, cache=True, fastmath=_FAST)

Single = NDArray[np.float32]
Bits = NDArray[np.int32]
Bins = NDArray[np.uint32]


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


@_jit
def _count_small(bits: Bits, whole: NDArray[np.int64]) -> None:
    zeros = small = np.int32(0)
    for i in range(bits.size):
        size = bits[i] & _ALL_BUT_SIGN
        zeros += np.int32(size == 0)
        small += np.int32(size < _LEAST_NORMAL)
    whole[0] += zeros
    whole[1] += small - zeros


@_jit
def _bounds(bits: Bits, whole: NDArray[np.int64]) -> bool:
    """Zeros, subnormals, lowest and highest; False, and nothing done, where one is not finite.

    A float's bits, with all but the sign flipped for negative ones, order as the floats do.
    """
    low, high, least = np.int32(0x7FFFFFFF), np.int32(-0x80000000), np.int32(0x7FFFFFFF)
    for i in range(bits.size):
        order = bits[i] ^ ((bits[i] >> np.int32(31)) & _ALL_BUT_SIGN)
        low, high = min(low, order), max(high, order)
        least = min(least, bits[i] & _ALL_BUT_SIGN)
    if high >= _INFINITY or low <= ~_INFINITY:
        return False
    whole[2], whole[3] = min(whole[2], np.int64(low)), max(whole[3], np.int64(high))
    if least < _LEAST_NORMAL:
        _count_small(bits, whole)
    return True


@_jit
def _keep_finite(x: Single, bits: Bits, clean: Single, whole: NDArray[np.int64]) -> int:
    """The finite elements into ``clean``; counts the others. Returns how many are finite."""
    kept = 0
    for i in range(x.size):
        size = bits[i] & _ALL_BUT_SIGN
        if size < _INFINITY:
            clean[kept] = x[i]
            kept += 1
        elif size == _INFINITY:
            whole[5] += 1
        else:
            whole[4] += 1
    return kept


@_jit
def _powers(x: Single, sums: FloatArray) -> None:
    s1 = s2 = s3 = s4 = l1 = 0.0
    for i in range(x.size):
        value = np.float64(x[i])
        square = value * value
        s1 += value
        s2 += square
        s3 += square * value
        s4 += square * square
        l1 += abs(value)
    sums[0] += s1
    sums[1] += s2
    sums[2] += s3
    sums[3] += s4
    sums[4] += l1


@_jit
def _leading_bits(bits: NDArray[np.uint32], bins: Bins) -> None:
    for i in range(bits.size):
        bins[bits[i] >> np.uint32(16)] += np.uint32(1)


@_jit
def single(
    x: Single,
    bits: Bits,
    codes: NDArray[np.uint32],
    bins: Bins,
    units: FloatArray,
    position: int,
    length: int,
    sums: FloatArray,
    whole: NDArray[np.int64],
) -> None:
    """One block of float32; ``bits`` and ``codes`` are views of ``x``.

    Adds to ``sums`` (powers 1 to 4 and absolute values), to ``whole`` (zeros, subnormals, lowest
    and highest in order of bits, NaN, Inf), to ``bins`` (2**16, by the leading bits) and to
    ``units``, whose rows are ``length`` long; ``position`` is the block's place among them.
    """
    clean = np.empty(_STRETCH, np.float32)
    for start in range(0, x.size, _STRETCH):
        end = min(x.size, start + _STRETCH)
        part = x[start:end]
        _leading_bits(codes[start:end], bins)
        if _bounds(bits[start:end], whole):
            _unit_squares(part, units, position + start, length)
        else:
            kept = clean[: _keep_finite(part, bits[start:end], clean, whole)]
            _bounds(kept.view(np.int32), whole)
            if units.size:
                zeroed = np.where(np.isfinite(part), part, np.float32(0))
                _unit_squares(zeroed, units, position + start, length)
            part = kept
        _powers(part, sums)


@_jit
def power_sums_about(x: Single, pivot: float, sums: FloatArray) -> None:
    """Sums of powers 1 to 4 of the finite elements' deviations from ``pivot``."""
    s1 = s2 = s3 = s4 = 0.0
    for i in range(x.size):
        d = (np.float64(x[i]) - pivot) if np.isfinite(x[i]) else np.float64(0)
        square = d * d
        s1 += d
        s2 += square
        s3 += square * d
        s4 += square * square
    sums[0] += s1
    sums[1] += s2
    sums[2] += s3
    sums[3] += s4


@_jit
def _count(codes: NDArray[np.unsignedinteger], bins: Bins) -> None:
    for i in range(codes.size):
        bins[codes[i]] += np.uint32(1)


@_jit
def brain(codes: NDArray[np.uint16], bins: Bins, units: FloatArray, position: int, length: int) -> None:
    """One block of bfloat16: counts by code, sums of squares by unit (NaN and Inf as zero)."""
    wide = np.empty(_STRETCH, np.uint32)
    for start in range(0, codes.size, _STRETCH):
        part = codes[start : start + _STRETCH]
        _count(part, bins)
        if units.size:
            for i in range(part.size):
                finite = (part[i] & np.uint16(0x7F80)) != np.uint16(0x7F80)
                wide[i] = (np.uint32(part[i]) << np.uint32(16)) if finite else np.uint32(0)
            _unit_squares(wide[: part.size].view(np.float32), units, position + start, length)


@_jit
def half(codes: NDArray[np.uint16], bins: Bins, units: FloatArray, position: int, length: int) -> None:
    """One block of float16. Its magnitude's bits 13 places up are a float32 of 2**-112 its size."""
    wide = np.empty(_STRETCH, np.uint32)
    real = wide.view(np.float32)
    for start in range(0, codes.size, _STRETCH):
        part = codes[start : start + _STRETCH]
        _count(part, bins)
        if units.size:
            for i in range(part.size):
                finite = (part[i] & np.uint16(0x7C00)) != np.uint16(0x7C00)
                size = np.uint32(part[i]) & np.uint32(0x7FFF)
                wide[i] = (size << np.uint32(13)) if finite else np.uint32(0)
            for i in range(part.size):
                real[i] *= np.float32(2.0**112)
            _unit_squares(real[: part.size], units, position + start, length)


@_jit
def coded(
    codes: NDArray[np.unsignedinteger],
    values: Single,
    bins: Bins,
    units: FloatArray,
    position: int,
    length: int,
) -> None:
    """One block of a type of 8 or 16 bits whose ``values`` are in a table, NaN and Inf as zero."""
    wide = np.empty(_STRETCH, np.float32)
    for start in range(0, codes.size, _STRETCH):
        part = codes[start : start + _STRETCH]
        _count(part, bins)
        if units.size:
            for i in range(part.size):
                wide[i] = values[part[i]]
            _unit_squares(wide[: part.size], units, position + start, length)
