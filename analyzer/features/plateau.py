"""Flat stretches, by an equivalence test on blocks."""

from __future__ import annotations

import numpy as np

from analyzer.features import Value, curve_feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import point_noise

BAND = 0.02  # of the way covered: a change smaller than this is no progress anyone would wait for


def flat_start(curve: Curve) -> int:
    """Index of the block where the flat stretch at the end of the curve begins.

    Flat: every block from there on lies within the band or within the noise of the median of
    what follows it, and the stretch's two halves differ by less than the band.
    """
    blocks, noise = curve.smooth, max(point_noise(curve.blocks), curve.level_noise())
    band = max(BAND * curve.span, 2.0 * noise)
    first = len(blocks) - 1
    for i in range(len(blocks) - 2, -1, -1):
        if abs(blocks[i] - np.median(blocks[i + 1 :])) > 2 * band:
            break
        first = i
    while first < len(blocks) - 4:
        middle = (first + len(blocks)) // 2
        if abs(np.median(blocks[first:middle]) - np.median(blocks[middle:])) <= band:
            break
        first += max(1, (len(blocks) - first) // 20)
    return first


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
    begin = float(curve.block_steps[flat_start(curve)])
    return curve.over(begin, float(curve.steps[-1]), 1 - curve.position(begin))


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
