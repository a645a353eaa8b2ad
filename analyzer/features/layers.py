"""Weights, optimizer state and activations, layer by layer.

Statistics come from the run's checkpoints; activations from logged scalars.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from analyzer.checkpoints.entries import is_buffer
from analyzer.checkpoints.evidence import (
    first_last_ratio,
    gradient_rms,
    is_pattern,
    weight_scale,
    without_state,
)
from analyzer.checkpoints.evidence import update_ratio as next_updates
from analyzer.features import Context, Value, feature
from analyzer.features.curves import Unavailable
from analyzer.features.histograms import layer_series
from analyzer.model import LayerStats, Measurement, Run, Series

NORM_WORDS = ("norm", "bn", "ln_", "running_", "num_batches")
SECOND_MOMENT = "exp_avg_sq"
UNSET = re.compile(r"(^|[._])(best|min|max)(_\w+)?$", re.IGNORECASE)  # extremes start at infinity


def _weights(context: Context) -> list[LayerStats]:
    """Model tensors of the last checkpoint, in depth order."""
    layers = [s for s in context.layers if s.group == "model"]
    if not layers:
        raise Unavailable("the run has no checkpoint that could be read", ("checkpoint",))
    return [s for s in layers if s.checkpoint == layers[-1].checkpoint]


def _matrices(context: Context) -> list[LayerStats]:
    """Weight matrices and kernels: at least two axes, and not a norm's."""
    found = [
        s
        for s in _weights(context)
        if len(s.shape) >= 2
        and s.count >= 16
        and not any(w in s.name.lower() for w in NORM_WORDS)
        and not is_pattern(s)
    ]
    if not found:
        raise Unavailable("the checkpoint has no weight matrices", ("checkpoint",))
    return found


def _worst(values: Sequence[float], names: Sequence[str], over: float = np.inf) -> Measurement:
    """The largest value with its name; ``items`` are the names of all values beyond ``over``."""
    top = int(np.argmax(values))
    items = tuple(n for n, v in zip(names, values, strict=True) if v > over)
    return Measurement(float(values[top]), where=names[top], items=items)


@feature(
    "weights.nonfinite",
    "count",
    "NaN and Inf elements in the last checkpoint's parameters and buffers",
    low=0,
    label="NaN weights",
)
def nonfinite(context: Context) -> Value:
    layers = _weights(context)
    return _worst_total([_broken(s) for s in layers], [s.name for s in layers])


def _broken(stats: LayerStats) -> int:
    """NaN and Inf, but for infinities that stand for "nothing yet" or "not allowed"."""
    waiting = UNSET.search(stats.name) and not stats.nan and stats.abs_max is None
    return 0 if waiting or is_pattern(stats) else stats.nan + stats.inf


def _worst_total(counts: Sequence[int], names: Sequence[str]) -> Measurement:
    bad = [(c, n) for c, n in zip(counts, names, strict=True) if c]
    where = max(bad)[1] if bad else ""
    return Measurement(float(sum(c for c, _ in bad)), where=where, items=tuple(n for _, n in bad))


@feature("weights.nonfinite_tensors", "count", "tensors with NaN or Inf in the last checkpoint", low=0)
def nonfinite_tensors(context: Context) -> Value:
    bad = tuple(s.name for s in _weights(context) if _broken(s))
    return Measurement(float(len(bad)), where=bad[0] if bad else "", items=bad)


@feature("weights.optimizer_nonfinite", "count", "NaN and Inf elements in the optimizer's state", low=0)
def optimizer_nonfinite(context: Context) -> Value:
    state = [s for s in context.layers if s.group == "optimizer"]
    if not state:
        raise Unavailable("no checkpoint holds optimizer state", ("optimizer_state",))
    return _worst_total([s.nan + s.inf for s in state], [f"{s.name} ({s.slot})" for s in state])


def _scales(stats: list[LayerStats], needs: str) -> tuple[list[float], list[str]]:
    """Weight std against 1 / sqrt(fan_in), the order of Xavier's and He's schemes, with the names."""
    rows = weight_scale(s for s in stats if len(s.shape) >= 2)
    if not rows:
        raise Unavailable("no weight matrix with a known fan-in", (needs,))
    return [row.ratio for row in rows], [row.layer for row in rows]


@feature(
    "weights.scale_max",
    "ratio",
    "largest weight scale: standard deviation times root of the fan-in; initialisation schemes give about 0.6 to 1.4",
    low=0,
    label="weight scale",
)
def scale_max(context: Context) -> Value:
    values, names = _scales(_weights(context), "checkpoint")
    return _worst(values, names, 5.0)


@feature(
    "weights.scale_min", "ratio", "smallest weight scale: standard deviation times root of the fan-in", low=0
)
def scale_min(context: Context) -> Value:
    values, names = _scales(_weights(context), "checkpoint")
    low = int(np.argmin(values))
    return Measurement(float(values[low]), where=names[low])


@feature("weights.scale_median", "ratio", "median weight scale over the layers", low=0)
def scale_median(context: Context) -> Value:
    return float(np.median(_scales(_weights(context), "checkpoint")[0]))


@feature(
    "weights.initial_scale",
    "ratio",
    "median weight scale over the layers of the first of several checkpoints, the nearest to initialisation",
    low=0,
    label="weight scale at the start",
)
def initial_scale(context: Context) -> Value:
    scales, names = _scales([first for first, _ in _first_and_last(context)], "second_checkpoint")
    return Measurement(float(np.median(scales)), where=names[int(np.argmax(scales))])


@feature(
    "weights.initial_outlier",
    "ratio",
    "largest weight scale over the layers' median in the first of several checkpoints",
    low=1,
    label="weight scale against other layers at the start",
)
def initial_outlier(context: Context) -> Value:
    scales, names = _scales([first for first, _ in _first_and_last(context)], "second_checkpoint")
    if len(scales) < 3:
        raise Unavailable("fewer than 3 layers to compare", ("second_checkpoint",))
    found = _worst(scales, names)
    return Measurement(found.value / float(np.median(scales)), where=found.where)


@feature("weights.abs_max", "value", "largest weight in absolute value", low=0)
def abs_max(context: Context) -> Value:
    layers = [s for s in _matrices(context) if s.abs_max is not None and not is_buffer(s.name, s.dtype)]
    if not layers:
        raise Unavailable("no finite weight", ("checkpoint",))
    return _worst([float(s.abs_max or 0) for s in layers], [s.name for s in layers])


def _first_and_last(context: Context) -> list[tuple[LayerStats, LayerStats]]:
    last = {s.name: s for s in _weights(context)}
    every = [s for s in context.layers if s.group == "model"]
    first = {s.name: s for s in every if s.checkpoint == every[0].checkpoint}
    if every[0].checkpoint == every[-1].checkpoint:
        raise Unavailable("only one checkpoint", ("second_checkpoint",))
    pairs = [(first[n], s) for n, s in last.items() if n in first and first[n].shape == s.shape]
    if not pairs:
        raise Unavailable("the checkpoints share no tensor", ("second_checkpoint",))
    return pairs


@feature(
    "weights.norm_growth",
    "ratio",
    "largest growth of a layer's weight norm, from the first checkpoint to the last or as logged",
    low=0,
    label="growth of the weight norm",
)
def norm_growth(context: Context) -> Value:
    try:
        pairs = [(a, b) for a, b in _first_and_last(context) if len(a.shape) >= 2]
        grown = {b.name: float(b.l2) / float(a.l2) for a, b in pairs if a.l2 and b.l2 is not None}
    except Unavailable:
        grown = _logged_growth(context.run)
    if not grown:
        raise Unavailable("no weight matrix at two moments", ("second_checkpoint", "weight_norm_layer"))
    return _worst(list(grown.values()), list(grown), 10.0)


def _logged_growth(run: Run) -> dict[str, float]:
    """By layer, from logged norms or histograms; biases start at 0 and are left out."""
    logged = run.by_role("weight_norm_layer") or layer_series(run, "weight_norm_layer")
    named = {s.subject or s.tag: s.values[np.isfinite(s.values)] for s in logged}
    return {
        name: float(values[-1] / values[0])
        for name, values in named.items()
        if len(values) >= 3 and values[0] > 0 and "bias" not in name.lower()
    }


@feature(
    "weights.unchanged",
    "count",
    "weight tensors that are equal in the first and the last checkpoint while others changed",
    low=0,
    label="unchanged",
)
def unchanged(context: Context) -> Value:
    """Compared by their statistics: equal bytes have equal statistics.

    A bias beside a weight that did change is left out: before a normalisation its gradient is 0.
    """
    pairs = [(a, b) for a, b in _first_and_last(context) if _trainable(b)]
    equal = {b.name for a, b in pairs if _same(a, b)}
    moved = {b.name.rpartition(".")[0] for _, b in pairs if b.name not in equal}
    same = [
        b.name
        for _, b in pairs
        if b.name in equal and not (b.name.endswith(".bias") and b.name.rpartition(".")[0] in moved)
    ]
    if len(equal) == len(pairs):
        raise Unavailable("no tensor changed between the checkpoints", ("second_checkpoint",))
    return Measurement(float(len(same)), where=same[0] if same else "", items=tuple(same))


@feature(
    "weights.norms_unchanged",
    "count",
    "layers whose logged weight norm is the same at every step while that of others changes",
    low=0,
    label="norm unchanged",
)
def norms_unchanged(context: Context) -> Value:
    """Biases are left out: they start at zero, and one before a normalisation may stay there."""
    logged = context.run.by_role("weight_norm_layer") or layer_series(context.run, "weight_norm_layer")
    named = [s for s in logged if s.points >= 5 and "bias" not in (s.subject or s.tag).lower()]
    still = tuple(s.subject or s.tag for s in named if np.ptp(s.values) == 0 and s.values[0] > 0)
    if len(named) < 2 or len(still) == len(named):
        raise Unavailable("no weight norms were logged of which some change", ("weight_norm_layer",))
    return Measurement(float(len(still)), where=still[0] if still else "", items=still)


def _trainable(stats: LayerStats) -> bool:
    return stats.dtype.startswith(("float", "bfloat")) and not any(
        w in stats.name for w in ("running_", "inv_freq", "position_ids", "mask")
    )


def _same(a: LayerStats, b: LayerStats) -> bool:
    return (a.mean, a.std, a.min, a.max, a.l1, a.l2) == (b.mean, b.std, b.min, b.max, b.l1, b.l2) and bool(
        a.std
    )


def _second_moments(context: Context) -> list[LayerStats]:
    found = [
        s for s in context.layers if s.group == "optimizer" and s.slot == SECOND_MOMENT and s.mean is not None
    ]
    if not found:
        raise Unavailable("no checkpoint holds Adam's second moments", ("optimizer_state",))
    return [s for s in found if s.checkpoint == found[-1].checkpoint]


@feature(
    "optimizer.never_trained",
    "count",
    "parameters whose second moment is zero throughout: they never received a gradient",
    low=0,
    label="never trained",
)
def never_trained(context: Context) -> Value:
    dead = tuple(s.name for s in _second_moments(context) if s.zeros == s.count)
    return Measurement(float(len(dead)), where=dead[0] if dead else "", items=dead)


@feature(
    "optimizer.without_state",
    "count",
    "parameters of the model for which the optimizer holds no state, while it does for others",
    low=0,
    label="without optimizer state",
)
def lacking_state(context: Context) -> Value:
    lacking = without_state(context.last_checkpoint)
    return Measurement(float(len(lacking)), where=lacking[0] if lacking else "", items=lacking)


@feature(
    "optimizer.left_out",
    "count",
    "weight matrices without optimizer state between others that have it, where these are the most",
    low=0,
    label="left out by the optimizer",
)
def left_out(context: Context) -> Value:
    """What is frozen on purpose lies at one end, or is nearly everything (adapters); norms often are."""
    if context.last_checkpoint.metadata.get("optimizer_names_known") is not True:
        raise Unavailable("whose state the optimizer holds is not known", ("optimizer_state",))
    lacking = set(without_state(context.last_checkpoint))
    names = [s.name for s in _matrices(context)]
    held = [i for i, name in enumerate(names) if name not in lacking]
    if len(names) < 3 or len(held) < 0.6 * len(names):
        raise Unavailable(
            "fewer than three weight matrices, or most of them without state", ("optimizer_state",)
        )
    between = tuple(name for name in names[held[0] : held[-1]] if name in lacking)
    return Measurement(float(len(between)), where=between[0] if between else "", items=between)


@feature(
    "optimizer.layer_ratio",
    "ratio",
    "RMS gradient of the first third of the weight matrices over the last third, from the optimizer's state",
    low=0,
    label="gradient of early against late layers",
)
def layer_ratio(context: Context) -> Value:
    rows = gradient_rms(context.last_checkpoint, context.layers)
    ratio = first_last_ratio(rows)
    if ratio is None:
        raise Unavailable("fewer than 4 weight matrices with optimizer state", ("optimizer_state",))
    matrices = [row.layer for row in rows if row.axes > 1]
    return Measurement(ratio, where=matrices[0], items=tuple(matrices[: len(matrices) // 3]))


@feature(
    "optimizer.dead_units",
    "ratio",
    "largest share of a layer's units whose second moment is nothing beside the median unit's: no gradient for "
    "thousands of steps",
    low=0,
    high=1,
    label="units without gradient",
)
def optimizer_dead_units(context: Context) -> Value:
    return _dead_units(context, "optimizer", "optimizer_state")


@feature(
    "weights.dead_units",
    "ratio",
    "largest share of a layer's units whose weights are all zero",
    low=0,
    high=1,
    label="units with zero weights",
)
def weight_dead_units(context: Context) -> Value:
    return _dead_units(context, "weights", "checkpoint")


@feature(
    "weights.inactive_channels",
    "ratio",
    "largest share of a batch norm's channels whose scale and shift leave them positive less than once in a thousand",
    low=0,
    high=1,
    label="channels that are almost never positive",
)
def inactive_channels(context: Context) -> Value:
    return _dead_units(context, "batchnorm", "batch_norm")


def _dead_units(context: Context, basis: str, needs: str) -> Measurement:
    found = [d for d in context.dead_units if d.basis == basis and d.units]
    if not found:
        raise Unavailable("no checkpoint tells which units are dead", (needs,))
    return _worst([d.share for d in found], [d.layer for d in found], 0.3)


def _by_layer(context: Context, role: str, what: str) -> list[Series]:
    logged = context.run.by_role(role) or layer_series(context.run, role)
    found = [s for s in logged if np.isfinite(s.values).any()]
    if not found:
        raise Unavailable(f"no {what} was logged", ("activations",))
    return found


def _late_level(series: Series) -> float:
    values = series.values[np.isfinite(series.values)]
    return float(np.median(values[-max(1, len(values) // 5) :]))


def _activation(context: Context, role: str, what: str, over: float) -> Measurement:
    series = _by_layer(context, role, what)
    levels = [_late_level(s) for s in series]
    levels = [v / 100 if v > 1 else v for v in levels]
    found = _worst(levels, [s.subject or s.tag for s in series], over)
    worst = series[int(np.argmax(levels))]
    return Measurement(
        found.value, (float(worst.steps[0]), float(worst.steps[-1])), role, found.where, found.items
    )


@feature(
    "act.zero_fraction",
    "ratio",
    "largest share of zero activations of a layer, late in the run",
    low=0,
    high=1,
    label="zero activations",
)
def zero_fraction(context: Context) -> Value:
    return _activation(context, "activation_zero_fraction", "share of zero activations", 0.9)


@feature("act.zero_layers", "count", "layers with more than 90 % zero activations late in the run", low=0)
def zero_layers(context: Context) -> Value:
    found = _activation(context, "activation_zero_fraction", "share of zero activations", 0.9)
    return Measurement(float(len(found.items)), where=found.where, items=found.items)


@feature(
    "act.saturation",
    "ratio",
    "largest share of saturated activations of a layer, late in the run",
    low=0,
    high=1,
    label="saturated activations",
)
def saturation(context: Context) -> Value:
    return _activation(context, "activation_saturation", "share of saturated activations", 0.8)


@feature(
    "update.ratio",
    "ratio",
    "median size of an update relative to its weights, over the layers; about 1e-3 is usual",
    low=0,
)
def update_ratio(context: Context) -> Value:
    """As logged, else that of the next Adam step of the last checkpoint."""
    series = [s for s in context.run.by_role("update_ratio") if np.isfinite(s.values).any()]
    if series:
        return float(np.median([np.median(s.values[np.isfinite(s.values)]) for s in series]))
    ratios = [row.ratio for row in next_updates(context.last_checkpoint) if row.axes > 1]
    if not ratios:
        raise Unavailable("no update-to-weight ratio was logged, and no Adam state kept", ("update_ratio",))
    return float(np.median(ratios))
