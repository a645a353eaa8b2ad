"""NaN, Inf and the loss scale of mixed precision."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, curve_feature, feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.model import FloatArray, Measurement

TERMS = ("rl_loss", "gan_loss", "train_loss_part", "regularizer")


def _first_bad(curve: Curve) -> int:
    bad = np.flatnonzero(~curve.finite)
    if not len(bad):
        raise Unavailable(f"{curve.role} is finite throughout", ())
    return int(bad[0])


@curve_feature("nonfinite", "count", "NaN and Inf values of the {curve}", low=0, label="NaN")
def nonfinite(curve: Curve) -> Value:
    bad = np.flatnonzero(~curve.finite)
    if not len(bad):
        return Measurement(0.0)
    steps = curve.all_steps[bad]
    return curve.over(float(steps[0]), float(steps[-1]), float(len(bad)))


@curve_feature(
    "nonfinite_share",
    "ratio",
    "share of the {curve}'s points, from the first NaN or Inf on, that are NaN or Inf",
    low=0,
    high=1,
)
def nonfinite_share(curve: Curve) -> Value:
    first = _first_bad(curve)
    return Measurement(float(np.mean(~curve.finite[first:])))


@curve_feature(
    "nonfinite_tail",
    "count",
    "unbroken NaN and Inf values at the end of the {curve}",
    low=0,
    label="NaN to the end",
)
def nonfinite_tail(curve: Curve) -> Value:
    finite = np.flatnonzero(curve.finite)
    tail = len(curve.finite) - (int(finite[-1]) + 1 if len(finite) else 0)
    if not tail:
        return 0.0
    return curve.over(float(curve.all_steps[-tail]), float(curve.all_steps[-1]), float(tail))


@curve_feature(
    "nonfinite_before_tail",
    "ratio",
    "share of NaN and Inf before the {curve}'s final unbroken stretch of them; high where every other value is "
    "NaN by design",
    low=0,
    high=1,
)
def nonfinite_before_tail(curve: Curve) -> Value:
    finite = np.flatnonzero(curve.finite)
    if not len(finite):
        return 0.0
    return float(np.mean(~curve.finite[: int(finite[-1]) + 1]))


@curve_feature(
    "nonfinite_stretch",
    "ratio",
    "longest unbroken stretch of NaN and Inf of the {curve}, as a share of its points; 0 for fewer than 5",
    low=0,
    high=1,
)
def nonfinite_stretch(curve: Curve) -> Value:
    edges = np.flatnonzero(np.concatenate([[True], curve.finite, [True]]))
    longest = int(np.max(np.diff(edges))) - 1
    return longest / len(curve.finite) if longest >= 5 else 0.0


@curve_feature(
    "first_nonfinite_step", "step", "step of the first NaN or Inf of the {curve}", label="first NaN"
)
def first_nonfinite_step(curve: Curve) -> Value:
    step = float(curve.all_steps[_first_bad(curve)])
    return curve.at(step, step)


@curve_feature("last_finite", "value", "last finite value of the {curve} before its first NaN or Inf")
def last_finite(curve: Curve) -> Value:
    first = _first_bad(curve)
    if first == 0:
        raise Unavailable(f"{curve.role} is NaN or Inf from its first point on", ())
    return curve.at(float(curve.all_steps[first - 1]), float(curve.all_raw[first - 1]))


@curve_feature("never_finite", "flag", "1 where no point of the {curve} is finite", low=0, high=1)
def never_finite(curve: Curve) -> Value:
    return float(not curve.finite.any())


@curve_feature(
    "before_nan_ratio",
    "ratio",
    "last finite values of the {curve} before its first NaN against the usual level before; 1 is a clean entry",
    low=0,
)
def before_nan_ratio(curve: Curve) -> Value:
    first = _first_bad(curve)
    before = curve.all_raw[max(0, first - 50) : first]
    if len(before) < 6:
        raise Unavailable(f"{curve.role} has too few points before its first NaN", (curve.role,))
    usual = float(np.median(np.abs(before[:-3])))
    if usual == 0:
        raise Unavailable(f"{curve.role} is 0 before its first NaN", ())
    return float(np.max(np.abs(before[-3:]))) / usual


@feature(
    "terms.nan_to_end",
    "count",
    "losses other than the training loss, and terms of it, that were finite and then are NaN or Inf to the end of the run",
    low=0,
    label="losses NaN to the end",
)
def terms_nan_to_end(context: Context) -> Value:
    """Of a run without a training loss, such as of reinforcement learning: three finite points, then three of none."""
    if context.has("train_loss"):
        raise Unavailable("the training loss itself was logged", ())
    terms = [s for role in TERMS for s in context.run.by_role(role) if s.points >= 6]
    if not terms:
        raise Unavailable("no other loss was logged", ("rl_loss",))
    ends = {s: at for s in terms if (at := _end_of_finite(s.values)) is not None}
    if not ends:
        return 0.0
    first, at = min(ends.items(), key=lambda found: float(found[0].steps[found[1]]))
    steps = (float(first.steps[at]), float(first.steps[-1]))
    return Measurement(float(len(ends)), steps, first.role, where=first.tag, items=tuple(s.tag for s in ends))


def _end_of_finite(values: FloatArray) -> int | None:
    """Index from which nothing is finite, where all before it is; None where there is no such place."""
    bad = np.flatnonzero(~np.isfinite(values))
    if not len(bad) or not 3 <= bad[0] <= len(values) - 3 or len(bad) != len(values) - bad[0]:
        return None
    return int(bad[0])


@feature(
    "train_loss.zero_for_nan",
    "count",
    "points at the end of the training loss that are exactly 0 while every gradient norm there is NaN or Inf: some "
    "trainers write 0 for a loss that is NaN",
    low=0,
    label="loss 0 with NaN gradients",
)
def zero_for_nan(context: Context) -> Value:
    loss, norm = context.curve("train_loss"), context.curve("grad_norm")
    other = np.flatnonzero(loss.all_raw != 0)
    zeros = loss.all_steps[int(other[-1]) + 1 :] if len(other) else loss.all_steps
    if len(zeros) < 3:
        return 0.0
    beside = norm.finite[norm.all_steps >= zeros[0]]
    dead = len(beside) >= 3 and not beside.any()
    return loss.over(float(zeros[0]), float(zeros[-1]), float(len(zeros) if dead else 0))


@feature("scale.backoffs", "count", "times the loss scale was cut", low=0, label="loss scale cut")
def backoffs(context: Context) -> Value:
    curve = context.curve("loss_scale")
    return Measurement(float(np.sum(np.diff(curve.raw) < 0)))


@feature(
    "scale.backoff_rate",
    "ratio",
    "times the loss scale was cut per step over the second half of the run; a healthy scaler gives about 1 in 2000",
    low=0,
    high=1,
)
def backoff_rate(context: Context) -> Value:
    curve = context.curve("loss_scale")
    curve.need(10)
    late = curve.raw[curve.n // 2 :]
    steps = max(float(curve.steps[-1] - curve.steps[curve.n // 2]), float(len(late) - 1))
    return float(np.sum(np.diff(late) < 0)) / steps


@feature("scale.final", "value", "loss scale at the end", low=0)
def final_scale(context: Context) -> Value:
    curve = context.curve("loss_scale")
    curve.need(1)
    return Measurement(float(curve.raw[-1]))


@feature(
    "scale.collapse",
    "ratio",
    "highest loss scale after the first tenth of the run over the final one",
    low=1,
    label="collapse of the loss scale",
)
def collapse(context: Context) -> Value:
    curve = context.curve("loss_scale")
    curve.need(3)
    if curve.raw[-1] <= 0:
        raise Unavailable("the final loss scale is not positive", ("loss_scale",))
    later = curve.n // 10  # a scaler that starts too high comes down at once, and that is its job
    peak = later + int(np.argmax(curve.raw[later:]))
    return curve.over(
        float(curve.steps[peak]), float(curve.steps[-1]), float(curve.raw[peak] / curve.raw[-1])
    )
