"""The pass in numpy: what a block adds to a tensor's sums.

Types of 8 and 16 bits are only counted by their bits, 256 or 65,536 bins, from which everything
but the units' norms follows exactly. Wider ones are summed, and counted by their leading bits for
quantiles. The compiled pass (:mod:`analyzer.checkpoints.onepass.compiled`) fills the same sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.onepass.layout import SINGLE_BINS
from analyzer.checkpoints.onepass.moments import Moments, block_moments, from_rows, merge
from analyzer.model import FloatArray

STRETCH = 1 << 15  # elements worked on at a time: their float64 copies stay in the second-level cache
DOUBLE_BINS = 1 << 19  # sign, exponent and seven bits of mantissa of a float64


@dataclass(frozen=True, slots=True)
class Units:
    """How a tensor's elements belong to its output units.

    ``length`` elements in a row are one unit, or with 0 every ``count``-th element is; a ``count``
    of 0 means that there are no units.
    """

    count: int = 0
    length: int = 0

    def sums(self, first: int, elements: int) -> tuple[FloatArray, int, int]:
        """Zeros for the units that a stretch touches, the first of these, its place from there."""
        if self.count == 0 or elements == 0:
            return np.zeros(0), 0, 0
        if self.length == 0:
            return np.zeros(self.count), 0, first
        row = first // self.length
        return np.zeros((first + elements - 1) // self.length - row + 1), row, first - row * self.length


@dataclass(slots=True)
class Tally:
    """What one pass over a stretch of a tensor gathers. All but counts is over ``value / scale``."""

    units: FloatArray  # sums of squares by output unit, NaN and Inf as zero
    first_unit: int = 0
    scale: float = 1.0
    moments: Moments = field(default_factory=Moments)
    minimum: float = math.inf
    maximum: float = -math.inf
    l1: float = 0.0
    zeros: int = 0
    subnormal: int = 0
    nan: int = 0
    inf: int = 0
    bins: NDArray[np.integer] | None = None  # counts by leading bits, or by code
    coded: str = ""  # the type whose codes were counted: all else follows from the counts
    kept: list[FloatArray] = field(default_factory=list)  # finite values of a small tensor


def add(total: Tally, part: Tally) -> None:
    """Adds what another stretch of the same tensor gave."""
    total.moments = merge(total.moments, part.moments)
    total.minimum = min(total.minimum, part.minimum)
    total.maximum = max(total.maximum, part.maximum)
    total.l1 += part.l1
    total.zeros += part.zeros
    total.subnormal += part.subnormal
    total.nan += part.nan
    total.inf += part.inf
    total.kept += part.kept
    total.coded = total.coded or part.coded
    total.units[part.first_unit : part.first_unit + len(part.units)] += part.units
    if part.bins is not None:
        total.bins = part.bins if total.bins is None else np.add(total.bins, part.bins, dtype=np.int64)


def add_rows(tally: Tally, rows: FloatArray, whole: NDArray[np.int64]) -> None:
    """Adds what the compiled pass over float32 leaves: a row for each block, and counts."""
    zeros, subnormal, nan, inf = whole.tolist()
    tally.zeros += zeros
    tally.subnormal += subnormal
    tally.nan += nan
    tally.inf += inf
    rows = rows[rows[:, 7] > 0]
    if len(rows):
        tally.minimum = min(tally.minimum, float(rows[:, 5].min()))
        tally.maximum = max(tally.maximum, float(rows[:, 6].max()))
        tally.l1 += float(rows[:, 4].sum())
        tally.moments = merge(tally.moments, from_rows(rows[:, 7], rows[:, :4], rows[:, 8]))


def add_block(
    tally: Tally, block: NDArray[np.generic], position: int, units: Units, least_normal: float, keep: bool
) -> None:
    """Adds a block of numbers; of complex ones the magnitudes. Non-zero ones below ``least_normal`` are subnormal."""
    values = np.abs(block.astype(np.complex128)) if block.dtype.kind == "c" else block
    for first in range(0, len(values), STRETCH):
        wide = values[first : first + STRETCH].astype(np.float64)
        if tally.scale != 1.0:
            wide /= tally.scale
        finite = _add_values(tally, wide, least_normal / tally.scale)
        if keep:
            tally.kept.append(finite)
        if len(tally.units):
            add_by_unit(tally.units, wide * wide, position + first, units)


def _add_values(tally: Tally, wide: FloatArray, least_normal: float) -> FloatArray:
    """Sums of the finite values, which are returned; in ``wide`` itself the others become 0."""
    finite, low, high = wide, float(wide.min()), float(wide.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        fine = np.isfinite(wide)
        finite = wide[fine]
        nan = int(np.isnan(wide).sum())
        tally.nan += nan
        tally.inf += len(wide) - len(finite) - nan
        wide[~fine] = 0.0
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (math.inf, -math.inf)
    size = np.abs(finite)
    tally.minimum, tally.maximum = min(tally.minimum, low), max(tally.maximum, high)
    zeros = len(finite) - int(np.count_nonzero(finite))
    tally.zeros += zeros
    if least_normal:
        tally.subnormal += int(np.count_nonzero(size < least_normal)) - zeros
    tally.l1 += float(size.sum())
    tally.moments = merge(tally.moments, block_moments(finite))
    return finite


def add_by_unit(sums: FloatArray, values: FloatArray, position: int, units: Units) -> None:
    """Adds a block's values to the sums of their units."""
    if units.length:
        add_by_row(sums, values, position, units.length)
    else:
        unit = np.arange(position, position + len(values)) % units.count
        sums += np.bincount(unit, weights=values, minlength=units.count)


def add_by_row(rows: FloatArray, values: FloatArray, position: int, length: int) -> None:
    """Adds a block's sum to each row it touches, of ``length`` elements each.

    ``position`` is the block's first element; a row may span several blocks and a block several
    rows.
    """
    first, last = position // length, (position + len(values) - 1) // length
    starts = np.arange(first, last + 1, dtype=np.int64) * length - position
    starts[0] = 0
    rows[first : last + 1] += np.add.reduceat(values, starts)


def add_bins(tally: Tally, values: NDArray[np.generic]) -> None:
    """Counts by leading bits, those of NaN and Inf in bins of their own."""
    if values.dtype == np.float32:
        high = slice(1, None, 2) if np.little_endian else slice(0, None, 2)
        keys, size = np.ascontiguousarray(values).view(np.uint16)[high], SINGLE_BINS
    else:
        wide = np.abs(values.astype(np.complex128)) if values.dtype.kind == "c" else values.astype(np.float64)
        keys, size = wide.view(np.uint64) >> np.uint64(45), DOUBLE_BINS
    _count(tally, keys, size)


def _count(tally: Tally, keys: NDArray[np.generic], size: int) -> None:
    if tally.bins is None:
        tally.bins = np.zeros(size, np.int64)
    np.add.at(tally.bins, keys.astype(np.intp), 1)


def add_codes(
    tally: Tally, codes: NDArray[np.generic], values: NDArray[np.float32], position: int, units: Units
) -> None:
    """Adds a block of 8- or 16-bit codes whose ``values`` are given, NaN and Inf as zero."""
    _count(tally, codes, len(values))
    if len(tally.units):
        for first in range(0, len(codes), STRETCH):
            wide = values[codes[first : first + STRETCH]].astype(np.float64)
            add_by_unit(tally.units, wide * wide, position + first, units)
