"""What the last checkpoint's optimizer, scaler, biases and norms tell beyond the weights themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyzer.checkpoints import preactivations, steps
from analyzer.features import Context, Value, feature, once
from analyzer.features.curves import Unavailable
from analyzer.model import LayerStats, Measurement

NEVER_ACTIVE = 0.01  # a bound on the probability of being positive
MANY = 0.3  # of a layer's units
FEWEST = 8  # units of a layer of which a share is spoken of


def _layers(context: Context) -> list[LayerStats]:
    last = context.last_checkpoint.path
    return [layer for layer in context.layers if layer.checkpoint == last]


def _largest(shares: Sequence[float], names: Sequence[str], over: float) -> Measurement:
    top = int(np.argmax(shares))
    items = tuple(name for name, share in zip(names, shares, strict=True) if share > over)
    return Measurement(float(shares[top]), where=names[top], items=items)


@once
def _stopped(context: Context) -> tuple[steps.StoppedUnits, ...]:
    return steps.stopped_units(context.last_checkpoint, _layers(context))


@feature(
    "optimizer.stopped_units",
    "ratio",
    "largest share of a layer's units whose gradient stopped a hundred steps ago or more, or never came, by Adam's "
    "two moments",
    low=0,
    high=1,
    label="units whose gradient stopped",
)
def stopped_units(context: Context) -> Value:
    rows = [row for row in _stopped(context) if row.units >= FEWEST]
    if not rows:
        raise Unavailable("no checkpoint holds both of Adam's moments", ("optimizer_state",))
    return _largest([row.share for row in rows], [row.layer for row in rows], MANY)


@feature(
    "optimizer.stopped_steps_ago",
    "step",
    "about how many steps ago the gradient of the layer with the most stopped units stopped",
    low=0,
    label="steps since the gradient stopped",
)
def stopped_steps_ago(context: Context) -> Value:
    rows = [row for row in _stopped(context) if row.steps_ago is not None and row.units >= FEWEST]
    if not rows:
        raise Unavailable("no unit's gradient stopped in training", ("optimizer_state",))
    worst = max(rows, key=lambda row: row.share)
    return Measurement(float(worst.steps_ago or 0), where=worst.layer)


@feature(
    "optimizer.missed_steps",
    "ratio",
    "largest share of the optimizer's steps that a parameter had no gradient on",
    low=0,
    high=1,
    label="steps without gradient",
)
def missed_steps(context: Context) -> Value:
    counted = [layer for layer in _layers(context) if layer.slot == "step"]
    if not counted:
        raise Unavailable("the optimizer keeps no step of each parameter", ("optimizer_state",))
    late = steps.late_parameters(counted)
    if not late:
        return 0.0
    return _largest([row.missed for row in late], [row.layer for row in late], 0.0)


@feature(
    "checkpoint.loss_scale",
    "value",
    "scale of the loss scaler in the last checkpoint",
    low=0,
    label="loss scale",
)
def loss_scale(context: Context) -> Value:
    found = steps.loss_scale(context.last_checkpoint)
    if found is None:
        raise Unavailable("no checkpoint holds a loss scaler", ("loss_scale",))
    return found.scale


@feature(
    "checkpoint.skipped_steps",
    "ratio",
    "share of the steps of training that the optimizer did not take, where there is a loss scaler",
    low=0,
    high=1,
    label="skipped steps",
)
def skipped_steps(context: Context) -> Value:
    skipped = steps.skipped_steps(context.last_checkpoint)
    if skipped is None:
        raise Unavailable("no loss scaler, or not both counters", ("loss_scale", "step"))
    return skipped / float(context.last_checkpoint.step or 1)


@feature(
    "norm.never_active",
    "ratio",
    "largest share of a batch norm's channels that are positive with a probability below 1 %, whatever their "
    "distribution (Cantelli's bound)",
    low=0,
    high=1,
    label="channels that are hardly ever positive",
)
def never_active(context: Context) -> Value:
    rows = preactivations.channel_activity(context.last_checkpoint)
    if not rows:
        raise Unavailable("the checkpoint has no batch norm", ("batch_norm",))
    return _largest([float(np.mean(row.bound < NEVER_ACTIVE)) for row in rows], [r.layer for r in rows], MANY)


@feature(
    "norm.off_channels",
    "ratio",
    "largest share of a layer norm's channels whose scale is below a thousandth of the median channel's",
    low=0,
    high=1,
    label="channels that a layer norm switched off",
)
def off_channels(context: Context) -> Value:
    rows = preactivations.norm_scales(context.last_checkpoint)
    if not rows:
        raise Unavailable("the checkpoint has no layer norm", ("layer_norm",))
    return _largest([row.off / row.channels for row in rows], [row.layer for row in rows], MANY)


@once
def _certificates(context: Context) -> tuple[preactivations.Certificate, ...]:
    rows = tuple(row for row in preactivations.certificates(context.last_checkpoint) if row.units >= FEWEST)
    if not rows:
        raise Unavailable("the checkpoint has no weight with a bias", ("bias",))
    return rows


@feature(
    "weights.shut_units",
    "ratio",
    "largest share of a layer's units whose weights and bias are all zero or negative: never positive for inputs "
    "that are not negative, as those behind a ReLU; units that Adam's moments show to learn do not count",
    low=0,
    high=1,
    label="units that no non-negative input can open",
)
def shut_units(context: Context) -> Value:
    rows = _certificates(context)
    layers = _layers(context)
    stopped = {row.layer: row.share for row in steps.stopped_units(context.last_checkpoint, layers)}
    living = {name: stopped.get(name, 0.0) for name in steps.learning(layers)}
    shares = [min(row.shut / row.units, living.get(row.layer, 1.0)) for row in rows]
    return _largest(shares, [row.layer for row in rows], MANY)


@feature(
    "weights.closed_units",
    "ratio",
    "largest share of a layer's units that are not positive for any input between 0 and 1, by bias against weights",
    low=0,
    high=1,
    label="units that no input between 0 and 1 can open",
)
def closed_units(context: Context) -> Value:
    rows = _certificates(context)
    return _largest([row.never / row.units for row in rows], [row.layer for row in rows], MANY)


@feature(
    "weights.pinned_units",
    "ratio",
    "largest share of a layer's units that are beyond ±4 for all inputs between -1 and 1, by bias against weights",
    low=0,
    high=1,
    label="units that a sigmoid or tanh holds at its limit",
)
def pinned_units(context: Context) -> Value:
    rows = _certificates(context)
    return _largest([row.pinned / row.units for row in rows], [row.layer for row in rows], MANY)


@feature(
    "attention.logit_scale",
    "value",
    "largest root mean square attention logit of a head for inputs of unit variance; about 1 at initialisation",
    low=0,
    label="attention logits",
)
def logit_scale(context: Context) -> Value:
    rows = [
        row for row in preactivations.attention_logits(context.last_checkpoint) if np.isfinite(row.logits)
    ]
    if not rows:
        raise Unavailable("no query and key weights that could be told by name", ("attention",))
    worst = max(rows, key=lambda row: row.logits)
    return Measurement(worst.logits, where=worst.layer)
