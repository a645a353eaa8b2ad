"""Moments up to order four, mergeable: of a block, of many blocks, of counted values.

Deviations are taken about the block's own mean, and blocks are merged by the update formulas of
Chan, Golub & LeVeque (1983) and Pébay (2008, SAND2008-6212), so neither a large mean nor many
elements cost accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.model import FloatArray

FAR = 8.0  # mean over standard deviation above which powers about zero lose digits of the fourth moment


@dataclass(slots=True)
class Moments:
    """Count, mean and sums of powers 2 to 4 of the deviations from the mean."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0


def from_power_sums(n: int, s1: float, s2: float, s3: float, s4: float, pivot: float = 0.0) -> Moments:
    """Moments from the sums of powers 1 to 4 of the deviations from ``pivot``."""
    if n == 0:
        return Moments()
    d = s1 / n
    return Moments(
        n,
        pivot + d,
        max(0.0, s2 - d * s1),
        s3 - d * (3 * s2 - 2 * d * s1),
        max(0.0, s4 - d * (4 * s3 - d * (6 * s2 - 3 * d * s1))),
    )


def from_rows(n: FloatArray, sums: FloatArray, pivots: FloatArray) -> Moments:
    """Moments of several samples together: each has its count, sums of powers 1 to 4, and pivot."""
    s1, s2, s3, s4 = sums.T
    d = s1 / n
    m2 = np.maximum(0.0, s2 - d * s1)
    m3 = s3 - d * (3 * s2 - 2 * d * s1)
    m4 = np.maximum(0.0, s4 - d * (4 * s3 - d * (6 * s2 - 3 * d * s1)))
    means, total = pivots + d, float(n.sum())
    mean = float((n * means).sum()) / total
    e = means - mean
    return Moments(
        int(total),
        mean,
        float((m2 + n * e**2).sum()),
        float((m3 + e * (3 * m2 + n * e**2)).sum()),
        float((m4 + e * (4 * m3 + e * (6 * m2 + n * e**2))).sum()),
    )


def far_from_zero(moments: Moments) -> bool:
    """True when power sums about zero were too coarse: take them again about ``moments.mean``."""
    return moments.count * moments.mean * moments.mean > FAR**2 * moments.m2


def block_moments(x: FloatArray) -> Moments:
    """Moments of finite values."""
    found = from_power_sums(len(x), *_power_sums(x))
    if far_from_zero(found):
        found = from_power_sums(len(x), *_power_sums(x - found.mean), pivot=found.mean)
    return found


def _power_sums(x: FloatArray) -> tuple[float, float, float, float]:
    squares = x * x
    return float(x.sum()), float(squares.sum()), product_sum(squares, x), product_sum(squares, squares)


def product_sum(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Sum of a · b. A BLAS library would start threads for a vector as short as ten thousand."""
    return float(np.einsum("i,i->", a, b))


def counted_moments(values: FloatArray, counts: NDArray[np.integer]) -> Moments:
    """Moments of finite ``values`` that occur ``counts`` times."""
    n = int(counts.sum())
    if n == 0:
        return Moments()
    mean = float((values * counts).sum()) / n
    d = values - mean
    d2 = d * d
    return Moments(n, mean, *(product_sum(counts, power) for power in (d2, d2 * d, d2 * d2)))


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
        + delta * step * step * step * na * nb * (na * na - na * nb + nb * nb)
        + 6 * step * step * (na * na * b.m2 + nb * nb * a.m2)
        + 4 * step * (na * b.m3 - nb * a.m3)
    )
    return Moments(n, a.mean + step * nb, m2, m3, m4)
