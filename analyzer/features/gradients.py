"""Gradient norms, global and per layer."""

from __future__ import annotations

import re

import numpy as np

from analyzer.features import Context, Value, feature, once
from analyzer.features.curves import Unavailable
from analyzer.features.histograms import layer_series
from analyzer.features.robust import mann_kendall_z, percentiles, running_median
from analyzer.model import FloatArray, Measurement, Run, Series


def layer_norms(run: Run) -> list[Series]:
    """Per-layer norms in depth order: by the numbers in their names, else as logged."""
    logged = run.by_role("grad_norm_layer") or layer_series(run, "grad_norm_layer")
    found = [s for s in logged if np.isfinite(s.values).any() and not np.any(s.values < 0)]  # sizes only
    numbered = [(_numbers(s.subject), s) for s in found]
    if len({key for key, _ in numbered if key}) >= 2:
        return [s for _, s in sorted(numbered, key=lambda pair: pair[0])]
    return found


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(x) for x in re.findall(r"\d+", name)[:4])


@feature("grad.median", "value", "median gradient norm", low=0)
def median(context: Context) -> Value:
    curve = context.curve("grad_norm")
    curve.need(3)
    return float(np.median(curve.raw))


@feature(
    "grad.over_loss",
    "ratio",
    "median gradient norm over the median training loss in absolute value; a loss that is summed over examples is "
    "as large as its gradient",
    low=0,
)
def over_loss(context: Context) -> Value:
    loss = context.curve("train_loss")
    loss.need(3)
    level = float(np.median(np.abs(loss.raw)))
    if level <= 0:
        raise Unavailable("the training loss is 0", ("train_loss",))
    return context.value("grad.median") / level


@feature("grad.start", "value", "gradient norm at the start: median of the first three points", low=0)
def start(context: Context) -> Value:
    curve = context.curve("grad_norm")
    curve.need(5)
    return curve.at(curve.first_step, float(np.median(curve.raw[:3])))


@feature(
    "grad.start_over_root_loss",
    "ratio",
    "gradient norm at the start over twice the square root of the training loss there: by how much the outputs move with "
    "the weights, whatever the units of what is predicted; 1 to 100 where signals keep their size from layer to layer",
    low=0,
    label="first gradient norm against the root of the loss",
)
def start_over_root_loss(context: Context) -> Value:
    """Of a squared error e^2 the gradient is 2 e times that of the output."""
    loss = context.curve("train_loss")
    loss.need(5)
    level = float(np.median(loss.raw[:3]))
    if level <= 0:
        raise Unavailable("the training loss is not positive", ("train_loss",))
    return context.value("grad.start") / (2 * float(np.sqrt(level)))


@feature("grad.max", "value", "highest gradient norm", low=0, label="highest gradient norm")
def highest(context: Context) -> Value:
    curve = context.curve("grad_norm")
    curve.need(3)
    top = int(np.argmax(curve.raw))
    return curve.at(float(curve.steps[top]), float(curve.raw[top]))


@feature(
    "grad.peak",
    "ratio",
    "highest gradient norm over its typical level, the larger of its median and its level at the start",
    low=0,
    label="highest gradient norm over its typical level",
)
def peak(context: Context) -> Value:
    """The start counts, because the norm of a run that converges falls far below it."""
    curve = context.curve("grad_norm")
    curve.need(5)
    usual = max(float(np.median(curve.raw)), float(np.median(curve.raw[: max(3, curve.n // 20)])))
    if usual <= 0:
        raise Unavailable("the typical gradient norm is 0", ("grad_norm",))
    top = int(np.argmax(curve.raw))
    return curve.at(float(curve.steps[top]), float(curve.raw[top]) / usual)


@feature(
    "grad.high_share",
    "ratio",
    "share of steps with a gradient norm above ten times the median of the first half",
    low=0,
    high=1,
)
def high_share(context: Context) -> Value:
    curve = context.curve("grad_norm")
    curve.need(10)
    usual = float(np.median(curve.raw[: curve.n // 2]))
    if usual <= 0:
        raise Unavailable("the gradient norm is 0", ("grad_norm",))
    return float(np.mean(curve.raw > 10 * usual))


@feature(
    "grad.growth",
    "ratio",
    "gradient norm of the last tenth over that of the first half, medians",
    low=0,
    label="growth of the gradient norm",
)
def growth(context: Context) -> Value:
    curve = context.curve("grad_norm")
    curve.need(8)
    usual = float(np.median(curve.raw[: curve.n // 2]))
    if usual <= 0:
        raise Unavailable("the gradient norm is 0", ("grad_norm",))
    last = curve.raw[-max(3, curve.n // 10) :]
    return curve.over(float(curve.steps[-len(last)]), float(curve.steps[-1]), float(np.median(last)) / usual)


@feature(
    "grad.burst",
    "ratio",
    "highest running level of the gradient norm over its highest in the first twentieth of the run",
    low=0,
    label="burst of the gradient norm",
)
def burst(context: Context) -> Value:
    curve = context.curve("grad_norm")
    curve.need(8)
    level = running_median(curve.raw, 5)
    start = float(np.max(level[: max(3, curve.n // 20)]))
    if start <= 0:
        raise Unavailable("the gradient norm starts at 0", ("grad_norm",))
    top = int(np.argmax(level))
    return curve.at(float(curve.steps[top]), float(level[top]) / start)


@feature("grad.trend_z", "sigma", "significance of the gradient norm's trend; positive means growing")
def trend_z(context: Context) -> Value:
    curve = context.curve("grad_norm")
    curve.need(5)
    return mann_kendall_z(curve.raw)


@feature(
    "grad.nonfinite_share",
    "ratio",
    "share of NaN and Inf gradient norms after the first twentieth, in which a loss scaler finds its level",
    low=0,
    high=1,
)
def nonfinite_share(context: Context) -> Value:
    finite = context.curve("grad_norm").finite
    return float(np.mean(~finite[len(finite) // 20 :]))


@feature("grad.nonfinite", "count", "NaN and Inf gradient norms", low=0)
def nonfinite(context: Context) -> Value:
    curve = context.curve("grad_norm")
    bad = np.flatnonzero(~curve.finite)
    if not len(bad):
        return Measurement(0.0)
    step = float(curve.all_steps[bad[0]])
    return Measurement(float(len(bad)), (step, step), curve.role)


@feature(
    "grad.spread",
    "ratio",
    "spread of the gradient norm: 90th over 10th percentile after the first tenth",
    low=1,
)
def spread(context: Context) -> Value:
    curve = context.curve("grad_norm")
    curve.need(10)
    low, high = percentiles(curve.raw[curve.n // 10 :], 10, 90)
    if low <= 0:
        raise Unavailable("the gradient norm reaches 0", ("grad_norm",))
    return high / low


@feature("grad.zero_share", "ratio", "share of steps with a gradient norm of exactly 0", low=0, high=1)
def zero_share(context: Context) -> Value:
    curve = context.curve("grad_norm")
    curve.need(3)
    return float(np.mean(curve.raw == 0))


@feature(
    "grad.over_clip_share",
    "ratio",
    "share of steps with a gradient norm at or above the configured clip value",
    low=0,
    high=1,
)
def over_clip_share(context: Context) -> Value:
    clip = context.value("hparam.gradient_clip")
    curve = context.curve("grad_norm")
    curve.need(10)
    if clip <= 0:
        raise Unavailable("gradients are not clipped", ("gradient_clip",))
    return float(np.mean(curve.raw >= 0.999 * clip))


@once
def _layer_levels(context: Context) -> tuple[list[Series], FloatArray]:
    """The layers in depth order and the median gradient norm of each."""
    layers = layer_norms(context.run)
    if len(layers) < 3:
        raise Unavailable("fewer than 3 layers have gradient norms", ("grad_norm_layer",))
    levels = np.array([np.median(s.values[np.isfinite(s.values)]) for s in layers])
    return layers, levels


def _name(series: Series) -> str:
    return series.subject or series.tag


@feature(
    "grad.layer_ratio",
    "ratio",
    "median gradient norm of the first third of the layers over that of the last third, lowest over the thirds of the run; small means vanishing",
    low=0,
    label="gradient of early against late layers",
)
def layer_ratio(context: Context) -> Value:
    """The lowest over the thirds of the run: gradients that vanish at first may recover later."""
    layers, levels = _layer_levels(context)
    names = [_name(s) for s in layers]
    third = max(1, len(levels) // 3)
    windows = [np.array([_median_of(s, part) for s in layers]) for part in range(3)]
    ratios = [
        float(np.median(w[:third]) / np.median(w[-third:])) for w in windows if np.median(w[-third:]) > 0
    ]
    ratios = [r for r in ratios if np.isfinite(r)]
    if not ratios:
        raise Unavailable("the late layers' gradient norms are 0", ("grad_norm_layer",))
    worst = int(np.argmin(levels[:third]))
    steps = (float(layers[0].steps[0]), float(layers[0].steps[-1]))
    return Measurement(min(ratios), steps, "grad_norm_layer", names[worst], tuple(names[:third]))


def _median_of(series: Series, third: int) -> float:
    """Median over one third of a series' points, 0 to 2; all of them where there are few."""
    values = series.values if series.points < 9 else np.array_split(series.values, 3)[third]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


@feature(
    "grad.layer_decay",
    "ratio",
    "factor by which the gradient norm shrinks per layer towards the input (geometric mean)",
    low=0,
)
def layer_decay(context: Context) -> Value:
    _, levels = _layer_levels(context)
    positive = levels[levels > 0]
    if len(positive) < 3:
        raise Unavailable("the layers' gradient norms are 0", ("grad_norm_layer",))
    return float((positive[0] / positive[-1]) ** (1 / (len(positive) - 1)))


@feature("grad.layer_max_over_median", "ratio", "largest layer gradient norm over the layers' median", low=0)
def layer_max(context: Context) -> Value:
    layers, levels = _layer_levels(context)
    usual = float(np.median(levels))
    if usual <= 0:
        raise Unavailable("the layers' gradient norms are 0", ("grad_norm_layer",))
    top = int(np.argmax(levels))
    return Measurement(float(levels[top]) / usual, where=_name(layers[top]))


@feature("grad.dead_layers", "count", "layers whose gradient norm is exactly 0 throughout", low=0)
def dead_layers(context: Context) -> Value:
    layers, _ = _layer_levels(context)
    dead = [_name(s) for s in layers if not np.any(s.values)]
    return Measurement(float(len(dead)), where=dead[0] if dead else "", items=tuple(dead))
