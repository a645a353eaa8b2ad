"""Training and validation against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import (
    bend,
    block_medians,
    bootstrap_slopes,
    capped_ratio,
    mann_kendall_z,
    median,
    point_noise,
    running_median,
    window_medians,
)
from analyzer.model import FloatArray, Measurement

Pair = Literal["loss", "metric"]
Feature = Callable[[Context], Value]


@dataclass(frozen=True)
class Aligned:
    """Train and validation costs at the same moments, in one unit."""

    steps: FloatArray
    train: FloatArray
    val: FloatArray
    train_span: float

    @cached_property
    def gap(self) -> FloatArray:
        return np.asarray(self.val - self.train)

    @property
    def tenth(self) -> int:
        """Moments that make a level at either end."""
        return max(1, len(self.gap) // 10)

    @property
    def first_gap(self) -> float:
        return median(self.gap[: self.tenth])

    @property
    def last_gap(self) -> float:
        return median(self.gap[-self.tenth :])

    @cached_property
    def level(self) -> FloatArray:
        """Validation, smoothed: a point by itself may be a spike."""
        return running_median(self.val, _smoothing(len(self.val)))

    @cached_property
    def best(self) -> int:
        """Index of validation's best moment, smoothed."""
        return int(np.argmin(self.level))

    @property
    def best_gap(self) -> float:
        """The smoothed gap where validation was best."""
        return float(running_median(self.gap, _smoothing(len(self.gap)))[self.best])


_ALIGNED: WeakKeyDictionary[Context, dict[Pair, Aligned]] = WeakKeyDictionary()


def aligned(context: Context, pair: Pair = "loss") -> Aligned:
    """Training cost averaged over the stretch before each validation point, computed once a run.

    Curves on different axes (steps against epochs) are laid over each other by their share of
    the run. Raises Unavailable with fewer than 3 shared moments.
    """
    known = _ALIGNED.setdefault(context, {})
    if pair not in known:
        known[pair] = _align(context, pair)
    return known[pair]


def _align(context: Context, pair: Pair) -> Aligned:
    train, val = context.curve(f"train_{pair}", averaged=True), context.curve(f"val_{pair}")
    train.need(3)
    val.need(3)
    if train.measure != val.measure:
        raise Unavailable(
            f"training logs {train.tag} and validation {val.tag}: not the same", (f"val_{pair}",)
        )
    if val.log != train.log:
        train_cost, val_cost = (c.raw if c.direction != "higher" else -c.raw for c in (train, val))
    else:
        train_cost, val_cost = train.cost, val.cost
    at = _on_axis_of(train, val)
    averaged = _average_before(train.steps, train_cost, at)
    usable = np.isfinite(averaged)
    if usable.sum() < 3:
        raise Unavailable("training and validation share fewer than 3 moments", ("train_loss", "val_loss"))
    span = float(np.max(averaged[usable]) - np.min(averaged[usable]))
    return Aligned(val.steps[usable], averaged[usable], val_cost[usable], span)


def _on_axis_of(train: Curve, val: Curve) -> FloatArray:
    """Validation's moments on the training curve's axis."""
    overlap = val.steps[-1] > train.steps[0] and val.steps[0] <= train.steps[-1] * 1.05 + 1
    if train.axis == val.axis and overlap:
        return val.steps
    share = (val.steps - val.steps[0] + val.length / max(1, val.n - 1)) / max(
        1e-12, val.length + val.length / max(1, val.n - 1)
    )
    return np.asarray(train.first_step + share * train.length)


def _average_before(steps: FloatArray, cost: FloatArray, at: FloatArray) -> FloatArray:
    """Median cost since the previous moment; the latest value where none was logged since."""
    right = np.searchsorted(steps, at, side="right")
    left = np.concatenate([[0], right[:-1]])
    left = np.maximum(left, right - 200)
    return window_medians(cost, np.where(right > left, left, np.maximum(right - 1, 0)), right)


def _smoothing(points: int) -> int:
    return max(3, points // 20 | 1) if points >= 8 else 1


def _span(value: float) -> float:
    if value <= 0:
        raise Unavailable("the training curve never changes", ("train_loss",))
    return value


def _register(pair: Pair) -> None:
    """The features of one pair of curves: losses, or metrics."""
    prefix = "gap" if pair == "loss" else "metric_gap"
    words = "loss" if pair == "loss" else "metric (as an error)"

    def named(
        name: str, unit: str, meaning: str, label: str = "", low: float = -np.inf, high: float = np.inf
    ) -> Callable[[Feature], Feature]:
        return feature(
            f"{prefix}.{name}", unit, meaning.replace("{words}", words), label=label, low=low, high=high
        )

    @named(
        "start", "ratio", "validation {words} above training at the first evaluations, against training's way"
    )
    def start(context: Context) -> Value:
        both = aligned(context, pair)
        return both.first_gap / _span(both.train_span)

    @named("end", "ratio", "validation {words} above training at the end, against training's way")
    def end(context: Context) -> Value:
        both = aligned(context, pair)
        return both.last_gap / _span(both.train_span)

    @named(
        "growth",
        "ratio",
        "growth of the gap between validation and training {words} since validation was best, against training's way",
    )
    def growth(context: Context) -> Value:
        both = aligned(context, pair)
        change = (both.last_gap - both.best_gap) / _span(both.train_span)
        return Measurement(change, (float(both.steps[both.best]), float(both.steps[-1])), f"val_{pair}")

    @named(
        "val_rise",
        "ratio",
        "rise of validation {words} since it was best, against training's way: nothing where both are of another size",
    )
    def val_rise(context: Context) -> Value:
        both = aligned(context, pair)
        return (median(both.val[-both.tenth :]) - float(both.level[both.best])) / _span(both.train_span)

    @named("growth_z", "sigma", "significance of the widening of the gap over the second half of the run")
    def growth_z(context: Context) -> Value:
        both = aligned(context, pair)
        return mann_kendall_z(both.gap[len(both.gap) // 2 :] if len(both.gap) >= 10 else both.gap)

    @named(
        "train_change_after_best",
        "ratio",
        "change of training {words} since validation was best, against its way; negative means it kept improving",
    )
    def train_change(context: Context) -> Value:
        both = aligned(context, pair)
        best = both.best
        last = max(1, (len(both.train) - best) // 5)
        change = (median(both.train[-last:]) - float(both.train[best])) / _span(both.train_span)
        return Measurement(change, (float(both.steps[best]), float(both.steps[-1])), f"train_{pair}")

    @named(
        "train_trend_after_best",
        "sigma",
        "significance of training {words}'s trend since validation was best; negative means it kept improving",
    )
    def train_trend(context: Context) -> Value:
        both = aligned(context, pair)
        after = both.train[both.best :]
        if len(after) < 4:
            raise Unavailable("fewer than 4 evaluations follow the best one", (f"val_{pair}",))
        return mann_kendall_z(after)

    @named(
        "growth_confidence",
        "ratio",
        "share of block-bootstrap resamples in which the gap between validation and training {words} widens after "
        "validation was best",
        low=0,
        high=1,
    )
    def growth_confidence(context: Context) -> Value:
        both = aligned(context, pair)
        after = both.gap[both.best :]
        if len(after) < 5:
            raise Unavailable("fewer than 5 evaluations from the best one on", (f"val_{pair}",))
        slopes = bootstrap_slopes(block_medians(after, 200))
        return float(np.mean(slopes > 0))

    @named(
        "onset",
        "step",
        "step at which the gap between validation and training {words} begins to widen, by a change of its slope",
        "gap begins to widen",
    )
    def onset(context: Context) -> Value:
        both = aligned(context, pair)
        if len(both.gap) < 6:
            raise Unavailable("fewer than 6 evaluations", (f"val_{pair}",))
        steps, gap = block_medians(both.steps, 200), block_medians(both.gap, 200)
        at = float(both.steps[np.searchsorted(both.steps, steps[bend(steps, gap)])])
        return Measurement(at, (at, at), f"val_{pair}")

    @named(
        "closed",
        "ratio",
        "share of the first gap between validation and training {words} that validation closed at its best, beyond "
        "its noise; small where it never follows training",
        "share of the first gap that validation closed",
    )
    def closed(context: Context) -> Value:
        """Smoothed, and less twice the noise of a point: the first one may be bad by chance."""
        both = aligned(context, pair)
        if both.first_gap <= 0:
            raise Unavailable("validation does not start above training", (f"val_{pair}",))
        n = len(both.val)
        level = running_median(both.val, max(3, n // 5 | 1)) if n >= 5 else both.val
        first = median(both.val[: both.tenth])
        luck = 2 * point_noise(both.val) / np.sqrt(both.tenth) if n >= 8 else 0.0
        return max(0.0, first - float(np.min(level)) - float(luck)) / both.first_gap

    @named(
        "correlation",
        "ratio",
        "rank correlation of training and validation {words} over the run",
        low=-1,
        high=1,
    )
    def correlation(context: Context) -> Value:
        both = aligned(context, pair)
        if len(both.val) < 5:
            raise Unavailable("fewer than 5 evaluations", (f"val_{pair}",))
        ranks = [np.argsort(np.argsort(x)).astype(np.float64) for x in (both.train, both.val)]
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


_register("loss")
_register("metric")


@feature(
    "gap.ratio_end",
    "ratio",
    "final validation loss over final training loss",
    low=0,
    label="validation / training",
)
def ratio_end(context: Context) -> Value:
    return _ratio(context, slice(-aligned(context).tenth, None))


@feature("gap.ratio_start", "ratio", "validation loss over training loss at the first evaluations", low=0)
def ratio_start(context: Context) -> Value:
    return _ratio(context, slice(0, aligned(context).tenth))


@feature(
    "gap.next_ratio",
    "ratio",
    "validation loss over the training loss of the stretch that follows, which three of four evaluations stay below: a "
    "fast learner's mean over the stretch before lies higher for no other reason than its speed",
    low=0,
    label="validation / training that follows",
)
def next_ratio(context: Context) -> Value:
    both = aligned(context)
    pairs = zip(both.train[1:], both.val[:-1], strict=True)
    return float(np.quantile([_quotient(context, t, v) for t, v in pairs], 0.75))


def _ratio(context: Context, part: slice) -> float:
    """Ratio of medians of the logged losses; Unavailable where they are not positive."""
    both = aligned(context)
    return _quotient(context, median(both.train[part]), median(both.val[part]))


def _quotient(context: Context, train: float, val: float) -> float:
    """Validation over training cost, both as aligned: their difference where these are logarithms."""
    if context.curve("train_loss", averaged=True).log and context.curve("val_loss").log:
        return float(np.exp(np.clip(val - train, -300, 300)))
    if min(train, val) <= 0:
        raise Unavailable("the losses are not positive", ("train_loss", "val_loss"))
    return val / train


@feature(
    "gap.val_best_level",
    "ratio",
    "best validation loss against the loss of the untrained model; at 1 or above, nothing that training learned helps",
    low=0,
    label="best validation loss against the untrained model's",
)
def val_best_level(context: Context) -> Value:
    """The training loss's first points are an untrained model's only where many precede the first evaluation."""
    train, val = context.curve("train_loss"), context.curve("val_loss")
    val.need(3)
    before = int(np.searchsorted(train.steps, val.steps[0]))
    if train.axis != val.axis or before < 10:
        raise Unavailable("the loss of the untrained model was not logged", ("train_loss",))
    untrained = train.to_raw(median(train.cost[:3]))
    if untrained <= 0 or np.min(val.raw) <= 0:
        raise Unavailable("the losses are not positive", ("train_loss", "val_loss"))
    return val.to_raw(val.best) / untrained


@feature(
    "metric_gap.train_loss_after_best",
    "ratio",
    "change of the training loss since the validation metric was best, against its way; negative means it kept "
    "improving",
)
def train_loss_after_best(context: Context) -> Value:
    train, val = context.curve("train_loss", averaged=True), context.curve("val_metric")
    train.need(3)
    val.need(3)
    loss = _average_before(train.steps, train.cost, _on_axis_of(train, val))
    best = int(np.argmin(running_median(val.cost, _smoothing(val.n))))
    last = max(1, (val.n - best) // 5)
    change = (median(loss[-last:]) - float(loss[best])) / _span(train.span)
    return Measurement(change, (float(val.steps[best]), float(val.steps[-1])), "train_loss")


@feature(
    "metric_gap.score_ratio",
    "ratio",
    "training score over validation score at the first evaluations, for scores of which higher is better",
    low=0,
    label="training / validation score at first",
)
def score_ratio(context: Context) -> Value:
    both = aligned(context, "metric")
    train, val = (-median(cost[: both.tenth]) for cost in (both.train, both.val))
    if context.curve("val_metric").direction != "higher" or min(train, val) < 0 or train == 0:
        raise Unavailable("the metrics are not scores of which higher is better", ("val_metric",))
    return capped_ratio(train, val)


@feature(
    "gap.best_ratio",
    "ratio",
    "lowest ratio of validation to training loss kept for a tenth of the evaluations",
    low=0,
)
def best_ratio(context: Context) -> Value:
    both = aligned(context)
    if np.min(both.val) <= 0 or np.min(both.train) <= 0:
        raise Unavailable("the losses are not positive", ("train_loss", "val_loss"))
    return float(np.quantile(both.val / both.train, 0.1))


@feature(
    "gap.val_first_level",
    "ratio",
    "first validation loss as a share of the training loss's start; near 0 means solved at once",
    low=0,
)
def val_first_level(context: Context) -> Value:
    train, val = context.curve("train_loss", averaged=True), context.curve("val_loss")
    val.need(2)
    start = train.to_raw(train.start)
    first = median(val.raw[:2])
    if start <= 0 or first < 0:
        raise Unavailable("the losses are not positive", ("train_loss", "val_loss"))
    return first / start


@feature(
    "val_metric.early_level",
    "ratio",
    "validation accuracy or score reached within the first fiftieth of the evaluations (at least two), of at most 1",
    low=0,
    high=1,
)
def early_level(context: Context) -> Value:
    return _fraction(context.curve("val_metric"), slice(0, max(2, context.curve("val_metric").n // 50)))


@feature("val_metric.best_level", "ratio", "best validation accuracy or score, of at most 1", low=0, high=1)
def best_level(context: Context) -> Value:
    return _fraction(context.curve("val_metric"), slice(None))


@feature("train_metric.best_level", "ratio", "best training accuracy or score, of at most 1", low=0, high=1)
def best_train_level(context: Context) -> Value:
    return _fraction(context.curve("train_metric"), slice(None))


def _fraction(curve: Curve, part: slice) -> float:
    """Best value of a part of a bounded score, as a fraction; percent are recognised."""
    return float(np.max(_score(curve).raw[part])) / curve.top


def _score(curve: Curve) -> Curve:
    """The curve, where it is a score of 0 to 1 or to 100; raises Unavailable."""
    if curve.direction != "higher" or np.min(curve.raw) < 0 or np.max(curve.raw) > 100:
        raise Unavailable(f"{curve.role} is not a score between 0 and 1", (curve.role,))
    return curve


@feature(
    "val_metric.setback",
    "ratio",
    "share of the first validation score that was lost, in two evaluations in a row, within the first third of the run",
    low=0,
    high=1,
    label="early loss of the first score",
)
def setback(context: Context) -> Value:
    curve = _score(context.curve("val_metric"))
    curve.need(9)
    first, early = float(curve.raw[0]), curve.raw[1 : curve.n // 3 + 1]
    if first <= 0:
        raise Unavailable("the first score is 0", ("val_metric",))
    kept = np.maximum(early[:-1], early[1:])  # the better of two neighbours
    lowest = int(np.argmin(kept)) + 1
    lost = max(0.0, 1 - float(kept.min()) / first)
    return curve.over(float(curve.steps[lowest]), float(curve.steps[lowest + 1]), lost)


@feature(
    "val_metric.setback_end",
    "ratio",
    "share of the run after which the validation score is back at its first level, after a setback; 1 where it never is",
    low=0,
    high=1,
    label="first score regained",
)
def setback_end(context: Context) -> Value:
    curve = context.curve("val_metric")
    lowest = context.measure("val_metric.setback")
    if not isinstance(lowest, Measurement) or lowest.value <= 0 or lowest.steps is None:
        raise Unavailable("the validation score had no setback", ("val_metric",))
    after = (curve.steps > lowest.steps[1]) & (curve.raw >= curve.raw[0])
    return curve.position(float(curve.steps[np.argmax(after)])) if after.any() else 1.0
