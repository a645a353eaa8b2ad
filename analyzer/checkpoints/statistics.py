"""Statistics of a checkpoint's tensors in one pass, a block at a time.

Moments are accumulated in float64 per block about the block's own mean and merged by the update
formulas of Chan, Golub & LeVeque (1983) and Pébay (2008, SAND2008-6212) for orders up to four, so
neither a large mean nor many elements cost accuracy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.regions import element_count
from analyzer.model import Checkpoint, FloatArray, IntArray, LayerStats, TensorRef

BLOCK = 1 << 18  # bytes read at a time: a block and its float64 copies stay in the second-level cache
EXACT_QUANTILES = 1 << 20  # elements up to which quantiles are exact
MAX_UNITS = 1 << 22  # output units whose norms are kept
DEAD_NORM = 1e-8  # of the median unit norm: far below what training or decay leaves in a used unit
QUANTILES = {"q01": 0.01, "q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}
_MANTISSA_BITS = 7  # of a histogram bin: values within 2**-7 of each other, relatively, share one
_HUGE, _TINY = 1e75, 1e-75  # beyond these, fourth powers leave the range of float64


@dataclass(slots=True)
class Moments:
    """Count, mean and sums of powers 2 to 4 of the deviations from the mean."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0


def block_moments(x: FloatArray) -> Moments:
    """Moments of one block of finite values. The residual of the rounded mean is corrected for."""
    n = len(x)
    if n == 0:
        return Moments()
    mean = float(x.sum()) / n
    d = x - mean
    d2 = d * d
    residual = float(d.sum()) / n
    m2 = float(d2.sum())
    m3 = float(np.dot(d2, d)) - 3 * residual * m2
    return Moments(n, mean + residual, m2 - n * residual * residual, m3, float(np.dot(d2, d2)))


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both samples together (Pébay 2008, equations 2.1 and 3.1)."""
    if a.count == 0 or b.count == 0:
        return b if a.count == 0 else a
    n, na, nb = a.count + b.count, a.count, b.count
    delta = b.mean - a.mean
    step = delta / n
    m2 = a.m2 + b.m2 + delta * step * na * nb
    m3 = a.m3 + b.m3 + delta * step * step * na * nb * (na - nb) + 3 * step * (na * b.m2 - nb * a.m2)
    m4 = (
        a.m4
        + b.m4
        + delta * step**3 * na * nb * (na * na - na * nb + nb * nb)
        + 6 * step * step * (na * na * b.m2 + nb * nb * a.m2)
        + 4 * step * (na * b.m3 - nb * a.m3)
    )
    return Moments(n, a.mean + step * nb, m2, m3, m4)


@dataclass(slots=True)
class _Sums:
    """What one pass over a tensor gathers. All values are divided by ``scale``."""

    scale: float
    moments: Moments = field(default_factory=Moments)
    minimum: float = math.inf
    maximum: float = -math.inf
    l1: float = 0.0
    squares: float = 0.0
    zeros: int = 0
    nan: int = 0
    inf: int = 0
    kept: list[FloatArray] = field(default_factory=list)  # all values, for exact quantiles
    bins: IntArray | None = None  # counts by the leading bits, for large tensors
    units: FloatArray | None = None  # sums of squares by output unit
    last: bool = False  # the units are the last axis
    position: int = 0


def layer_stats(checkpoint: Checkpoint) -> Iterator[LayerStats]:
    """Statistics of every tensor, in order; one that shares its storage with another is read once."""
    done: dict[object, LayerStats] = {}
    for ref in checkpoint.tensors:
        if ref.blocks not in done:
            done[ref.blocks] = tensor_stats(ref)
        yield replace(
            done[ref.blocks],
            name=ref.name,
            group=ref.group,
            slot=ref.slot,
            fan_in=fan_in(ref),
            checkpoint=checkpoint.path,
        )


def tensor_stats(ref: TensorRef) -> LayerStats:
    """Statistics of one tensor; of the magnitudes where it is complex.

    Raises IngestError when its bytes cannot be read.
    """
    with np.errstate(all="ignore"):
        sums = _gather(ref, 1.0)
        largest = max(abs(sums.minimum), abs(sums.maximum)) if sums.moments.count else 0.0
        if largest > _HUGE or 0 < largest < _TINY:
            sums = _gather(ref, 2.0 ** math.frexp(largest)[1] if largest < 2.0**1022 else 2.0**1022)
        return _finish(ref, sums)


def fan_in(ref: TensorRef) -> int | None:
    """Inputs of one output unit; None for vectors and lookup tables.

    PyTorch keeps ``[out, in, *kernel]``, Keras and Flax a ``kernel`` of ``[*kernel, in, out]``.
    """
    if len(ref.shape) < 2 or ref.slot or "emb" in ref.name.lower():
        return None
    return element_count(ref.shape[:-1] if units_last(ref.name) else ref.shape[1:])


def units_last(name: str) -> bool:
    """True where the output units are the last axis, as the name ``kernel`` tells."""
    return re.split(r"[./]", name)[-1].removesuffix(":0") == "kernel"


def _gather(ref: TensorRef, scale: float) -> _Sums:
    sums = _Sums(scale)
    count = element_count(ref.shape)
    sums.last = units_last(ref.name)
    if len(ref.shape) > 1 and count and ref.shape[-1 if sums.last else 0] <= MAX_UNITS:
        sums.units = np.zeros(ref.shape[-1 if sums.last else 0])
    for block in ref.blocks(BLOCK):
        _add(sums, block, count)
    return sums


def _add(sums: _Sums, block: NDArray[np.generic], count: int) -> None:
    values = _magnitudes(block)
    wide = values.astype(np.float64)
    if sums.scale != 1.0:
        wide /= sums.scale
    low, high = float(wide.min()), float(wide.max())
    finite = wide
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = ~np.isfinite(wide)
        nan = int(np.isnan(wide).sum())
        sums.nan += nan
        sums.inf += int(bad.sum()) - nan
        finite = wide[~bad]
        wide[bad] = 0.0
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (math.inf, -math.inf)
    sums.zeros += len(finite) - int(np.count_nonzero(finite))
    sums.minimum, sums.maximum = min(sums.minimum, low), max(sums.maximum, high)
    sums.l1 += float(np.abs(finite).sum())
    sums.moments = merge(sums.moments, block_moments(finite))
    _add_units(sums, wide, count)
    if count <= EXACT_QUANTILES:
        sums.kept.append(finite)
    else:
        single = values.dtype.kind == "f" and values.dtype.itemsize <= 4 and sums.scale == 1.0
        _add_bins(sums, finite.astype(np.float32) if single else finite)
    sums.position += len(wide)


def _magnitudes(block: NDArray[np.generic]) -> NDArray[np.generic]:
    """Complex numbers by their magnitude, in double precision so that squares stay in range."""
    return np.abs(block.astype(np.complex128)) if block.dtype.kind == "c" else block


def _add_units(sums: _Sums, values: FloatArray, count: int) -> None:
    """Sums of squares, of all and by unit. NaN and Inf are 0 here."""
    squares = values * values
    if sums.units is None or sums.last:
        sums.squares += float(squares.sum())
    else:
        sums.squares += add_by_row(sums.units, squares, sums.position, count)
    if sums.units is not None and sums.last:
        unit = np.arange(sums.position, sums.position + len(squares)) % len(sums.units)
        sums.units += np.bincount(unit, weights=squares, minlength=len(sums.units))


def add_by_row(rows: FloatArray, values: FloatArray, position: int, count: int) -> float:
    """Adds a block's sum to each row it touches; returns the block's sum.

    ``position`` is the block's first element among the tensor's ``count``; a row may span
    several blocks and a block several rows.
    """
    length = count // len(rows)
    first, last = position // length, (position + len(values) - 1) // length
    starts = np.arange(first, last + 1, dtype=np.int64) * length - position
    starts[0] = 0
    sums = np.add.reduceat(values, starts)
    rows[first : last + 1] += sums
    return float(sums.sum())


# --- quantiles -------------------------------------------------------------------------------------


def _add_bins(sums: _Sums, values: NDArray[np.generic]) -> None:
    """Counts by sign, exponent and seven bits of mantissa: 2**16 bins for float32, 2**19 for float64."""
    if values.dtype == np.float32:
        keys, size = values.view(np.uint32) >> np.uint32(16), 1 << 16
    else:
        keys, size = (values.view(np.uint64) >> np.uint64(45)).astype(np.uint32), 1 << 19
    counts = np.bincount(keys.astype(np.int64), minlength=size)
    sums.bins = counts if sums.bins is None else sums.bins + counts


def _bin_edges(used: IntArray, size: int) -> tuple[FloatArray, FloatArray]:
    """The values nearest to and farthest from zero that fall into the bins."""
    if size == 1 << 16:
        low = used.astype(np.uint32) << np.uint32(16)
        near, far = low.view(np.float32), (low | np.uint32(0xFFFF)).view(np.float32)
        return near.astype(np.float64), far.astype(np.float64)
    wide = used.astype(np.uint64) << np.uint64(45)
    return wide.view(np.float64), (wide | np.uint64((1 << 45) - 1)).view(np.float64)


def _binned_quantiles(bins: IntArray, low: float, high: float) -> dict[str, float]:
    """Quantiles with a relative error of at most 2**-7 (0.8 %), by interpolation within a bin."""
    used = np.flatnonzero(bins)
    near, far = _bin_edges(used, len(bins))
    order = np.argsort(near + far)
    left, right, counts = np.minimum(near, far)[order], np.maximum(near, far)[order], bins[used][order]
    ends = np.cumsum(counts)
    values = {}
    for name, q in QUANTILES.items():
        rank = q * (int(ends[-1]) - 1)
        at = int(np.searchsorted(ends, rank, side="right"))
        within = (rank - (ends[at] - counts[at]) + 0.5) / counts[at]
        value = left[at] + min(1.0, within) * (right[at] - left[at])
        values[name] = float(min(high, max(low, value)))
    return values


def _quantiles(sums: _Sums) -> dict[str, float]:
    if sums.bins is not None:
        return _binned_quantiles(sums.bins, sums.minimum, sums.maximum)
    values = np.concatenate(sums.kept)
    return dict(
        zip(QUANTILES, (float(q) for q in np.quantile(values, list(QUANTILES.values()))), strict=True)
    )


# --- the result ------------------------------------------------------------------------------------


def _finish(ref: TensorRef, sums: _Sums) -> LayerStats:
    count, scale, moments = element_count(ref.shape), sums.scale, sums.moments
    stats = LayerStats(
        name=ref.name,
        group=ref.group,
        shape=ref.shape,
        dtype=ref.dtype,
        count=count,
        mean=None,
        std=None,
        min=None,
        max=None,
        abs_max=None,
        l1=None,
        l2=None,
        zeros=sums.zeros,
        nan=sums.nan,
        inf=sums.inf,
        skew=None,
        kurtosis=None,
        slot=ref.slot,
        fan_in=fan_in(ref),
    )
    if moments.count == 0:
        return stats
    norms = _unit_norms(sums)
    return replace(
        stats,
        mean=moments.mean * scale,
        std=math.sqrt(max(0.0, moments.m2 / moments.count)) * scale,
        min=sums.minimum * scale,
        max=sums.maximum * scale,
        abs_max=max(abs(sums.minimum), abs(sums.maximum)) * scale,
        l1=_representable(sums.l1 * scale),
        l2=_representable(math.sqrt(sums.squares) * scale),
        skew=_skew(moments),
        kurtosis=_kurtosis(moments),
        quantiles={name: value * scale for name, value in _quantiles(sums).items()},
        unit_norm_min=None if norms is None else float(norms.min()),
        unit_norm_median=None if norms is None else float(np.median(norms)),
        dead_units=None if norms is None else int(np.sum(dead(norms))),
    )


def _representable(value: float) -> float | None:
    """None for a sum beyond the range of float64."""
    return value if math.isfinite(value) else None


def _unit_norms(sums: _Sums) -> FloatArray | None:
    return None if sums.units is None else np.sqrt(sums.units) * sums.scale


def dead(norms: FloatArray) -> NDArray[np.bool_]:
    """Units whose norm is zero, or next to nothing beside the median unit's."""
    return np.asarray((norms == 0) | (norms < DEAD_NORM * np.median(norms)))


def _constant(moments: Moments) -> bool:
    """True when the spread is no more than rounding: shape measures would be noise."""
    return moments.m2 <= moments.count * (abs(moments.mean) * 1e-15) ** 2


def _skew(moments: Moments) -> float | None:
    """Third standardised moment (population); None for a constant."""
    if moments.count < 2 or _constant(moments):
        return None
    return moments.m3 / moments.count / math.pow(moments.m2 / moments.count, 1.5)


def _kurtosis(moments: Moments) -> float | None:
    """Excess kurtosis (population), 0 for a Gaussian; None for a constant."""
    if moments.count < 2 or _constant(moments):
        return None
    return moments.m4 * moments.count / moments.m2**2 - 3.0
