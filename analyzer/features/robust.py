"""Robust statistics on plain arrays. Nothing here knows what a run is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from analyzer.model import FloatArray

MAD_TO_SIGMA = 1.4826  # of a normal distribution
Z_CAP = 1e6
RANKED_HALF = 12  # half a window: in narrower ones ranks do not pay
FINE_HALF = 16  # half a window, in blocks: finer ones change a median little
MOST_WINDOWED = 150_000  # values in all windows of a running median together


def median(values: FloatArray) -> float:
    """Median of finite values, NaN for none: np.median's checks take longer than its work on most curves."""
    if not len(values):
        return float("nan")
    half = len(values) // 2
    parted = np.partition(values, half)
    return float(parted[half] if len(values) % 2 else (parted[:half].max() + parted[half]) / 2)


def percentiles(values: FloatArray, *percents: float) -> tuple[float, ...]:
    """Percentiles of finite values, between two of them in proportion; on short arrays faster than numpy's."""
    ordered = np.sort(values)
    places = np.array(percents) / 100 * (len(ordered) - 1)
    return tuple(np.interp(places, np.arange(len(ordered)), ordered).tolist())


def mad_sigma(values: FloatArray) -> float:
    """Standard deviation estimated by the median absolute deviation; 0 for fewer than 2 values."""
    if len(values) < 2:
        return 0.0
    return MAD_TO_SIGMA * median(np.abs(values - median(values)))


def point_noise(values: FloatArray) -> float:
    """Noise of single points around a locally straight curve, from second differences.

    y[i] - (y[i-1] + y[i+1]) / 2 has variance 1.5 sigma^2 for white noise and vanishes on a line.
    0 for fewer than 4 values.
    """
    if len(values) < 4:
        return 0.0
    curvature = values[1:-1] - 0.5 * (values[:-2] + values[2:])
    return float(MAD_TO_SIGMA * median(np.abs(curvature)) / np.sqrt(1.5))


@lru_cache(maxsize=64)
def block_edges(n: int, blocks: int) -> np.ndarray:
    """Edges of ``min(n, blocks)`` blocks of nearly equal count over ``n`` points; not to be written to."""
    return np.linspace(0, n, min(n, blocks) + 1).astype(np.int64)


def block_medians(values: FloatArray, blocks: int) -> FloatArray:
    n = len(values)
    if n <= blocks:
        return values
    edges = block_edges(n, blocks)
    return _medians_of(values, edges[:-1], np.diff(edges), (n // blocks, n // blocks + 1))


def window_medians(values: FloatArray, first: np.ndarray, past: np.ndarray) -> FloatArray:
    """Median of each ``values[first:past]``, NaN for an empty one; windows of one size at a time."""
    sizes = past - first
    return _medians_of(values, first, sizes, np.unique(sizes[sizes > 0]))


def _medians_of(
    values: FloatArray, first: np.ndarray, sizes: np.ndarray, different: Iterable[int]
) -> FloatArray:
    """Median of so many values from each of ``first`` on, of windows whose size is one of the ``different`` ones."""
    medians = np.full(len(sizes), np.nan)
    for size in different:
        chosen = np.flatnonzero(sizes == size)
        medians[chosen] = _row_medians(values[first[chosen, None] + np.arange(size)])
    return medians


def _row_medians(rows: FloatArray) -> FloatArray:
    """Median of each row of finite values, without the checks that make np.median slow on small ones."""
    half = rows.shape[1] // 2
    parted = np.partition(rows, half, axis=1)  # for one place: for two it takes several times as long
    upper = parted[:, half]
    return np.asarray(upper if rows.shape[1] % 2 else (parted[:, :half].max(axis=1) + upper) / 2)


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
    if half < RANKED_HALF:
        return _middles(values, half, -np.inf, np.inf)
    order = np.argsort(values)
    ranks = np.empty(n, np.int16 if n < 2**15 else np.int32)  # narrow ones are told apart faster than floats
    ranks[order] = np.arange(n)
    return np.asarray(values[order[_middles(ranks, half, -1, n)]])


def _middles(values: np.ndarray, half: int, least: float, most: float) -> np.ndarray:
    """Median of each value's neighbours on both sides; at the ends, where one side has fewer, of as many on the other.

    What is left out is replaced by as many of ``least``, below all values, as of ``most``, above them.
    """
    n, width = len(values), 2 * half + 1
    padded = np.concatenate([np.full(half, least, values.dtype), values, np.full(half, most, values.dtype)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width).copy()
    place, row = np.arange(width), np.arange(half)[:, None]
    windows[:half][place > row + half] = most
    windows[n - half :][place <= row] = least
    windows.partition(half, axis=1)
    return windows[:, half].copy()


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


def theil_sen(x: FloatArray, y: FloatArray, most: int = 100) -> float:
    """Median of the slopes between all pairs of points; blocks' medians beyond ``most`` points.

    NaN for fewer than 2 distinct x. Sen (1968), https://doi.org/10.1080/01621459.1968.10480934
    """
    x, y = block_medians(x, most), block_medians(y, most)
    i, j = _pairs(len(x))
    dx, dy = x[j] - x[i], y[j] - y[i]
    usable = dx > 0
    if not usable.all():
        dx, dy = dx[usable], dy[usable]
    return median(dy / dx)


@lru_cache(maxsize=16)
def _pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pairs of ``n`` points, earlier and later; not to be written to."""
    return np.triu_indices(n, 1)


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
    i, j = _pairs(n)
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
    i, j = _pairs(len(y))
    return float(np.sign(y[j] - y[i]).mean())


def detrend(y: FloatArray) -> FloatArray:
    """Residual from the Theil-Sen line."""
    x = np.arange(len(y), dtype=np.float64)
    slope = theil_sen(x, y)
    if not np.isfinite(slope):
        return y - median(y)
    residual = y - slope * x
    return np.asarray(residual - median(residual))


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
    n = len(x)
    if n < 5:
        return 0
    centred = (x - x[0]) / (x[-1] - x[0])
    line = np.linalg.qr(np.column_stack([np.ones(n), centred]))[0]
    hinges = np.maximum(0, centred - centred[2 : n - 2, None])
    hinges -= hinges @ line @ line.T  # what a straight line does not explain of them
    left = y - line @ (line.T @ y)
    explained = (hinges @ left) ** 2 / np.einsum("ij,ij->i", hinges, hinges)
    return 2 + int(np.argmax(explained))


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
    blocks = -(-n // length)
    starts = np.random.default_rng(0).integers(0, n - length + 1, (samples, blocks))
    in_blocks = np.resize(np.append(weights, np.zeros(blocks * length - n)), (blocks, length))
    # What each stretch of residuals adds to the slope, by the block that it is put into.
    adds = in_blocks @ np.lib.stride_tricks.sliding_window_view(residual, length).T
    return np.asarray(slope + adds[np.arange(blocks), starts].sum(axis=1))


def capped_ratio(numerator: float, denominator: float, cap: float = Z_CAP) -> float:
    """``numerator / denominator`` kept within +-cap, so that a tiny noise gives no absurd number."""
    if numerator == 0:
        return 0.0
    if denominator <= abs(numerator) / cap:
        return cap if numerator > 0 else -cap
    return numerator / denominator
