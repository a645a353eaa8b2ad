"""Swings around the trend that averaging does not remove."""

from __future__ import annotations

import numpy as np

from analyzer.features import Value, curve_feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import lag_correlation, running_median
from analyzer.model import FloatArray

COARSE = 48  # blocks: mini-batch noise has averaged out, real swings have not


def swings(curve: Curve) -> FloatArray:
    """Coarse curve minus its slow trend (a running median over a fifth of the run)."""
    curve.need(10)
    if curve.span <= 0:
        raise Unavailable(f"{curve.role} never changes", (curve.role,))
    coarse = curve.coarse(COARSE)
    return np.asarray(coarse - running_median(coarse, max(5, len(coarse) // 5 | 1)))


def _amplitude(residual: FloatArray) -> float:
    """Spread between the 10th and the 90th percentile."""
    low, high = np.percentile(residual, [10, 90])
    return float(high - low)


@curve_feature(
    "swing",
    "ratio",
    "amplitude of the {curve}'s swings in the second half of the run, batch noise averaged out, relative "
    "to the whole way it covered",
    low=0,
    label="swings",
)
def swing(curve: Curve) -> Value:
    residual = swings(curve)
    half = residual[len(residual) // 2 :]
    middle = float(curve.steps[curve.n // 2])
    return curve.over(middle, float(curve.steps[-1]), _amplitude(half) / curve.span)


@curve_feature(
    "swing_decay",
    "ratio",
    "amplitude of the {curve}'s swings in the last third against the first third after the first tenth; "
    "below 1 they die down",
    low=0,
    label="swings, late against early",
)
def swing_decay(curve: Curve) -> Value:
    residual = swings(curve)
    residual = residual[len(residual) // 10 :]
    third = len(residual) // 3
    early, late = _amplitude(residual[:third]), _amplitude(residual[-third:])
    if early <= 0:
        raise Unavailable(f"{curve.role} does not swing early on", (curve.role,))
    return late / early


@curve_feature(
    "swing_over_noise",
    "ratio",
    "amplitude of the {curve}'s swings against what batch noise alone would leave after averaging",
    low=0,
    label="swings against batch noise",
)
def swing_over_noise(curve: Curve) -> Value:
    """White noise of sigma s leaves 2.56 s / sqrt(b) between the 10th and 90th percentile."""
    residual = swings(curve)
    half = residual[len(residual) // 2 :]
    per_block = curve.n / min(curve.n, COARSE)
    expected = 2.56 * curve.noise / np.sqrt(per_block)
    if expected <= 0:
        raise Unavailable(f"{curve.role} shows no noise to compare with", (curve.role,))
    return _amplitude(half) / float(expected)


@curve_feature(
    "turning_share",
    "ratio",
    "share of points at which the {curve} turns; 2/3 is pure noise, a smooth curve is near 0",
    low=0,
    high=1,
)
def turning_share(curve: Curve) -> Value:
    curve.need(6)
    sign = np.sign(np.diff(curve.coarse(COARSE)))
    return float(np.mean(sign[1:] * sign[:-1] < 0))


@curve_feature("swing_memory", "ratio", "lag-1 correlation of the {curve}'s swings", low=-1, high=1)
def swing_memory(curve: Curve) -> Value:
    return lag_correlation(swings(curve), 1)
