"""Isolated one-sided jumps with recovery."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.features import Value, curve_feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import mad_sigma, running_median
from analyzer.model import FloatArray, Measurement

SIGMAS = 8.0
HEIGHT = 0.25  # of the way covered: a smaller jump does not matter, however significant


@dataclass(frozen=True)
class Spikes:
    steps: FloatArray  # of each spike's highest point
    heights: FloatArray  # above the local level, relative to the way covered
    recovery: FloatArray  # share of each height that was regained within a twentieth of the run
    dips: int  # jumps of the same size downwards
    lesser: int  # upward jumps of at least half the size that counts


_FOUND: WeakKeyDictionary[Curve, Spikes] = WeakKeyDictionary()


def find_spikes(curve: Curve) -> Spikes:
    curve.need(24)
    if curve.span <= 0:
        raise Unavailable(f"{curve.role} never changes", (curve.role,))
    if (known := _FOUND.get(curve)) is None:
        known = _FOUND[curve] = _find(curve)
    return known


def _find(curve: Curve) -> Spikes:
    level = _local_level(curve)
    residual = curve.cost - level
    skip = max(2, curve.n // 25)  # the first steep descent is no spike, nor is its first wobble
    bar = max(SIGMAS * mad_sigma(residual[skip:]), HEIGHT * curve.span)
    peaks = _groups(residual > bar, residual, skip)
    window = max(3, curve.n // 20)
    recovery = [1 - (np.min(curve.cost[p : p + window + 1]) - level[p]) / residual[p] for p in peaks]
    return Spikes(
        curve.steps[peaks],
        residual[peaks] / curve.span,
        np.clip(np.array(recovery, dtype=np.float64), 0, 1),
        len(_groups(-residual > bar, -residual, skip)),
        len(_groups(residual > bar / 2, residual, skip)),
    )


def _local_level(curve: Curve) -> FloatArray:
    """Running median over a window that a spike cannot fill."""
    if curve.n <= 4000:
        return running_median(curve.cost, max(9, curve.n // 25 | 1))
    return np.interp(curve.steps, curve.block_steps, running_median(curve.blocks, 5))


def _groups(mask: np.ndarray, height: FloatArray, skip: int) -> np.ndarray:
    """Index of the highest point of each run of True at or after ``skip``."""
    index = np.flatnonzero(mask)
    index = index[index >= skip]
    if not len(index):
        return index
    groups = np.split(index, np.flatnonzero(np.diff(index) > 3) + 1)
    return np.array([g[np.argmax(height[g])] for g in groups])


def _recovered(spikes: Spikes) -> np.ndarray:
    return spikes.recovery >= 0.7


@curve_feature(
    "spike_count",
    "count",
    "isolated upward jumps of the {curve} that it recovered from",
    low=0,
    label="spike",
)
def spike_count(curve: Curve) -> Value:
    spikes = find_spikes(curve)
    good = _recovered(spikes)
    if not good.any():
        return Measurement(0.0)
    worst = float(spikes.steps[good][np.argmax(spikes.heights[good])])
    return Measurement(
        float(good.sum()),
        (worst, worst),
        curve.role,
        items=tuple(f"{step:g}" for step in spikes.steps[good]),
    )


@curve_feature(
    "spike_height",
    "ratio",
    "height of the highest spike of the {curve} above its surroundings, relative to the way it covered",
    low=0,
    label="highest spike",
)
def spike_height(curve: Curve) -> Value:
    spikes = find_spikes(curve)
    good = _recovered(spikes)
    if not good.any():
        return Measurement(0.0)
    i = int(np.argmax(spikes.heights[good]))
    return curve.at(float(spikes.steps[good][i]), float(spikes.heights[good][i]))


@curve_feature(
    "spike_share",
    "ratio",
    "share of the {curve}'s points that are the top of a jump; isolated ones are few",
    low=0,
    high=1,
)
def spike_share(curve: Curve) -> Value:
    return len(find_spikes(curve).steps) / curve.n


@curve_feature(
    "spike_isolation",
    "ratio",
    "spikes of the {curve} against all its upward jumps of at least half their size; noise with a heavy tail has "
    "many more of these",
    low=0,
    high=1,
)
def spike_isolation(curve: Curve) -> Value:
    spikes = find_spikes(curve)
    if not spikes.lesser:
        raise Unavailable(f"{curve.role} has no jumps", (curve.role,))
    return min(1.0, len(spikes.steps) / spikes.lesser)


@curve_feature(
    "spike_onesidedness",
    "ratio",
    "share of the {curve}'s jumps that go upwards; noise of heavy tails is near one half",
    low=0,
    high=1,
)
def spike_onesidedness(curve: Curve) -> Value:
    spikes = find_spikes(curve)
    jumps = len(spikes.steps) + spikes.dips
    if not jumps:
        raise Unavailable(f"{curve.role} has no jumps", (curve.role,))
    return len(spikes.steps) / jumps
