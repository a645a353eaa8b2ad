"""A training loss against the parts it was logged with: terms whose weight grows are no lack of progress."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, feature, once
from analyzer.features.curves import Curve, Unavailable, parts_of
from analyzer.features.robust import median
from analyzer.features.trend import regain
from analyzer.model import FloatArray

SEEN = 0.01  # of the loss: a smaller remainder is rounding


@once
def _parts(context: Context) -> Curve:
    """The sum of the logged parts, at the loss's own steps; raises Unavailable."""
    loss, parts = context.curve("train_loss"), parts_of(context.run, "train_loss")
    loss.need(8)
    if parts.n != loss.n or not np.array_equal(parts.steps, loss.steps):
        raise Unavailable("the loss and its parts were not logged together", ("train_loss_part",))
    return parts


@feature(
    "train_loss.annealed",
    "ratio",
    "share of the final training loss that is there because the weight of a regularising term grew during the run, "
    "as that of the KL divergence of a variational autoencoder",
    low=0,
    label="part of the loss by a growing weight",
)
def annealed(context: Context) -> Value:
    """The weight is what the loss holds beyond its logged parts, over the term as logged."""
    loss, parts = context.curve("train_loss"), _parts(context)
    remainder, third = loss.raw - parts.raw, loss.n // 3
    if median(remainder[-third:]) < SEEN * abs(median(loss.raw[-third:])):
        raise Unavailable("the logged parts explain the whole loss", ("train_loss",))
    terms = context.run.by_role("regularizer")
    grown = [_grown(remainder, s.values) for s in terms if np.array_equal(s.steps, loss.steps)]
    if not grown:
        raise Unavailable("no regularising term was logged beside the loss", ("regularizer",))
    return max(0.0, *grown) / abs(loss.to_raw(loss.end))


def _grown(remainder: FloatArray, term: FloatArray) -> float:
    """What the growth of the weight from the first twentieth to the last third adds to the loss; 0 where it is no weight."""
    third = len(term) // 3
    if not np.isfinite(term).all() or np.min(term[1:]) <= 0:
        return 0.0
    weight = remainder[1:] / term[1:]  # before training the term may be zero
    early, late = median(weight[: max(1, len(term) // 20)]), median(weight[-third:])
    return max(0.0, late - max(0.0, early)) * median(term[-third:]) if late > 2 * early else 0.0


@feature(
    "train_loss.parts_descent",
    "ratio",
    "improvement of the sum of the training loss's logged parts from its start to its end, relative",
    label="improvement of the parts",
)
def parts_descent(context: Context) -> Value:
    parts = _parts(context)
    if min(parts.start, parts.end) <= 0:
        raise Unavailable("the parts are not positive", ("train_loss_part",))
    return 1 - parts.to_raw(parts.end) / parts.to_raw(parts.start)


@feature(
    "train_loss.parts_regain",
    "ratio",
    "share of what the sum of the training loss's logged parts had gained that it lost again by the end",
    low=0,
    high=1,
    label="progress of the parts lost again",
)
def parts_regain(context: Context) -> Value:
    return regain(_parts(context))
