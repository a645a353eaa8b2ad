"""The learning rate, and what the loss did when it changed."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.hyperparameters import known
from analyzer.features.oscillation import amplitude, over_noise, residual_swings
from analyzer.features.robust import capped_ratio, theil_sen
from analyzer.model import FloatArray, Measurement

NOTHING = 0.01  # of the highest learning rate: below it nothing is learned any more
LASTING = 0.05  # of the run
CUT = 0.6  # a drop to less than this between two logged values is a cut
ADAPTIVE = ("adam", "rmsprop", "lamb", "lion", "adabelief")
USUAL_ADAPTIVE, USUAL = 0.01, 0.1  # learning rates that few networks take more than
STEADY = 0.9  # of the value before: a schedule that falls faster falls by itself


def _lr(context: Context) -> Curve:
    curve = context.curve("learning_rate")
    curve.need(1)
    return curve


def _loss(context: Context) -> Curve:
    """The training loss, or the validation loss where that alone was logged."""
    return context.curve("train_loss") if context.has("train_loss") else context.curve("val_loss")


@feature("lr.max", "value", "highest learning rate logged, else the configured one", low=0)
def highest(context: Context) -> Value:
    if not context.has("learning_rate"):
        return context.value("hparam.learning_rate")
    return float(np.max(_lr(context).raw))


@feature(
    "lr.over_usual",
    "ratio",
    "highest learning rate over the upper end of what is usual: 0.01 for Adam and its kin, 0.1 for others or where the "
    "optimizer is not known",
    low=0,
    label="learning rate over the usual",
)
def over_usual(context: Context) -> Value:
    optimizer = str(known(context).get("optimizer", "")).lower()
    adaptive = any(name in optimizer for name in ADAPTIVE)
    return context.value("lr.max") / (USUAL_ADAPTIVE if adaptive else USUAL)


@feature("lr.final", "value", "learning rate at the end", low=0)
def final(context: Context) -> Value:
    return float(_lr(context).raw[-1])


@feature("lr.constant", "flag", "1 where the learning rate never changes", low=0, high=1)
def constant(context: Context) -> Value:
    raw = _lr(context).raw
    return float(np.ptp(raw) <= 1e-3 * np.max(np.abs(raw)))


@feature(
    "lr.final_ratio", "ratio", "final learning rate over its highest value; near 0 is annealed", low=0, high=1
)
def final_ratio(context: Context) -> Value:
    raw = _lr(context).raw
    top = float(np.max(raw))
    if top <= 0:
        raise Unavailable("the learning rate is 0 throughout", ("learning_rate",))
    return float(raw[-1]) / top


@feature(
    "lr.all_zero", "flag", "1 where the learning rate is logged as 0 at all of its points", low=0, high=1
)
def all_zero(context: Context) -> Value:
    curve = _lr(context)
    curve.need(3)
    return float(not curve.raw.any())


@feature(
    "lr.zero_share",
    "ratio",
    "share of the run, counted from its end, with a learning rate below 1 % of what it was for a twentieth of the run",
    low=0,
    high=1,
    label="learning rate near zero",
)
def zero_share(context: Context) -> Value:
    curve = _lr(context)
    low = curve.raw < NOTHING * np.quantile(curve.raw, 1 - LASTING)  # not of a peak of a few steps
    active = np.flatnonzero(~low)
    if not len(active) or active[-1] == curve.n - 1:
        return Measurement(0.0)
    begin = float(curve.steps[active[-1] + 1])
    return Measurement(1 - curve.position(begin), (begin, float(curve.steps[-1])), "train_loss")


@feature(
    "lr.trend_before_zero",
    "ratio",
    "change of the training loss per tenth of the run just before the learning rate vanished, against its way; "
    "negative means it was still falling",
)
def trend_before_zero(context: Context) -> Value:
    measured = context.measure("lr.zero_share")
    loss = _loss(context)
    if not isinstance(measured, Measurement) or measured.steps is None:
        raise Unavailable("the learning rate does not vanish before the end", ("learning_rate",))
    if loss.span <= 0:
        raise Unavailable("train_loss never changes", ("train_loss",))
    end = measured.steps[0]
    earlier = [step for step in cuts(_lr(context)) if step < end]
    begin = max(loss.first_step, end - 0.25 * loss.length, *earlier[-1:])  # a cut brings a fall of its own
    part = (loss.steps >= begin) & (loss.steps <= end)
    if part.sum() < 4:
        raise Unavailable("too few points before the learning rate vanished", ("train_loss",))
    slope = theil_sen(loss.steps[part], loss.cost[part])
    return Measurement(slope * 0.1 * loss.length / loss.span, (float(begin), float(end)), loss.role)


def cuts(curve: Curve) -> FloatArray:
    """Steps at which the learning rate, steady until then, was cut at once to less than 0.6 of what it was."""
    before, after = curve.raw[:-1], curve.raw[1:]
    earlier = np.concatenate([before[:1], before[:-1]])
    at = np.flatnonzero((after < CUT * before) & (before > STEADY * earlier) & (before > 0))
    return curve.steps[at + 1]


@feature("lr.cuts", "count", "times the learning rate was cut at once", low=0, label="learning rate cut")
def cut_count(context: Context) -> Value:
    curve = _lr(context)
    steps = cuts(curve)
    if len(steps) > 0.2 * curve.n:
        return Measurement(0.0)  # a steep continuous schedule, not cuts
    return Measurement(float(len(steps)), items=tuple(f"{s:g}" for s in steps))


@feature(
    "lr.cut_response",
    "ratio",
    "fall of the training loss right after a cut of the learning rate, beyond its trend before, against its way",
    label="fall after a learning-rate cut",
)
def cut_response(context: Context) -> Value:
    """Largest over the cuts: median of a stretch before less median of one after, less what the slope
    of the stretch before explains. That stretch is long enough to average swings out."""
    curve, loss = _lr(context), _loss(context)
    steps = cuts(curve)
    if not len(steps) or len(steps) > 0.2 * curve.n or loss.span <= 0:
        raise Unavailable("the learning rate was never cut at once", ("learning_rate",))
    best, where = -np.inf, float(steps[0])
    since = [-np.inf, *steps[:-1]]
    for previous, step in zip(since, steps, strict=True):
        fall = _fall_at(loss, float(step), float(previous))
        if fall > best:
            best, where = fall, float(step)
    if not np.isfinite(best):
        raise Unavailable("too few points around the learning-rate cuts", ("train_loss",))
    return Measurement(best / loss.span, (where, where), loss.role)


def _fall_at(loss: Curve, step: float, previous: float) -> float:
    """Before: the later half of what precedes the cut, back to another cut; after: a tenth of the run."""
    i = int(np.searchsorted(loss.steps, step))
    window = max(3, loss.n // 10)
    first = max(i // 2, int(np.searchsorted(loss.steps, previous)))
    before, after = slice(min(first, i - 3), i), slice(i, i + window)
    if i < 3 or loss.n - i < 3:
        return -np.inf
    slope = theil_sen(loss.steps[before], loss.cost[before])
    ahead = float(np.median(loss.steps[after]) - np.median(loss.steps[before]))
    fall = float(np.median(loss.cost[before]) - np.median(loss.cost[after]))
    return fall + min(0.0, slope * ahead if np.isfinite(slope) else 0.0)


@feature(
    "lr.swing_before_cut",
    "ratio",
    "amplitude of the training loss's swings up to the first cut of the learning rate, relative to the way it covered",
    low=0,
    label="swings before the learning-rate cut",
)
def swing_before_cut(context: Context) -> Value:
    loss, part = context.curve("train_loss"), _before_cut(context)
    span = (float(loss.steps[part][0]), float(loss.steps[part][-1]))
    return Measurement(amplitude(residual_swings(loss.linear[part])) / loss.linear_span, span, "train_loss")


@feature(
    "lr.swing_before_cut_over_noise",
    "ratio",
    "amplitude of the training loss's swings up to the first cut of the learning rate, against what batch noise alone "
    "would leave",
    low=0,
)
def swing_before_cut_over_noise(context: Context) -> Value:
    return over_noise(context.curve("train_loss").linear[_before_cut(context)])


def _before_cut(context: Context) -> slice:
    """The training loss's points before the first cut of the learning rate, without the first descent."""
    curve, loss = _lr(context), context.curve("train_loss")
    steps = cuts(curve)
    if not len(steps) or len(steps) > 0.2 * curve.n:
        raise Unavailable("the learning rate was never cut at once", ("learning_rate",))
    end = int(np.searchsorted(loss.steps, steps[0]))
    if end < 12 or loss.span <= 0:
        raise Unavailable("too few points before the learning-rate cut", ("train_loss",))
    return slice(end // 4, end)


@feature(
    "lr.straightness",
    "ratio",
    "fall of the training loss from its middle to its last third against that from its first to its middle third, in "
    "thirds of the learning rate summed over the steps: 1 where each unit of it bought the same, whatever the schedule",
    label="late against early fall per learning rate",
)
def straightness(context: Context) -> Value:
    curve, loss = _lr(context), context.curve("train_loss")
    loss.need(9)
    if curve.axis != loss.axis:
        raise Unavailable("the learning rate and the loss lie on different axes", ("learning_rate",))
    spent = np.cumsum(np.interp(loss.steps, curve.steps, curve.raw))
    first, second = np.searchsorted(spent, spent[-1] * np.array([1, 2]) / 3)
    parts = (loss.cost[:first], loss.cost[first:second], loss.cost[second:])
    if min(map(len, parts)) < 3:
        raise Unavailable("fewer than 3 points in a third of the summed learning rate", ("train_loss",))
    early, middle, late = (float(np.median(part)) for part in parts)
    if not middle < early:
        raise Unavailable("train_loss does not fall from its first to its middle third", ("train_loss",))
    return capped_ratio(middle - late, early - middle)


@feature("lr.restarts", "count", "times the learning rate rose again to more than twice its value", low=0)
def restarts(context: Context) -> Value:
    """Rises after the first peak, so that a warm-up is none; each from its valley to its top counts once."""
    raw = _lr(context).raw
    later = raw[int(np.argmax(raw >= 0.99 * np.max(raw))) :]
    moves = later[np.flatnonzero(np.diff(later, prepend=np.nan))]  # without what stays the same
    turns = np.flatnonzero(np.diff(np.sign(np.diff(moves)))) + 1
    ends = np.concatenate([moves[:1], moves[turns], moves[-1:]])
    return float(np.sum((ends[1:] > 2 * ends[:-1]) & (ends[1:] > 0.2 * later[0])))


@feature(
    "lr.warmup_share", "ratio", "share of the run in which the learning rate rises to its peak", low=0, high=1
)
def warmup_share(context: Context) -> Value:
    curve = _lr(context)
    peak = int(np.argmax(curve.raw >= 0.99 * np.max(curve.raw)))
    return curve.position(float(curve.steps[peak]))
