"""The quality of the log itself."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Unavailable
from analyzer.model import FloatArray, Measurement, Series

DAMAGE = ("truncated", "checksum", "damaged")
LATE = 0.2  # of the last step or epoch


def _logged(context: Context) -> tuple[Series, ...]:
    if not context.run.series:
        raise Unavailable("no series was logged", ("series",))
    return context.run.series


@feature(
    "log.damaged_files", "count", "files of the run that are truncated or damaged", low=0, label="damaged"
)
def damaged_files(context: Context) -> Value:
    bad = [p for p in context.run.problems if p.kind in DAMAGE]
    names = tuple(dict.fromkeys(p.path for p in bad))
    return Measurement(float(len(names)), where=names[0] if names else "", items=names)


@feature("log.rewinds", "count", "times the steps went back", low=0, label="steps went back")
def rewinds(context: Context) -> Value:
    most = max(_logged(context), key=lambda s: len(s.rewinds))
    return Measurement(float(len(most.rewinds)), where=most.tag, items=tuple(f"{s:g}" for s in most.rewinds))


@feature(
    "log.superseded_share",
    "ratio",
    "share of logged points overwritten by a later write of the same step",
    low=0,
)
def superseded_share(context: Context) -> Value:
    series = _logged(context)
    written = sum(s.points + s.superseded for s in series)
    return sum(s.superseded for s in series) / written if written else 0.0


@feature(
    "log.constant_series",
    "count",
    "losses and metrics that have one value throughout",
    low=0,
    label="constant series",
)
def constant_series(context: Context) -> Value:
    roles = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "train_metric", "val_metric")
    flat = tuple(
        s.tag
        for s in _logged(context)
        if s.role in roles and s.points >= 5 and np.ptp(s.values) == 0 and s.values[0] not in (1, 100)
    )
    return Measurement(float(len(flat)), where=flat[0] if flat else "", items=flat)


@feature(
    "log.nan_metrics",
    "count",
    "metrics other than the training loss that are NaN or Inf at some point",
    low=0,
    label="NaN metrics",
)
def nan_metrics(context: Context) -> Value:
    bad = tuple(
        s.tag
        for s in _logged(context)
        if s.role not in ("train_loss", "train_loss_part", "grad_norm", "grad_norm_layer", "")
        and s.points
        and not np.isfinite(s.values).all()
    )
    return Measurement(float(len(bad)), where=bad[0] if bad else "", items=bad)


@feature(
    "run.continued",
    "flag",
    "1 where the log begins in the middle: its first step or epoch lies beyond a fifth of the last one, or the run goes "
    "on from where the one before it in the same log ended",
    low=0,
    high=1,
)
def continued(context: Context) -> Value:
    """The level of its training loss at the start is then no untrained model's."""
    curve = context.curve("train_loss")
    curve.need(2)
    if any(problem.kind == "continued" for problem in context.run.problems):
        return 1.0
    if curve.axis == "step" and curve.first_step >= LATE * float(curve.steps[-1]):
        return 1.0
    epochs = [s.values for s in context.run.by_role("epoch")]
    if curve.axis == "epoch":
        epochs.append(curve.steps)
    return float(any(_begins_late(counted) for counted in epochs))


def _begins_late(epochs: FloatArray) -> bool:
    """Whether epochs went by that were not logged: more than the two that lie between two points."""
    epochs = epochs[np.isfinite(epochs)]
    if len(epochs) < 2 or not epochs[0] >= 3:
        return False
    between = np.diff(epochs)
    rising = between[between > 0]
    late = epochs[0] >= LATE * epochs[-1]
    return bool(late and not np.any(between < 0) and len(rising) and epochs[0] > 2 * np.median(rising))


@feature("log.series", "count", "series logged", low=0)
def series_count(context: Context) -> Value:
    return float(len(context.run.series))


@feature(
    "waste.after_best_share",
    "ratio",
    "share of the run spent after the validation loss (or metric) was best",
    low=0,
    high=1,
    label="after the best point",
)
def after_best_share(context: Context) -> Value:
    curve = context.curve("val_loss") if context.has("val_loss") else context.curve("val_metric")
    curve.need(5)
    share = 1 - curve.position(curve.best_step)
    return curve.over(curve.best_step, float(curve.steps[-1]), share)


@feature("waste.after_best_hours", "value", "hours of wall time spent after the best point", low=0)
def after_best_hours(context: Context) -> Value:
    curve = context.curve("val_loss") if context.has("val_loss") else context.curve("val_metric")
    curve.need(5)
    if curve.wall_times is None:
        raise Unavailable("no wall time was logged", ("wall_time",))
    at = int(np.searchsorted(curve.all_steps, curve.best_step))
    return float(curve.wall_times[-1] - curve.wall_times[at]) / 3600
