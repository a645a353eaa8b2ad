"""Robust statistics on plain arrays. Nothing here knows what a run is."""

from __future__ import annotations

import bisect

import numpy as np

from analyzer.model import FloatArray

MAD_TO_SIGMA = 1.4826  # of a normal distribution
Z_CAP = 1e6
FINE_HALF = 16  # half a window, in blocks: finer ones change a median little
MOST_WINDOWED = 300_000  # values in all windows of a running median together


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
    return window_medians(values, edges[:-1], edges[1:])


def window_medians(values: FloatArray, first: np.ndarray, past: np.ndarray) -> FloatArray:
    """Median of each ``values[first:past]``, NaN for an empty one; windows of one size at a time."""
    sizes = past - first
    medians = np.full(len(sizes), np.nan)
    for size in np.unique(sizes[sizes > 0]):
        chosen = np.flatnonzero(sizes == size)
        medians[chosen] = _row_medians(values[first[chosen, None] + np.arange(size)])
    return medians


def _row_medians(rows: FloatArray) -> FloatArray:
    """Median of each row of finite values, without the checks that make np.median slow on small ones."""
    half = rows.shape[1] // 2
    if rows.shape[1] % 2:
        return np.partition(rows, half, axis=1)[:, half]
    ordered = np.partition(rows, (half - 1, half), axis=1)
    return np.asarray((ordered[:, half - 1] + ordered[:, half]) / 2)


def running_median(values: FloatArray, width: int) -> FloatArray:
    """Median over a centred window of odd ``width``, shrinking symmetrically at the ends.

    Windows that would take too long are measured on blocks of at least 33 a window, and interpolated.
    """
    n = len(values)
    half = min(width // 2, (n - 1) // 2)
    if half < 1:
        return values
    if half > FINE_HALF and n * half > MOST_WINDOWED:
        return _coarse_running_median(values, half)
    middle = _row_medians(np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1))
    return np.concatenate([_prefix_medians(values, half), middle, _prefix_medians(values[::-1], half)[::-1]])


def _prefix_medians(values: FloatArray, count: int) -> FloatArray:
    """Median of the first 1, 3, 5, ... values, ``count`` of them."""
    known = sorted(values[:1].tolist())
    medians = known[:]
    for pair in values[1 : 2 * count - 1].reshape(-1, 2).tolist():
        for value in pair:
            bisect.insort(known, value)
        medians.append(known[len(known) // 2])
    return np.array(medians)


def _coarse_running_median(values: FloatArray, half: int) -> FloatArray:
    blocks = len(values) * FINE_HALF // half
    edges = block_edges(len(values), blocks)
    centres = (edges[:-1] + edges[1:] - 1) / 2
    level = running_median(window_medians(values, edges[:-1], edges[1:]), 2 * FINE_HALF + 1)
    return np.interp(np.arange(len(values)), centres, level)


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


def bend(x: FloatArray, y: FloatArray) -> int:
    """Index at which ``y`` changes its slope: the break of the best continuous pair of lines.

    Least squares over every break that leaves 2 points on either side; for fewer than 5 points 0.
    """
    best, where = np.inf, 0
    centred = (x - x[0]) / (x[-1] - x[0])
    for k in range(2, len(x) - 2):
        design = np.column_stack([np.ones_like(centred), centred, np.maximum(0, centred - centred[k])])
        left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        if (error := float(left @ left)) < best:
            best, where = error, k
    return where


def bootstrap_slopes(y: FloatArray, samples: int = 400) -> FloatArray:
    """Slopes of the least-squares line through resamples of ``y``: the line plus blocks of its residuals.

    Moving blocks of n^(1/3) points keep neighbours together, so that slow wander counts as noise.
    The same resamples every time. Kunsch (1989), https://doi.org/10.1214/aos/1176347265
    """
    n = len(y)
    x = np.arange(n) - (n - 1) / 2
    weights = x / (x @ x)
    slope = float(weights @ y)
    residual = y - y.mean() - slope * x
    length = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(0).integers(0, n - length + 1, (samples, -(-n // length)))
    index = (starts[:, :, None] + np.arange(length)).reshape(samples, -1)[:, :n]
    return np.asarray(slope + residual[index] @ weights)


def capped_ratio(numerator: float, denominator: float, cap: float = Z_CAP) -> float:
    """``numerator / denominator`` kept within +-cap, so that a tiny noise gives no absurd number."""
    if numerator == 0:
        return 0.0
    if denominator <= abs(numerator) / cap:
        return cap if numerator > 0 else -cap
    return numerator / denominator
