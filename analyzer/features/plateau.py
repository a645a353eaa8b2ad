"""Flat stretches, by an equivalence test on blocks."""

from __future__ import annotations

from bisect import insort

import numpy as np

from analyzer.features import Value, curve_feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import (
    block_edges,
    block_medians,
    kendall_tau,
    mann_kendall_z,
    median,
    running_median,
)
from analyzer.model import FloatArray

FINEST = 40  # blocks: enough to place the start of a stretch, few enough to average noise out
BAND = 0.02  # of the way covered: a change smaller than this is no progress anyone would wait for


def flat_start(curve: Curve) -> float:
    """Step at which the flat stretch at the end of the curve begins.

    Flat, over at most 40 blocks: every block lies within the band or within the noise of the
    median of what follows it; the stretch shows no trend (|tau| at most 0.5, or less than the
    band from its first to its second half).
    """
    edges = block_edges(curve.n, FINEST)
    blocks = block_medians(curve.cost, FINEST)
    averaged = 1.25 * curve.noise / np.sqrt(curve.n / len(blocks)) if curve.n > len(blocks) else curve.noise
    band = max(BAND * curve.span, 2.0 * float(averaged))
    calm = running_median(blocks, 3)  # one block off the level does not end a stretch
    first = len(blocks) - 1
    following: list[float] = []  # blocks, in order of size
    while first > 0:
        insort(following, float(blocks[first]))
        middle = (following[(len(following) - 1) // 2] + following[len(following) // 2]) / 2
        if abs(calm[first - 1] - middle) > 1.5 * band:
            break
        first -= 1
    while first < len(blocks) - 4 and _trends(blocks[first:], BAND * curve.span):
        first += 1
    return float(curve.steps[edges[first]])


def _trends(stretch: FloatArray, band: float) -> bool:
    half = len(stretch) // 2
    change = abs(median(stretch[:half]) - median(stretch[half:]))
    return change > band and abs(kendall_tau(stretch)) > 0.5


@curve_feature(
    "plateau_share",
    "ratio",
    "share of the run, counted from its end, in which the {curve} is flat",
    low=0,
    high=1,
    label="flat",
)
def plateau_share(curve: Curve) -> Value:
    curve.need(8)
    if curve.span <= 0:
        return curve.over(curve.first_step, float(curve.steps[-1]), 1.0)
    begin = flat_start(curve)
    return curve.over(begin, float(curve.steps[-1]), 1 - curve.position(begin))


@curve_feature(
    "plateau_trend",
    "sigma",
    "significance of the {curve}'s trend within its flat end; far below 0 where it creeps on, too slowly to be seen",
    label="trend of the flat stretch",
)
def plateau_trend(curve: Curve) -> Value:
    curve.need(8)
    flat = curve.cost[int(np.searchsorted(curve.steps, flat_start(curve))) :]
    if len(flat) < 8:
        raise Unavailable(f"{curve.role} has no flat stretch of 8 points", (curve.role,))
    return mann_kendall_z(flat)


@curve_feature(
    "gained_before_plateau",
    "ratio",
    "improvement of the {curve} before it became flat, relative to its start value",
)
def gained_before_plateau(curve: Curve) -> Value:
    curve.need(8)
    first, level = curve.to_raw(curve.start), curve.to_raw(curve.end)
    if curve.direction == "higher" or min(first, level) <= 0:
        raise Unavailable(f"{curve.role} has no relative scale", (curve.role,))
    return (first - level) / first
