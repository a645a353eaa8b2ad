"""Curves of layers read off logged histograms, for runs that logged these and no scalars."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from analyzer.model import FloatArray, Histograms, Run, Series

NARROW = 1e-6  # of the largest value: a bucket around 0 that holds nothing but zeros
PINNED = 0.97  # of its limit: where a tanh or sigmoid has a tenth of its slope or less
BOTH_ENDS = 0.05  # of a sigmoid's outputs lie at the upper end: a rectified unit's do not


def layer_series(run: Run, role: str) -> list[Series]:
    """One series a layer, of gradient norms, weight norms, zero shares or saturation, by ``role``."""
    if role not in _MEASURES:
        return []
    source, measure = _MEASURES[role]
    layers = [_series(h, role, measure(h)) for h in run.histograms if h.role == source and len(h.steps)]
    return [layer for layer in layers if layer.points]


def _series(histogram: Histograms, role: str, values: FloatArray) -> Series:
    known = np.isfinite(values)
    return Series(
        histogram.tag,
        np.asarray(histogram.steps[known], dtype=np.float64),
        np.asarray(values[known], dtype=np.float64),
        source=histogram.source,
        role=role,
        subject=histogram.subject,
    )


def _norms(histogram: Histograms) -> FloatArray:
    return np.sqrt(histogram.total_squares)


def _frames(histogram: Histograms, share: Callable[[Histograms, int, slice], float]) -> FloatArray:
    offsets = histogram.offsets
    frames = (slice(int(a), int(b)) for a, b in itertools.pairwise(offsets))
    return np.array([share(histogram, i, part) for i, part in enumerate(frames)], dtype=np.float64)


def _zero_shares(histogram: Histograms) -> FloatArray:
    return _frames(histogram, _zero_share)


def _zero_share(histogram: Histograms, frame: int, part: slice) -> float:
    """Share of elements that are exactly 0; NaN where a wide bucket hides how many are."""
    low, high = float(histogram.minimum[frame]), float(histogram.maximum[frame])
    if low == high == 0:
        return 1.0
    if low > 0 or high < 0:
        return 0.0
    left, right, counts = histogram.edges_left[part], histogram.edges_right[part], histogram.counts[part]
    around = (left <= 0) & (right >= 0) & (counts > 0)
    if np.any(right[around] - left[around] > NARROW * max(abs(low), abs(high))):
        return float("nan")
    return float(counts[around].sum() / max(1.0, counts.sum()))


def _saturations(histogram: Histograms) -> FloatArray:
    return _frames(histogram, _saturation)


def _saturation(histogram: Histograms, frame: int, part: slice) -> float:
    """Share of outputs at the limits of a tanh (-1 and 1) or a sigmoid (0 and 1); NaN for other units.

    A bucket that reaches the limit counts whole: those of the usual writers are a tenth wide there.
    """
    low, high = float(histogram.minimum[frame]), float(histogram.maximum[frame])
    counts, total = histogram.counts[part], max(1.0, float(histogram.counts[part].sum()))
    outer = np.minimum(histogram.edges_right[part], high)
    inner = np.maximum(histogram.edges_left[part], low)
    upper = float(counts[outer >= PINNED].sum()) / total
    if low < 0 and low >= -1 and high <= 1 and max(-low, high) > PINNED:
        return upper + float(counts[inner <= -PINNED].sum()) / total
    if low >= 0 and high <= 1 and upper >= BOTH_ENDS:
        return upper + float(counts[outer <= 1 - PINNED].sum()) / total
    return float("nan")


_MEASURES: dict[str, tuple[str, Callable[[Histograms], FloatArray]]] = {
    "grad_norm_layer": ("grad_hist", _norms),
    "weight_norm_layer": ("weight_hist", _norms),
    "activation_zero_fraction": ("activation_hist", _zero_shares),
    "activation_saturation": ("activation_hist", _saturations),
}
