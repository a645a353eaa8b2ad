"""Compute that bought nothing: shares of the run and hours of it, by what went wrong."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.model import FloatArray, Measurement

PAUSE = 600.0  # seconds without a point, and 50 times the usual: the run was not running
UNUSUAL = 50.0


def working_seconds(wall_times: FloatArray) -> float:
    """Seconds between the first and the last of ``wall_times``, without pauses.

    A gap of over ten minutes that is 50 times the median gap lies between a run's end and its resumption.
    """
    gaps = np.diff(wall_times[np.isfinite(wall_times)])
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return 0.0
    return float(gaps[gaps <= max(PAUSE, UNUSUAL * float(np.median(gaps)))].sum())


@feature("run.steps", "step", "steps from the first to the last that was logged", low=0)
def steps(context: Context) -> Value:
    spans = [s.steps[-1] - s.steps[0] for s in context.run.series if s.points and s.axis == "step"]
    if not spans:
        raise Unavailable("no curve was logged by the step", ("step",))
    return float(max(spans))


@feature("run.hours", "value", "hours the run was at work, from wall times, pauses left out", low=0)
def hours(context: Context) -> Value:
    spans = [working_seconds(s.wall_times) for s in context.run.series if s.wall_times is not None]
    if not spans:
        raise Unavailable("no wall time was logged", ("wall_time",))
    return max(spans) / 3600


def _hours_from(curve: Curve, step: float) -> float:
    if curve.wall_times is None:
        raise Unavailable("no wall time was logged", ("wall_time",))
    return working_seconds(curve.wall_times[np.searchsorted(curve.all_steps, step) :]) / 3600


def _begin(context: Context, name: str) -> float:
    """Where the stretch begins that feature ``name`` measured."""
    measured = context.measure(name)
    if not isinstance(measured, Measurement):
        raise Unavailable(measured.reason, measured.needs)
    if measured.steps is None or measured.value <= 0:
        raise Unavailable(f"{name} shows no such stretch")
    return measured.steps[0]


def _share_from(curve: Curve, step: float) -> float:
    """Share of the curve after ``step``, NaN and Inf included."""
    first, last = float(curve.all_steps[0]), float(curve.all_steps[-1])
    return (last - step) / (last - first) if last > first else 0.0


@feature(
    "waste.after_nan_share", "ratio", "share of the run after the training loss was finite", low=0, high=1
)
def after_nan_share(context: Context) -> Value:
    return _share_from(context.curve("train_loss"), _begin(context, "train_loss.nonfinite_tail"))


@feature("waste.after_nan_hours", "value", "hours of wall time after the training loss was finite", low=0)
def after_nan_hours(context: Context) -> Value:
    return _hours_from(context.curve("train_loss"), _begin(context, "train_loss.nonfinite_tail"))


@feature(
    "waste.after_divergence_share",
    "ratio",
    "share of the run after the training loss (or reward) was best, of which it lost much again",
    low=0,
    high=1,
)
def after_divergence_share(context: Context) -> Value:
    curve = _diverging(context)
    return _share_from(curve, curve.best_step)


@feature(
    "waste.after_divergence_hours",
    "value",
    "hours of wall time after the training loss (or reward) was best",
    low=0,
)
def after_divergence_hours(context: Context) -> Value:
    curve = _diverging(context)
    return _hours_from(curve, curve.best_step)


def _diverging(context: Context) -> Curve:
    curve = context.curve("train_loss") if context.has("train_loss") else context.curve("reward")
    curve.need(5)
    return curve


@feature("waste.plateau_hours", "value", "hours of wall time in which the training loss was flat", low=0)
def plateau_hours(context: Context) -> Value:
    return _hours_from(context.curve("train_loss"), _begin(context, "train_loss.plateau_share"))


@feature(
    "waste.annealed_hours", "value", "hours of wall time with a learning rate of practically zero", low=0
)
def annealed_hours(context: Context) -> Value:
    return _hours_from(context.curve("learning_rate"), _begin(context, "lr.zero_share"))
