"""Metrics of single classes, and accuracy that says little."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import percentiles, running_median
from analyzer.model import FloatArray, Measurement, Series

BALANCED = ("f1", "recall", "balanced", "kappa", "mcc", "matthews", "auprc", "average_precision", "precision")
ERROR_RATES = ("wer", "cer", "per", "ter", "error", "error_rate")


def _class_series(context: Context) -> list[Series]:
    found = [s for role in ("val_class_metric", "train_class_metric") for s in context.run.by_role(role)]
    found = [s for s in found if s.points >= 3 and np.isfinite(s.values).any()]
    if len(found) < 2:
        raise Unavailable("no metrics of single classes were logged", ("class_metric",))
    return found


def _final(series: Series) -> float:
    values = series.values[np.isfinite(series.values)]
    return float(np.median(values[-max(1, len(values) // 5) :]))


@feature("class.lowest", "ratio", "lowest final metric of a single class", low=0, label="worst class")
def lowest(context: Context) -> Value:
    series = _class_series(context)
    finals = [_final(s) for s in series]
    worst = int(np.argmin(finals))
    return Measurement(finals[worst], where=series[worst].tag)


@feature("class.highest", "ratio", "highest final metric of a single class", low=0)
def highest(context: Context) -> Value:
    series = _class_series(context)
    finals = [_final(s) for s in series]
    best = int(np.argmax(finals))
    return Measurement(finals[best], where=series[best].tag)


@feature(
    "class.balanced_final",
    "ratio",
    "lowest final value of recall, F1 and other metrics that the majority class cannot lift",
    low=0,
    label="lowest balanced metric",
)
def balanced_final(context: Context) -> Value:
    found = _balanced(context)
    finals = [_final(s) for s in found]
    worst = int(np.argmin(finals))
    return Measurement(finals[worst], where=found[worst].tag)


def _balanced(context: Context) -> list[Series]:
    found = [
        s
        for role in ("val_metric", "train_metric")
        for s in context.run.by_role(role)
        if any(word in f"{s.subject} {s.tag}".lower() for word in BALANCED)
        and s.points >= 3
        and np.isfinite(s.values).any()
    ]
    if not found:
        raise Unavailable("no recall, F1 or balanced metric was logged", ("f1", "recall"))
    return found


@feature(
    "class.balanced_lost",
    "flag",
    "1 where recall, F1 or another metric that the majority class cannot lift began above 0.1 and is 0 at the end",
    low=0,
    high=1,
)
def balanced_lost(context: Context) -> Value:
    """A fresh network answers at random; one that gave up the rare class no longer does."""
    return float(
        any(
            np.nanmax(s.values[:3]) > 0.1 and _final(s) == 0
            for s in _balanced(context)
            if np.isfinite(s.values[:3]).any()
        )
    )


@feature(
    "class.accuracy_gain",
    "ratio",
    "rise of the validation accuracy from the second and third evaluation to its end; a model that answers with the "
    "largest class has none",
    low=-1,
    high=1,
    label="rise of the accuracy",
)
def accuracy_gain(context: Context) -> Value:
    """The first evaluation is left out: it may come before training."""
    curve = _accuracy(context)
    curve.need(6)
    return float(curve.to_raw(curve.end) - np.median(curve.raw[1:3])) / curve.top


def _accuracy(context: Context) -> Curve:
    """On held-out data or, where none was logged, in training."""
    return context.curve("val_metric" if context.has("val_metric") else "train_metric")


@feature(
    "class.accuracy_range",
    "ratio",
    "range of the validation accuracy over the later half of the evaluations",
    low=0,
    label="range of the accuracy",
)
def accuracy_range(context: Context) -> Value:
    """Percent are taken as fractions; spread between the 5th and 95th percentile."""
    curve = _accuracy(context)
    curve.need(4)
    return _spread(curve.raw[curve.n // 2 :], curve)


@feature(
    "class.train_accuracy_range",
    "ratio",
    "range of the training accuracy over the whole run",
    low=0,
    label="range of the training accuracy",
)
def train_accuracy_range(context: Context) -> Value:
    curve = context.curve("train_metric")
    curve.need(4)
    return _spread(curve.raw, curve)


def _spread(values: FloatArray, curve: Curve) -> float:
    low, high = percentiles(values, 5, 95)
    return (high - low) / curve.top


@feature(
    "class.same_answer",
    "ratio",
    "share of the evaluations that gave the very same validation accuracy",
    low=0,
    high=1,
    label="evaluations of the same accuracy",
)
def same_answer(context: Context) -> Value:
    """Accuracies of a model that answers alike whatever the input are equal to the last digit."""
    curve = context.curve("val_metric")
    curve.need(5)
    return float(np.unique(curve.raw, return_counts=True)[1].max()) / curve.n


@feature(
    "class.loss_over_majority",
    "ratio",
    "final loss over that of giving every example the same answer, as right as the final accuracy: about 1 where two "
    "classes are told apart by nothing but their frequency",
    low=0,
    label="loss against that of one answer for all",
)
def loss_over_majority(context: Context) -> Value:
    """The entropy of right and wrong at that accuracy; of held-out data or, where none were logged, of training."""
    part = "val" if context.has("val_metric") and context.has("val_loss") else "train"
    accuracy, loss = context.curve(f"{part}_metric"), context.curve(f"{part}_loss")
    if accuracy.measure != "accuracy":
        raise Unavailable("no accuracy was logged", (f"{part}_accuracy",))
    right = accuracy.to_raw(accuracy.end) / accuracy.top
    if not 0 < right < 1:
        raise Unavailable("the accuracy is at its bound", (f"{part}_accuracy",))
    return loss.to_raw(loss.end) / float(-right * np.log(right) - (1 - right) * np.log(1 - right))


@feature(
    "class.metrics_lost",
    "ratio",
    "share of the held-out metrics of known direction that lost a tenth of their progress again by the end",
    low=0,
    high=1,
    label="held-out metrics that got worse",
)
def metrics_lost(context: Context) -> Value:
    """One metric may be at its best where a model that answers alike stands; rarely are all of them."""
    found = [_lost(s) for s in _held_out(context) if s.direction in ("higher", "lower") and s.points >= 5]
    if not found:
        raise Unavailable("no held-out metric of known direction was logged five times", ("val_metric",))
    return float(np.mean(np.array(found) >= 0.1))


def _held_out(context: Context) -> list[Series]:
    return [s for role in ("val_metric", "val_accuracy") for s in context.run.by_role(role)]


def _lost(series: Series) -> float:
    """Share of the way from start or end to the best level that is lost at the end."""
    values = series.values[np.isfinite(series.values)]
    if len(values) < 5:
        return 0.0
    cost = running_median(-values if series.direction == "higher" else values, 3)
    end = float(np.median(cost[-max(3, len(cost) // 10) :]))
    best = float(np.min(cost[1:-1]))  # the ends are not smoothed
    span = max(float(cost[0]), end) - best
    return max(0.0, end - best) / span if span > 0 else 0.0


@feature(
    "class.nothing_right",
    "flag",
    "1 where every held-out score stays at its worst possible value: a score at 0, an error rate at 1",
    low=0,
    high=1,
)
def nothing_right(context: Context) -> Value:
    """From the second evaluation on, within 2 %; at least four evaluations."""
    worst = [_at_worst(s) for s in _held_out(context) if s.points >= 4]
    told = [held for held in worst if held is not None]
    if not told:
        raise Unavailable("no held-out score with a known worst value was logged", ("val_metric",))
    return float(all(told))


def _at_worst(series: Series) -> bool | None:
    """None where the worst value is not known."""
    values = series.values[np.isfinite(series.values)][1:]
    if not len(values):
        return None
    if series.direction == "higher" and np.min(values) >= 0:
        return bool(np.max(values) <= 0.02)
    if series.direction == "lower" and series.subject in ERROR_RATES:
        return bool(np.min(values) >= 0.98)
    return None
