"""Robust statistics on plain arrays. Nothing here knows what a run is."""

from __future__ import annotations

import itertools

import numpy as np

from analyzer.model import FloatArray

MAD_TO_SIGMA = 1.4826  # of a normal distribution
Z_CAP = 1e6


def mad_sigma(values: FloatArray) -> float:
    """Standard deviation estimated by the median absolute deviation; 0 for fewer than 2 values."""
    if len(values) < 2:
        return 0.0
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def point_noise(values: FloatArray) -> float:
    """Noise of single points around a locally straight curve, from second differences.

    y[i] - (y[i-1] + y[i+1]) / 2 has variance 1.5 sigma^2 for white noise and vanishes on a line.
    0 for fewer than 4 values.
    """
    if len(values) < 4:
        return 0.0
    curvature = values[1:-1] - 0.5 * (values[:-2] + values[2:])
    return float(MAD_TO_SIGMA * np.median(np.abs(curvature)) / np.sqrt(1.5))


def block_edges(n: int, blocks: int) -> np.ndarray:
    """Edges of ``min(n, blocks)`` blocks of nearly equal count over ``n`` points."""
    return np.linspace(0, n, min(n, blocks) + 1).astype(np.int64)


def block_medians(values: FloatArray, blocks: int) -> FloatArray:
    if len(values) <= blocks:
        return values
    edges = block_edges(len(values), blocks)
    return np.array([np.median(values[a:b]) for a, b in itertools.pairwise(edges)])


def running_median(values: FloatArray, width: int) -> FloatArray:
    """Median over a centred window of odd ``width``, shrinking symmetrically at the ends."""
    n = len(values)
    half = min(width // 2, (n - 1) // 2)
    if half < 1:
        return values
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1)
    middle = np.median(windows, axis=1)
    head = np.array([np.median(values[: 2 * i + 1]) for i in range(half)])
    tail = np.array([np.median(values[n - 2 * i - 1 :]) for i in range(half - 1, -1, -1)])
    return np.concatenate([head, middle, tail])


def running_mean(values: FloatArray, width: int) -> FloatArray:
    """Mean over a centred window of odd ``width``, shrinking symmetrically at the ends."""
    n = len(values)
    reach = np.minimum(width // 2, np.minimum(np.arange(n), np.arange(n)[::-1]))
    total = np.concatenate([[0.0], np.cumsum(values)])
    low, high = np.arange(n) - reach, np.arange(n) + reach + 1
    return np.asarray((total[high] - total[low]) / (high - low))


def theil_sen(x: FloatArray, y: FloatArray, most: int = 200) -> float:
    """Median of the slopes between all pairs of points; blocks' medians beyond ``most`` points.

    NaN for fewer than 2 distinct x. Sen (1968), https://doi.org/10.1080/01621459.1968.10480934
    """
    x, y = block_medians(x, most), block_medians(y, most)
    i, j = np.triu_indices(len(x), 1)
    dx = x[j] - x[i]
    usable = dx > 0
    if not usable.any():
        return float("nan")
    return float(np.median((y[j] - y[i])[usable] / dx[usable]))


def mann_kendall_z(y: FloatArray, most: int = 200) -> float:
    """Z statistic of the Mann-Kendall trend test, its variance widened for autocorrelation.

    Positive for a rise. The widening is by the lag-1 correlation r of the detrended values,
    n / n* = (1 + r) / (1 - r) for r > 0; ties are counted. 0 for fewer than 4 values.
    Hamed and Rao (1998), https://doi.org/10.1016/S0022-1694(97)00125-X (first lag only).
    """
    y = block_medians(y, most)
    n = len(y)
    if n < 4:
        return 0.0
    i, j = np.triu_indices(n, 1)
    s = float(np.sign(y[j] - y[i]).sum())
    _, ties = np.unique(y, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0:
        return 0.0
    r = lag_correlation(detrend(y), 1)
    variance *= (1 + max(r, 0.0)) / (1 - min(max(r, 0.0), 0.95))
    return float((s - np.sign(s)) / np.sqrt(variance))


def kendall_tau(y: FloatArray, most: int = 200) -> float:
    """Kendall's rank correlation of ``y`` with time (tau-a): -1 falls, 1 rises throughout."""
    y = block_medians(y, most)
    if len(y) < 2:
        return 0.0
    i, j = np.triu_indices(len(y), 1)
    return float(np.sign(y[j] - y[i]).mean())


def detrend(y: FloatArray) -> FloatArray:
    """Residual from the Theil-Sen line."""
    x = np.arange(len(y), dtype=np.float64)
    slope = theil_sen(x, y)
    if not np.isfinite(slope):
        return y - np.median(y)
    residual = y - slope * x
    return np.asarray(residual - np.median(residual))


def lag_correlation(y: FloatArray, lag: int) -> float:
    """Autocorrelation of ``y`` at ``lag``; 0 where it is undefined."""
    if len(y) <= lag + 2:
        return 0.0
    y = y - y.mean()
    power = float(y @ y)
    return float(y[:-lag] @ y[lag:]) / power if power > 0 else 0.0


def capped_ratio(numerator: float, denominator: float, cap: float = Z_CAP) -> float:
    """``numerator / denominator`` kept within +-cap, so that a tiny noise gives no absurd number."""
    if numerator == 0:
        return 0.0
    if denominator <= abs(numerator) / cap:
        return cap if numerator > 0 else -cap
    return numerator / denominator
