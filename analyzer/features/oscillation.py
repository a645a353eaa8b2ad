"""Swings around the trend that averaging does not remove."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, curve_feature, feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import (
    block_medians,
    lag_correlation,
    percentiles,
    point_noise,
    running_mean,
    running_median,
)
from analyzer.features.spikes import without_jumps
from analyzer.model import FloatArray

COARSE = 48  # blocks: mini-batch noise has averaged out, real swings have not
MEAN_NOISE = 10.0  # times validation's noise: the mean of an epoch's batches is not so noisy
NOISY = 40  # points that tell their noise from their swings
FINE = 200  # points up to which a curve is taken as it is


def swings(curve: Curve) -> FloatArray:
    """Coarse curve minus its slow trend, a running mean over a fifth of the run.

    A mean and not a median: the median of a window over a periodic signal follows the signal.
    """
    curve.need(10)
    if curve.span <= 0:
        raise Unavailable(f"{curve.role} never changes", (curve.role,))
    return residual_swings(without_jumps(curve))


def residual_swings(values: FloatArray) -> FloatArray:
    """Values minus their running mean over a fifth of them, in coarse blocks where they are many."""
    coarse = block_medians(values, COARSE) if len(values) > FINE else values
    return np.asarray(coarse - running_mean(coarse, max(5, len(coarse) // 5 | 1)))


def amplitude(residual: FloatArray) -> float:
    """Spread between the 10th and the 90th percentile."""
    low, high = percentiles(residual, 10, 90)
    return high - low


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
    return curve.over(middle, float(curve.steps[-1]), amplitude(half) / curve.linear_span)


@curve_feature(
    "scatter",
    "ratio",
    "spread of single points of the {curve} around its level in the second half of the run, relative to the way the "
    "level covered",
    low=0,
    label="scatter",
    roles=("reward",),
)
def scatter(curve: Curve) -> Value:
    curve.need(40)
    if curve.span <= 0:
        raise Unavailable(f"{curve.role} never changes", (curve.role,))
    residual = curve.linear - running_median(curve.linear, max(9, curve.n // 20 | 1))
    return amplitude(residual[curve.n // 2 :]) / curve.linear_span


@curve_feature(
    "swing_level",
    "ratio",
    "amplitude of the {curve}'s swings in the second half of the run relative to its level there",
    low=0,
    label="swings against the level",
)
def swing_level(curve: Curve) -> Value:
    residual = swings(curve)
    level = float(np.median(curve.linear[curve.n // 2 :]))
    if np.min(curve.raw) < 0 or level == 0:
        raise Unavailable(f"{curve.role} is not positive, so its level is no scale", (curve.role,))
    return amplitude(residual[len(residual) // 2 :]) / abs(level)


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
    if curve.n < NOISY:
        raise Unavailable(f"{curve.role} has too few points to average batch noise out", (curve.role,))
    residual = swings(curve)
    return _over_noise(residual[len(residual) // 2 :], curve.linear[curve.n // 2 :])


def over_noise(values: FloatArray) -> float:
    """Amplitude of the swings of ``values`` against what their point noise alone would leave."""
    if len(values) < NOISY:
        raise Unavailable("too few points to average batch noise out", ("train_loss",))
    return _over_noise(residual_swings(values), values)


def _over_noise(residual: FloatArray, values: FloatArray) -> float:
    """White noise of sigma s leaves 2.56 s / sqrt(b) between the 10th and 90th percentile of means
    of b points, 1.25 times that of medians."""
    expected = 2.56 * 1.25 * point_noise(values) / np.sqrt(len(values) / len(residual))
    if expected <= 0:
        raise Unavailable("no noise to compare with", ("train_loss",))
    return amplitude(residual) / float(expected)


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
    """By the axis, by the epochs that pass between points, or by a validation after every step.

    Where training is far noisier than validation, what was logged beside it is the loss of an epoch's last batch.
    """
    train = context.curve("train_loss")
    train.need(2)
    if context.has("val_loss") and train.noise > MEAN_NOISE * context.curve("val_loss").noise > 0:
        return 0.0
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
