"""Swings around the trend that averaging does not remove."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, curve_feature, feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import block_medians, lag_correlation, point_noise, running_mean
from analyzer.features.trend import linear_span
from analyzer.model import FloatArray

COARSE = 48  # blocks: mini-batch noise has averaged out, real swings have not
FINE = 200  # points up to which a curve is taken as it is


def swings(curve: Curve) -> FloatArray:
    """Coarse curve minus its slow trend, a running mean over a fifth of the run.

    A mean and not a median: the median of a window over a periodic signal follows the signal.
    """
    curve.need(10)
    if curve.span <= 0:
        raise Unavailable(f"{curve.role} never changes", (curve.role,))
    return residual_swings(curve.linear)


def residual_swings(values: FloatArray) -> FloatArray:
    """Values minus their running mean over a fifth of them, in coarse blocks where they are many."""
    coarse = block_medians(values, COARSE) if len(values) > FINE else values
    return np.asarray(coarse - running_mean(coarse, max(5, len(coarse) // 5 | 1)))


def amplitude(residual: FloatArray) -> float:
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
    return curve.over(middle, float(curve.steps[-1]), amplitude(half) / linear_span(curve))


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
    early, late = amplitude(residual[:third]), amplitude(residual[-third:])
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
    """White noise of sigma s leaves 2.56 s / sqrt(b) between the 10th and 90th percentile of means
    of b points, 1.25 times that of medians."""
    if curve.n < 2 * COARSE:
        raise Unavailable(f"{curve.role} has too few points to average batch noise out", (curve.role,))
    residual = swings(curve)
    half = residual[len(residual) // 2 :]
    late = curve.linear[curve.n // 2 :]
    expected = 2.56 * 1.25 * point_noise(late) / np.sqrt(curve.n / len(residual))
    if expected <= 0:
        raise Unavailable(f"{curve.role} shows no noise to compare with", (curve.role,))
    return amplitude(half) / float(expected)


@curve_feature(
    "turning_share",
    "ratio",
    "share of points at which the {curve} turns; 2/3 is pure noise, a smooth curve is near 0",
    low=0,
    high=1,
)
def turning_share(curve: Curve) -> Value:
    curve.need(6)
    sign = np.sign(np.diff(block_medians(curve.linear, COARSE)))
    return float(np.mean(sign[1:] * sign[:-1] < 0))


@curve_feature("swing_memory", "ratio", "lag-1 correlation of the {curve}'s swings", low=-1, high=1)
def swing_memory(curve: Curve) -> Value:
    return lag_correlation(swings(curve), 1)


@feature(
    "train_loss.per_epoch",
    "flag",
    "1 where each point of the training loss averages an epoch: batch noise is gone from it",
    low=0,
    high=1,
)
def per_epoch(context: Context) -> Value:
    """By the axis, by the epochs that pass between points, or by a validation after every step."""
    train = context.curve("train_loss")
    train.need(2)
    if train.axis == "epoch":
        return 1.0
    for series in context.run.by_role("epoch"):
        if series.points >= 2 and series.axis == train.axis and np.ptp(series.steps) > 0:
            per_step = np.ptp(series.values) / np.ptp(series.steps)
            return float(per_step * train.length / (train.n - 1) > 0.9)
    if not context.has("val_loss"):
        raise Unavailable("nothing tells whether a point is a batch or an epoch", ("epoch",))
    every_step = float(np.median(np.diff(train.steps))) == 1.0
    return float(every_step and train.n <= 1.2 * context.curve("val_loss").n)
