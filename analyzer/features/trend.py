"""Where a curve starts, ends, is best, and how it moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analyzer.features import Context, Value, curve_feature, feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import (
    Z_CAP,
    capped_ratio,
    kendall_tau,
    mann_kendall_z,
    median,
    point_noise,
    running_median,
    theil_sen,
)
from analyzer.features.spikes import without_jumps
from analyzer.model import Measurement

LOSSES = ("train_loss", "val_loss")
AGREES = 0.3  # of ln K: how far a loss may lie from it that is to bear out an accuracy of 1 / K
ON_SCALE = 10.0  # times the loss of guessing among many classes: a higher one is no mean cross-entropy
LEARNED = 0.2  # of an accuracy: one that rose so far does not stand at the level of guessing
MOSTLY = 0.75  # of a stretch: a curve that swings comes back now and then


@curve_feature("points", "count", "number of finite points of the {curve}", low=0)
def points(curve: Curve) -> Value:
    return curve.n


@curve_feature("start", "value", "level of the {curve} at the start, as logged")
def start(curve: Curve) -> Value:
    curve.need(1)
    return curve.at(curve.first_step, curve.to_raw(curve.start))


@curve_feature("end", "value", "level of the {curve} at the end (median of the last tenth), as logged")
def end(curve: Curve) -> Value:
    curve.need(1)
    return Measurement(curve.to_raw(curve.end))


@curve_feature("min", "value", "best level of the {curve}, smoothed, as logged", label="best {curve}")
def best(curve: Curve) -> Value:
    curve.need(1)
    return curve.at(curve.best_step, curve.to_raw(curve.best))


@curve_feature("last", "value", "last logged value of the {curve}", label="last {curve}")
def last(curve: Curve) -> Value:
    curve.need(1)
    return curve.at(float(curve.steps[-1]), float(curve.raw[-1]))


@curve_feature(
    "best", "value", "logged value of the {curve} at the step at which it is best", label="best {curve}"
)
def logged_best(curve: Curve) -> Value:
    """Not smoothed: what a reader finds in the log at that step."""
    curve.need(1)
    at = int(np.searchsorted(curve.steps, curve.best_step))
    return curve.at(curve.best_step, float(curve.raw[at]))


@curve_feature("min_step", "step", "step at which the {curve} is best", label="best {curve}")
def min_step(curve: Curve) -> Value:
    curve.need(1)
    return curve.at(curve.best_step, curve.best_step)


@curve_feature(
    "min_position", "ratio", "share of the run after which the {curve} is best", low=0, high=1, label="best"
)
def min_position(curve: Curve) -> Value:
    curve.need(3)
    return curve.at(curve.best_step, curve.position(curve.best_step))


@curve_feature(
    "descent", "ratio", "best improvement of the {curve} relative to its start value", label="improvement"
)
def descent(curve: Curve) -> Value:
    curve.need(2)
    return Measurement(_relative(curve, curve.best))


@curve_feature("final_descent", "ratio", "improvement of the {curve} from its start to its end, relative")
def final_descent(curve: Curve) -> Value:
    curve.need(2)
    return Measurement(_relative(curve, curve.end))


def _relative(curve: Curve, level: float) -> float:
    first, raw = curve.to_raw(curve.start), curve.to_raw(level)
    if curve.direction == "higher":
        raise Unavailable(f"{curve.role} grows; its relative descent means nothing", (curve.role,))
    if min(first, raw) <= 0:
        raise Unavailable(f"{curve.role} is not positive, so it has no relative scale", (curve.role,))
    return (first - raw) / first


@curve_feature("drop_z", "sigma", "descent of the {curve} against its noise level", label="descent")
def drop_z(curve: Curve) -> Value:
    curve.need(4)
    return Measurement(capped_ratio(curve.start - curve.best, max(curve.level_noise(), curve.noise)))


@curve_feature(
    "start_z",
    "sigma",
    "first twentieth of the {curve} above all that follows, against the noise of its level",
    label="start above the rest",
    roles=LOSSES,
)
def start_z(curve: Curve) -> Value:
    curve.need(9)
    first = max(2, curve.n // 20)
    above = float(np.median(curve.cost[:first]) - np.median(curve.cost[first:]))
    return capped_ratio(above, 1.25 * curve.noise / float(np.sqrt(first)))


@curve_feature(
    "trend_z",
    "sigma",
    "significance of the {curve}'s trend over the whole run; positive means getting worse",
    label="trend",
)
def trend_z(curve: Curve) -> Value:
    curve.need(5)
    return Measurement(mann_kendall_z(curve.blocks))


@curve_feature(
    "rise_from_min",
    "ratio",
    "how far the {curve} ends above its best level, relative to that level",
    low=0,
    label="rise above the best",
)
def rise_from_min(curve: Curve) -> Value:
    curve.need(3)
    return curve.over(curve.best_step, float(curve.steps[-1]), _relative_rise(curve, curve.best, curve.end))


def _relative_rise(curve: Curve, best: float, last: float) -> float:
    """Of two costs, by what share of the better one the other is worse."""
    best, last = curve.to_raw(best), curve.to_raw(last)
    if curve.direction == "higher":
        best, last = _error(curve, best), _error(curve, last)
    if best <= 0:
        raise Unavailable(f"the best {curve.role} is not positive, so a relative rise means nothing", ())
    return last / best - 1


def _error(curve: Curve, value: float) -> float:
    """A score of at most 1 (or 100) as the error that is left."""
    if np.min(curve.raw) < 0 or np.max(curve.raw) > 100:
        raise Unavailable(f"{curve.role} has no known upper bound", (curve.role,))
    return curve.top - value


@curve_feature(
    "regain",
    "ratio",
    "share of the way the {curve} covered that it lost again by the end",
    low=0,
    high=1,
    label="progress lost again",
)
def regain(curve: Curve) -> Value:
    curve.need(3)
    if curve.span <= 0:
        raise Unavailable(f"{curve.role} never changes", (curve.role,))
    return curve.over(curve.best_step, float(curve.steps[-1]), (curve.end - curve.best) / curve.span)


@curve_feature(
    "rise_z",
    "sigma",
    "how far the {curve} ends above its best level, against what the minimum of noise would give",
    label="rise",
)
def rise_z(curve: Curve) -> Value:
    """End minus best in units of the level noise, less sqrt(2 ln k).

    The lowest of k noisy levels lies about sqrt(2 ln k) sigma below their mean, so a flat noisy
    curve scores about 0.
    """
    curve.need(5)
    after = curve.cost[int(np.searchsorted(curve.steps, curve.best_step)) :]
    noise = curve.level_noise(after if len(after) >= 8 else None)
    levels = max(2.0, len(curve.blocks) / curve.width)
    z = capped_ratio(curve.end - curve.best, noise)
    if z >= Z_CAP:
        return Measurement(z)
    return Measurement(z - float(np.sqrt(2 * np.log(levels))))


@curve_feature(
    "rise_before_z",
    "sigma",
    "how far the {curve} ends above its best level, against the noise before the best: what follows may be chaos",
    label="rise against the noise before it",
)
def rise_before_z(curve: Curve) -> Value:
    curve.need(8)
    best = int(np.searchsorted(curve.steps, curve.best_step))
    if best < 6:
        raise Unavailable(f"{curve.role} is best within its first points", (curve.role,))
    averaged = np.sqrt(max(1.0, min(best / 3, curve.block_size * curve.width)))
    noise = 1.25 * max(point_noise(curve.cost[: best + 1]), curve.rounding) / averaged
    return capped_ratio(curve.end - curve.best, float(noise))


@curve_feature(
    "rise_share",
    "ratio",
    "share of the run, counted from its end, that stays above half of the final rise over the best level but for a "
    "quarter of it",
    low=0,
    high=1,
    label="worse than its best",
)
def rise_share(curve: Curve) -> Value:
    curve.need(4)
    height = curve.end - curve.best
    if height <= 0:
        return 0.0
    above = curve.smooth > curve.best + 0.5 * height
    mostly = np.cumsum(above[::-1])[::-1] >= MOSTLY * np.arange(len(above), 0, -1)
    begins = curve.best_block + np.flatnonzero((above & mostly)[curve.best_block :])
    if not len(begins):
        return 0.0
    first = int(begins[0])
    begin = float(curve.block_steps[first])
    return curve.over(begin, float(curve.steps[-1]), 1 - curve.position(begin))


@curve_feature(
    "rise_novelty",
    "ratio",
    "length of the final stretch of the {curve} above half of its final rise, against the longest earlier one after "
    "the curve was first below; near 1 where it goes up and down all the time",
    low=0,
    label="length of the rise against earlier ones",
)
def rise_novelty(curve: Curve) -> Value:
    curve.need(8)
    above = curve.smooth > curve.best + 0.5 * (curve.end - curve.best)
    above = running_median(above[int(np.argmin(above)) :].astype(np.float64), len(above) // 20 | 1) > 0.5
    edges = np.flatnonzero(np.diff(np.concatenate([[0], above.astype(int), [0]])))
    stretches = edges[1::2] - edges[::2]
    last = int(stretches[-1]) if len(stretches) and above[-1] else 0
    earlier = stretches[: len(stretches) - (last > 0)]
    return last / max(1, int(earlier.max())) if len(earlier) else float(last)


@curve_feature(
    "early_burst",
    "ratio",
    "highest level of the {curve} within its first fifth over its very start; 1 where it only falls",
    low=1,
    label="burst at the start",
    roles=LOSSES,
)
def early_burst(curve: Curve) -> Value:
    """By medians of three points, so that no single batch is a burst."""
    curve.need(20)
    first = float(curve.raw[0])
    if np.min(curve.raw) <= 0:
        raise Unavailable(f"{curve.role} is not positive, so it has no relative scale", (curve.role,))
    early = running_median(curve.raw[: max(6, curve.n // 5)], 3)
    top = int(np.argmax(early))
    return curve.at(float(curve.steps[top]), max(1.0, float(early[top]) / first))


@curve_feature(
    "rise_kept",
    "ratio",
    "share of the {curve} after its best level that is above 0.4 of the final rise; a loss that swings comes back down "
    "half of the time",
    low=0,
    high=1,
    label="kept up since the best",
)
def rise_kept(curve: Curve) -> Value:
    curve.need(8)
    after = curve.smooth[curve.best_block + curve.width :]
    if len(after) < 0.1 * len(curve.smooth) or curve.end <= curve.best:
        return 0.0
    return float(np.mean(after > curve.best + 0.4 * (curve.end - curve.best)))


@feature(
    "train_loss.resume_jump",
    "ratio",
    "highest jump of the training loss where a resumed log went back, as a share of its final rise over its best level",
    low=0,
    label="rise where the run was resumed",
)
def resume_jump(context: Context) -> Value:
    """Between the medians of the five points before and after."""
    curve = context.curve("train_loss")
    curve.need(8)
    seams = {step for s in context.run.by_role("train_loss") if s.tag == curve.tag for step in s.rewinds}
    if not seams or curve.end <= curve.best:
        raise Unavailable("the run was not resumed, or its loss did not rise", ("train_loss",))
    jumps = {step: _jump_at(curve, step) for step in seams}
    highest = max(jumps, key=lambda step: jumps[step])
    return curve.at(highest, max(0.0, jumps[highest]) / (curve.end - curve.best))


def _jump_at(curve: Curve, step: float) -> float:
    at = int(np.searchsorted(curve.steps, step))
    before, after = curve.cost[max(0, at - 5) : at], curve.cost[at : at + 5]
    return median(after) - median(before) if len(before) and len(after) else 0.0


@curve_feature(
    "recovered",
    "ratio",
    "share of the {curve}'s highest rise over its best level, after that, which it had regained by the end",
    low=0,
    high=1,
)
def recovered(curve: Curve) -> Value:
    curve.need(8)
    peak = float(np.max(curve.smooth[curve.best_block :]))
    if peak <= curve.best:
        raise Unavailable(f"{curve.role} does not rise after its best", (curve.role,))
    return min(1.0, max(0.0, (peak - curve.end) / (peak - curve.best)))


@curve_feature(
    "tail_trend",
    "ratio",
    "change of the {curve} over the last 30 % of the run by its Theil-Sen slope, relative to the whole "
    "way it covered; negative means still improving",
    label="slope at the end",
)
def tail_trend(curve: Curve) -> Value:
    return _trend_over(curve, 0.3)


@curve_feature(
    "last_trend",
    "ratio",
    "change of the {curve} over the last 10 % of the run by its Theil-Sen slope, relative to the whole way",
    label="slope at the end",
)
def last_trend(curve: Curve) -> Value:
    """By the slope of the last fifth, or of the last 30 %, where fewer hold too few points."""
    share = 0.1 if curve.n >= 1000 else 0.2 if curve.n >= 50 else 0.3
    tail = _trend_over(curve, share)
    return replace(tail, value=tail.value * 0.1 / share)


def _trend_over(curve: Curve, share: float) -> Measurement:
    curve.need(5)
    if curve.span <= 0:
        raise Unavailable(f"{curve.role} never changes", (curve.role,))
    part = curve.tail(share)
    if part.stop - part.start < 3:
        part = slice(curve.n - 3, curve.n)
    steps, cost = curve.steps[part], without_jumps(curve)[part]
    change = theil_sen(steps, cost) * share * curve.length / curve.linear_span
    return curve.over(float(steps[0]), float(steps[-1]), change)


@curve_feature(
    "tail_z",
    "sigma",
    "significance of the {curve}'s trend over the last 30 % of the run; negative means still improving",
    label="trend at the end",
)
def tail_z(curve: Curve) -> Value:
    curve.need(8)
    part = curve.tail(0.3)
    if part.stop - part.start < 4:
        part = slice(curve.n - 4, curve.n)
    return Measurement(mann_kendall_z(curve.cost[part]))


@curve_feature(
    "half_z",
    "sigma",
    "significance of the {curve}'s trend over the second half of the run; negative means still improving",
    label="trend of the second half",
)
def half_z(curve: Curve) -> Value:
    curve.need(12)
    return Measurement(mann_kendall_z(curve.cost[curve.tail(0.5)]))


@curve_feature(
    "trend_tau",
    "ratio",
    "Kendall rank correlation of the {curve} with time; -1 improves throughout, 1 worsens throughout",
    low=-1,
    high=1,
    label="trend",
)
def trend_tau(curve: Curve) -> Value:
    curve.need(5)
    return Measurement(kendall_tau(curve.blocks))


@curve_feature(
    "tail_tau",
    "ratio",
    "Kendall rank correlation of the {curve} with time over the last 30 % of the run",
    low=-1,
    high=1,
    label="trend at the end",
)
def tail_tau(curve: Curve) -> Value:
    curve.need(8)
    part = curve.tail(0.3)
    if part.stop - part.start < 4:
        part = slice(curve.n - 4, curve.n)
    return Measurement(kendall_tau(curve.cost[part], 60))


@curve_feature(
    "slope_decay",
    "ratio",
    "slope of the {curve} over the last third against that over the first third; 1 is a straight line",
    label="late against early slope",
    roles=LOSSES,
)
def slope_decay(curve: Curve) -> Value:
    curve.need(9)
    third = curve.n // 3
    early = theil_sen(curve.steps[:third], curve.cost[:third])
    late = theil_sen(curve.steps[-third:], curve.cost[-third:])
    if not early < 0:
        raise Unavailable(f"{curve.role} does not fall in its first third", (curve.role,))
    return Measurement(late / early)


def _thirds(curve: Curve) -> tuple[float, float, float]:
    """Level of each third of the curve: more points against noise than any slope has."""
    curve.need(9)
    third = curve.n // 3
    parts = (curve.cost[:third], curve.cost[third:-third], curve.cost[-third:])
    early, middle, late = (float(np.median(part)) for part in parts)
    return early, middle, late


@curve_feature(
    "straightness",
    "ratio",
    "fall of the {curve} from its middle to its last third against that from its first to its middle third; 1 is a "
    "straight line, a curve that bends is near 0",
    label="late against early fall",
    roles=LOSSES,
)
def straightness(curve: Curve) -> Value:
    early, middle, late = _thirds(curve)
    if not middle < early:
        raise Unavailable(f"{curve.role} does not fall from its first to its middle third", (curve.role,))
    return capped_ratio(middle - late, early - middle)


@curve_feature(
    "fall_z",
    "sigma",
    "fall of the {curve} from its first to its last third against the noise of these levels",
    label="fall",
    roles=LOSSES,
)
def fall_z(curve: Curve) -> Value:
    """A median of m points has a standard error of 1.25 sigma / sqrt(m)."""
    early, _, late = _thirds(curve)
    error = 1.25 * curve.noise * np.sqrt(2 / (curve.n // 3))
    return capped_ratio(early - late, float(error))


@curve_feature(
    "head_fall",
    "ratio",
    "fall of the {curve} from its first twentieth to its first third, against that from the first to the last third; "
    "0.2 for a straight line, large where most was gained at once",
    label="fall at the start against later",
    roles=LOSSES,
)
def head_fall(curve: Curve) -> Value:
    early, _, late = _thirds(curve)
    if not late < early:
        raise Unavailable(f"{curve.role} does not fall from its first to its last third", (curve.role,))
    return capped_ratio(float(np.median(curve.cost[: max(1, curve.n // 20)])) - early, early - late)


@curve_feature(
    "rising_run",
    "count",
    "points at the end of the {curve} that are each worse than the one before",
    low=0,
    label="worse from point to point at the end",
)
def rising_run(curve: Curve) -> Value:
    curve.need(3)
    better = np.flatnonzero(np.diff(curve.cost) <= 0)
    run = curve.n - 1 - (int(better[-1]) + 1 if len(better) else 0)
    return curve.over(float(curve.steps[curve.n - 1 - run]), float(curve.steps[-1]), float(run))


@curve_feature(
    "every_lower",
    "flag",
    "1 where each point of the {curve} is better than the one before",
    low=0,
    high=1,
    label="better at every point",
    roles=("val_loss",),
)
def every_lower(curve: Curve) -> Value:
    curve.need(2)
    return float(np.all(np.diff(curve.cost) < 0))


@curve_feature(
    "last_pace",
    "ratio",
    "gain of the {curve} with its last point against its mean gain per point; 1 is a straight line, a curve that has "
    "levelled out is near 0",
    label="last gain against the mean one",
    roles=("val_loss",),
)
def last_pace(curve: Curve) -> Value:
    curve.need(3)
    mean = float(curve.cost[0] - curve.cost[-1]) / (curve.n - 1)
    if mean <= 0:
        raise Unavailable(f"{curve.role} ends no better than it began", (curve.role,))
    return float(curve.cost[-2] - curve.cost[-1]) / mean


@curve_feature(
    "rise_tau",
    "ratio",
    "Kendall rank correlation of the {curve} with time from its best point on; 1 where it gets worse throughout",
    low=-1,
    high=1,
    label="getting worse since the best",
)
def rise_tau(curve: Curve) -> Value:
    curve.need(4)
    after = curve.cost[int(np.searchsorted(curve.steps, curve.best_step)) :]
    if len(after) < 4:
        raise Unavailable(f"fewer than 3 points of {curve.role} follow the best one", (curve.role,))
    return curve.over(curve.best_step, float(curve.steps[-1]), kendall_tau(after))


@curve_feature(
    "floor_rise",
    "ratio",
    "how far even the best of the last quarter (of fewer than 8 points, third) of the {curve} lies above the best before "
    "it, relative to that",
    label="best of the last quarter above the best before",
)
def floor_rise(curve: Curve) -> Value:
    """The lower envelope: blind to upward spikes, however many, and hardly moved by noise."""
    curve.need(3)
    late = curve.n // 4 if curve.n >= 8 else curve.n // 3
    best, last = (float(np.min(part)) for part in (curve.cost[:-late], curve.cost[-late:]))
    at = float(curve.steps[int(np.argmin(curve.cost[:-late]))])
    return curve.over(at, float(curve.steps[-1]), _relative_rise(curve, best, last))


@curve_feature(
    "rise_trend_z",
    "sigma",
    "significance of the {curve}'s trend over all that follows its best point; positive means getting worse",
    label="trend since the best",
)
def rise_trend_z(curve: Curve) -> Value:
    """Without the best point itself, which lies below what follows by choice."""
    curve.need(6)
    after = curve.cost[int(np.searchsorted(curve.steps, curve.best_step)) + 1 :]
    if len(after) < 5:
        raise Unavailable(f"fewer than 5 points of {curve.role} follow the best one", (curve.role,))
    return curve.over(curve.best_step, float(curve.steps[-1]), mann_kendall_z(after))


@curve_feature(
    "early_share",
    "ratio",
    "share of the {curve}'s whole descent reached within the first tenth of the run (at least 3 points)",
    low=0,
    high=1,
    roles=LOSSES,
)
def early_share(curve: Curve) -> Value:
    curve.need(10)
    if curve.drop <= 0:
        raise Unavailable(f"{curve.role} never falls", (curve.role,))
    first = curve.block_steps <= curve.first_step + 0.1 * curve.length
    reached = float(np.min(curve.smooth[: max(3, int(first.sum()))]))
    return min(1.0, max(0.0, (curve.start - reached) / curve.drop))


@curve_feature("level_ratio", "ratio", "final level of the {curve} against its start", roles=LOSSES, low=0)
def level_ratio(curve: Curve) -> Value:
    curve.need(2)
    return Measurement(1 - _relative(curve, curve.end))


@curve_feature(
    "constant",
    "flag",
    "1 where the {curve} has the same value at every point",
    low=0,
    high=1,
    label="constant",
)
def constant(curve: Curve) -> Value:
    curve.need(3)
    return float(np.ptp(curve.raw) == 0)


@feature(
    "train_loss.chance_distance",
    "ratio",
    "distance of the final training loss from ln K, the loss of guessing among K classes, relative to it",
    low=0,
    label="distance from chance level",
)
def chance_distance(context: Context) -> Value:
    curve = context.curve("train_loss")
    curve.need(5)
    chance = chance_level(context)
    return abs(curve.to_raw(curve.end) - chance) / chance


@feature(
    "train_loss.guess_distance",
    "ratio",
    "distance of the final training loss from the nearest of ln 2, ln 10, ln 100 and ln 1000, relative to it: "
    "the loss of guessing where the number of classes is not known",
    low=0,
    label="distance from guessing",
)
def guess_distance(context: Context) -> Value:
    curve = context.curve("train_loss")
    curve.need(5)
    end = curve.to_raw(curve.end)
    return min(abs(end / float(np.log(k)) - 1) for k in (2, 10, 100, 1000))


def chance_level(context: Context) -> float:
    """ln K, with K from num_classes, else from an accuracy that ends near 1 / K.

    Where a noisy accuracy leaves several K, the one whose ln K is nearest to the final training
    loss; at chance level both agree, and where they do not, the accuracy is 1 / K by accident. An
    accuracy that rose there was learned, and tells no K. K is at most 1000. Raises Unavailable.
    """
    try:
        classes = context.value("hparam.num_classes")
    except Unavailable:
        classes = 0.0
    if classes >= 2:
        return float(np.log(classes))
    loss = context.curve("train_loss")
    if not 0 < loss.to_raw(loss.end) < ON_SCALE * np.log(1000):
        raise Unavailable("the training loss is not on the scale of a cross-entropy", ("num_classes",))
    for role in ("val_metric", "train_metric"):
        if context.has(role) and context.curve(role).measure == "accuracy":
            accuracy = context.curve(role)
            share = _fraction(accuracy, accuracy.end)
            if share - _fraction(accuracy, accuracy.start) > LEARNED:
                continue
            classes_at = np.arange(max(2, np.ceil(0.8 / share)), min(1000, np.floor(1.2 / share)) + 1)
            if len(classes_at):
                levels, end = np.log(classes_at), loss.to_raw(loss.end)
                level = float(levels[np.argmin(np.abs(levels - end))])
                if abs(end - level) <= AGREES * level:
                    return level
    raise Unavailable("the number of classes is not known", ("num_classes",))


def _fraction(accuracy: Curve, level: float) -> float:
    """A level of an accuracy, of at most 1; at least 1 / 1000."""
    return max(1e-3, accuracy.to_raw(level) / accuracy.top)


@feature(
    "train_loss.start_over_guess",
    "ratio",
    "first training loss of a classifier over that of guessing among as many classes as it has, or among a thousand "
    "where that is not known; sound networks start near 1",
    low=0,
    label="first loss over guessing",
)
def start_over_guess(context: Context) -> Value:
    curve = context.curve("train_loss")
    curve.need(5)
    try:
        classes = context.value("hparam.num_classes")
    except Unavailable:
        if not any(context.run.by_role(f"{split}_accuracy") for split in ("train", "val")):
            raise
        classes = 1000.0
    if not 0 < curve.to_raw(curve.end) < 2 * np.log(1000):
        raise Unavailable("the training loss is not on the scale of a cross-entropy", ("num_classes",))
    return curve.at(curve.first_step, float(curve.raw[0]) / float(np.log(max(2.0, classes))))


@feature(
    "train_loss.never_beyond_chance",
    "flag",
    "1 where the accuracy stays at 1 / K throughout and the training loss ends at ln K or above",
    low=0,
    high=1,
)
def never_beyond_chance(context: Context) -> Value:
    """Within a quarter of 1 / K from start to end: an accuracy that rises to it from below is learning."""
    chance = chance_level(context)
    role = "val_metric" if context.has("val_metric") else "train_metric"
    accuracy, loss = context.curve(role), context.curve("train_loss")
    accuracy.need(4)
    shares = accuracy.raw / accuracy.top * np.exp(chance)
    stays = np.max(shares) <= 1.25 and np.median(shares[: max(1, accuracy.n // 5)]) >= 0.75
    return float(stays and loss.to_raw(loss.end) >= 0.97 * chance)
