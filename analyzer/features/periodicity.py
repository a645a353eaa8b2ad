"""Patterns that repeat with the epoch."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import block_medians, lag_correlation, running_median
from analyzer.features.spikes import find_spikes
from analyzer.model import FloatArray

OUTLYING = 6.0  # times the usual deviation: beyond it a point counts no more
CYCLES = 3  # epochs needed before a repetition can be told from chance
OWN_CYCLES = 5  # before a period is taken from the loss itself
SURELY = 0.75  # correlation a period later: 0.9 and more in sorted data, below 0.5 in swings of no period
SEARCHED = 4000  # points up to which a period is looked for
FEW_CYCLES = 12  # of epochs of fewer than 6 points


def epoch_points(context: Context) -> float:
    """Points of the training loss per epoch; raises Unavailable where it is not known.

    From the logged epoch, else from the rhythm of validation. Where less than two points fall into an epoch, a pattern
    that repeats with it shows at its alias: points that come at equal intervals sweep slowly over the epoch.
    """
    loss = context.curve("train_loss")
    loss.need(30)
    per_step = (loss.n - 1) / loss.length if loss.length > 0 else 0.0
    length = _epoch_length(context, loss) * per_step
    if 0 < length < 2:
        length = _alias(loss, length)
    if length < 3:
        raise Unavailable("fewer than 3 points of the training loss per epoch", ("train_loss",))
    cycles = CYCLES if length >= 6 else FEW_CYCLES
    if loss.n < cycles * length:
        raise Unavailable(f"fewer than {cycles} epochs", ("train_loss",))
    return float(length)


def _alias(loss: Curve, length: float) -> float:
    """Points after which the sampled position in an epoch of ``length`` points is the same again; 0 where it never moves."""
    gaps = np.diff(loss.steps)
    advance = abs(1 / length - round(1 / length))  # of an epoch, from point to point
    if np.ptp(gaps) > 0 or advance < 1e-3:
        return 0.0
    return 1 / advance


def _epoch_length(context: Context, loss: Curve) -> float:
    """Length of an epoch in steps."""
    for series in context.run.by_role("epoch"):
        known = np.isfinite(series.values)
        steps, epochs = series.steps[known], series.values[known]
        if series.axis != loss.axis or len(epochs) <= 3 or np.ptp(epochs) < 2:
            continue
        begins = np.flatnonzero(np.diff(epochs) > 0) + 1  # of whole epochs, or every point of fractional ones
        if len(begins) >= 2 and epochs[begins[-1]] > epochs[begins[0]]:
            passed = epochs[begins[-1]] - epochs[begins[0]]
            return float((steps[begins[-1]] - steps[begins[0]]) / passed)
    own = _own_period(loss) if _rate_is_calm(context) else 0.0
    if own:
        return own
    if context.has("val_loss"):
        val = context.curve("val_loss")
        rhythm = np.diff(val.steps)
        if val.axis == loss.axis and val.n >= 4 and np.ptp(rhythm) <= 0.1 * np.median(rhythm):
            return float(np.median(rhythm))
    raise Unavailable("the length of an epoch is not known", ("epoch",))


def _rate_is_calm(context: Context) -> bool:
    """Whether a learning rate was logged that neither comes back nor makes the loss swing by being too high.

    Then nothing but the data has a period.
    """
    if not context.has("learning_rate"):
        return False
    return context.value("lr.restarts") == 0 and context.value("lr.over_usual") < 1


_OWN: WeakKeyDictionary[Curve, float] = WeakKeyDictionary()


def _own_period(loss: Curve) -> float:
    """The period searched for once a curve."""
    if loss not in _OWN:
        _OWN[loss] = _search_period(loss)
    return _OWN[loss]


def _search_period(loss: Curve) -> float:
    """Steps after which the loss, which comes at equal intervals, is nearly the same again and again; 0 where never.

    The first peak of the autocorrelation after it has been below 0: validation by steps tells no epoch.
    """
    gaps = np.diff(loss.steps)
    longest = loss.n // OWN_CYCLES
    if np.ptp(gaps) > 0 or longest < 6 or loss.n > SEARCHED:
        return 0.0
    wave = loss.cost - running_median(loss.cost, 2 * longest | 1)
    wave = wave[longest:]  # what follows the first descent
    wave = np.clip(wave, -OUTLYING * np.std(wave), OUTLYING * np.std(wave))
    alike = np.array([lag_correlation(wave, lag) for lag in range(1, longest + 1)])
    below = np.flatnonzero(alike < 0)
    if not len(below):
        return 0.0
    at = int(below[0]) + int(np.argmax(alike[below[0] :]))
    return float(gaps[0]) * (at + 1) if alike[at] >= SURELY and at + 1 >= 6 else 0.0


def _deviation(loss: Curve, period: float) -> FloatArray:
    return np.asarray(loss.cost - running_median(loss.cost, round(2 * period) | 1))


def _residual(context: Context, period: float) -> FloatArray:
    """Deviation from the trend in units of its usual size in that epoch: a pattern shrinks as the loss falls."""
    deviation = _deviation(context.curve("train_loss"), period)
    epochs = max(1, round(len(deviation) / period))
    size = block_medians(np.abs(deviation), epochs)
    usual = float(np.median(size))
    if usual <= 0:
        raise Unavailable("the training loss does not vary around its trend", ("train_loss",))
    size = np.interp(np.arange(len(deviation)), (np.arange(epochs) + 0.5) * len(deviation) / epochs, size)
    return np.clip(deviation / np.maximum(size, 0.1 * usual), -OUTLYING, OUTLYING)


@feature(
    "data.epoch_period",
    "ratio",
    "share of the training loss's variation around its trend that repeats with the epoch",
    low=0,
    high=1,
    label="repeats with the epoch",
)
def epoch_period(context: Context) -> Value:
    """Variance between the means of the positions in an epoch, at most 200 of them.

    R^2 adjusted for their number, so that noise gives about 0 however few epochs there are.
    """
    period = epoch_points(context)
    residual = _residual(context, period)
    loss = context.curve("train_loss")
    half = round(period)
    residual = residual[half:] if len(residual) > (CYCLES + 1) * period else residual
    phases = int(min(200, round(period)))
    phase = ((np.arange(len(residual)) % period) / period * phases).astype(int) % phases
    total = float(np.var(residual))
    if total <= 0:
        raise Unavailable("the training loss does not vary around its trend", ("train_loss",))
    count = np.bincount(phase, minlength=phases)
    means = np.bincount(phase, residual, minlength=phases) / np.maximum(count, 1)
    explained = float(np.sum(count * (means - residual.mean()) ** 2)) / len(residual) / total
    n = len(residual)
    adjusted = 1 - (1 - explained) * (n - 1) / max(1, n - phases)
    return loss.over(loss.first_step, float(loss.steps[-1]), max(0.0, adjusted))


@feature(
    "data.epoch_correlation",
    "ratio",
    "correlation of the training loss around its trend with itself one epoch later",
    low=-1,
    high=1,
)
def epoch_correlation(context: Context) -> Value:
    """Of the points that have a partner one epoch later, so that few epochs lose nothing."""
    period = epoch_points(context)
    residual, lag = _residual(context, period), round(period)
    return float(np.corrcoef(residual[:-lag], residual[lag:])[0, 1])


@feature(
    "data.period_order",
    "ratio",
    "correlation of neighbouring positions in the part of the training loss that repeats with the epoch: near 1 "
    "where the data are sorted, near 0 where batches of mixed data merely come in a fixed order",
    low=-1,
    high=1,
    label="order within the epoch",
)
def period_order(context: Context) -> Value:
    """Lag-1 correlation of the mean profile over exact positions in the epoch."""
    period = epoch_points(context)
    residual = _residual(context, period)
    positions = round(period)
    place = np.floor(np.arange(len(residual)) % period).astype(int) % positions
    count = np.bincount(place, minlength=positions)
    profile = np.bincount(place, residual, minlength=positions) / np.maximum(count, 1)
    return lag_correlation(profile, 1)


@feature(
    "data.period_order_z",
    "sigma",
    "significance of the order within the epoch: a fixed order of mixed batches gives about 0",
    label="order within the epoch",
)
def period_order_z(context: Context) -> Value:
    """The lag-1 correlation of m unrelated positions has a standard error of 1 / sqrt(m)."""
    return context.value("data.period_order") * float(np.sqrt(round(epoch_points(context))))


@feature(
    "data.period_size",
    "ratio",
    "amplitude of the part of the training loss that repeats with the epoch, against its level",
    low=0,
)
def period_size(context: Context) -> Value:
    loss = context.curve("train_loss")
    residual = _deviation(loss, epoch_points(context))
    low, high = np.percentile(residual, [5, 95])
    if loss.span <= 0:
        raise Unavailable("train_loss never changes", ("train_loss",))
    return float(high - low) / loss.span


@feature(
    "data.spike_phase",
    "ratio",
    "how much the training loss's spikes keep to one position in the epoch; 1 is always the same",
    low=0,
    high=1,
)
def spike_phase(context: Context) -> Value:
    """Length of the mean of the phases as unit vectors (circular statistics)."""
    loss = context.curve("train_loss")
    found = find_spikes(loss)
    if len(found.steps) < 3:
        raise Unavailable("fewer than 3 spikes", ("train_loss",))
    length = _epoch_length(context, loss)
    angle = 2 * np.pi * (found.steps % length) / length
    return float(np.abs(np.mean(np.exp(1j * angle))))
