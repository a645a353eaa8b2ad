"""Types of 8 and 16 bits: each code's value, and the statistics that follow from counted codes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.onepass.moments import counted_moments, product_sum
from analyzer.checkpoints.onepass.tally import Tally
from analyzer.checkpoints.regions import DTYPES, widen
from analyzer.model import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """The values of all codes of a type, and which of them are subnormal."""

    values: FloatArray
    subnormal: NDArray[np.bool_]
    finite: NDArray[np.float32]  # NaN and Inf as zero


_LEAST_NORMAL = {
    "float64": 2.0**-1022,
    "float32": 2.0**-126,
    "float16": 2.0**-14,
    "bfloat16": 2.0**-126,
    "float8_e4m3fn": 2.0**-6,
    "float8_e5m2": 2.0**-14,
    "float8_e4m3fnuz": 2.0**-7,
    "float8_e5m2fnuz": 2.0**-15,
}


def least_normal(dtype: str) -> float:
    """Smallest normal number of an element type; 0 for those without subnormals."""
    return _LEAST_NORMAL.get(dtype, 0.0)


@cache
def codes_of(dtype: str) -> Codes | None:
    """The codes of an element type; None for those of more than 16 bits."""
    if dtype not in DTYPES or DTYPES[dtype].size > 2:
        return None
    raw = np.arange(256 ** DTYPES[dtype].size).astype(f"u{DTYPES[dtype].size}")
    values = widen(raw.view(DTYPES[dtype].raw), DTYPES[dtype]).astype(np.float64)
    size = np.abs(values)
    small = (size > 0) & (size < least_normal(dtype))
    return Codes(values, small, np.where(np.isfinite(values), values, 0.0).astype(np.float32))


def settle(tally: Tally) -> None:
    """Fills in everything that follows from the counts, where codes were counted."""
    codes = codes_of(tally.coded)
    if tally.bins is None or codes is None:
        return
    used = np.flatnonzero(tally.bins != 0)
    values, counts = codes.values[used], tally.bins[used]
    fine = np.isfinite(values)
    tally.nan = int(counts[np.isnan(values)].sum())
    tally.inf = int(counts[~fine].sum()) - tally.nan
    tally.subnormal = int(counts[codes.subnormal[used]].sum())
    values, counts = values[fine], counts[fine]
    if not len(values):
        return
    tally.zeros = int(counts[values == 0].sum())
    tally.minimum, tally.maximum = float(values.min()), float(values.max())
    tally.l1 = product_sum(np.abs(values), counts)
    tally.moments = counted_moments(values, counts)
