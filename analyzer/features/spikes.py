"""Isolated one-sided jumps with recovery."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.features import Value, curve_feature
from analyzer.features.curves import Curve, Unavailable
from analyzer.features.robust import MAD_TO_SIGMA, mad_sigma, median, point_noise, running_median
from analyzer.model import FloatArray, Measurement

SIGMAS = 8.0
ISOLATED = 0.4  # of the jumps of at least half the size: noise with a heavy tail has many of these
MANY, COMMON = 20, 0.005  # more jumps than this, and more than this share of the points, are noise
GAP = 2.0  # times as high as the next: it stands out
HEIGHT = 0.25  # of the way covered: a smaller jump does not matter, however significant
FEWEST, FEW = 8, 24  # points: of fewer nothing can be told, of more the noise is known
FEW_RISE = 2.5  # times the level on both sides: of a few points one seldom is so high, whatever the noise
FEW_SIGMAS = 5.0  # and of their scatter, on a log scale
FEW_SHARE = 0.2  # of the points: more bursts than that are noise
BURST = 2  # points at most
SIDE = 3  # points that make the level before, and after


@dataclass(frozen=True)
class Spikes:
    steps: FloatArray  # of each spike's highest point
    heights: FloatArray  # above the local level, relative to the way covered
    recovery: FloatArray  # share of each height that was regained within a twentieth of the run
    levels: FloatArray  # each height relative to the local level; NaN where that is not positive
    dips: int  # jumps of the same size downwards
    isolated: bool  # few, and without lesser jumps beside them


_FOUND: WeakKeyDictionary[Curve, Spikes] = WeakKeyDictionary()


def find_spikes(curve: Curve) -> Spikes:
    curve.need(FEWEST)
    if curve.span <= 0:
        raise Unavailable(f"{curve.role} never changes", (curve.role,))
    if (known := _FOUND.get(curve)) is None:
        known = _FOUND[curve] = _find(curve) if curve.n >= FEW else _find_among_few(curve)
    return known


_CALM: WeakKeyDictionary[Curve, FloatArray] = WeakKeyDictionary()


def without_jumps(curve: Curve) -> FloatArray:
    """The linear cost with every jump beyond the noise cut down to it, so that one outlier is no swing."""
    if curve.n < FEW:
        return curve.linear
    if (known := _CALM.get(curve)) is None:
        known = _CALM[curve] = _cut_down(curve)
    return known


def _cut_down(curve: Curve) -> FloatArray:
    residual = curve.linear - curve.linear_level
    reach = SIGMAS * mad_sigma(residual)
    return np.asarray(curve.linear - residual + np.clip(residual, -reach, reach))


def _find(curve: Curve) -> Spikes:
    """On the curve's own scale; where that is logarithmic and shows none, on the linear one."""
    found = _jumps(curve, curve.cost, curve.level, curve.span, curve.log)
    if curve.log and not (len(found.steps) and found.isolated):
        return _jumps(curve, curve.linear, curve.linear_level, curve.linear_span, False)
    return found


def _find_among_few(curve: Curve) -> Spikes:
    """Bursts of at most two points among 8 to 23: far above the levels on both sides, on a log scale.

    The noise is that of the points outside of all bursts. What the log ends with may be the start of anything.
    """
    if curve.direction == "higher" or np.min(curve.raw) <= 0:
        raise Unavailable(f"{curve.role} has {curve.n} points; {FEW} are needed", (curve.role,))
    values = np.log(curve.raw)
    middle = np.arange(1, curve.n - BURST)
    sides = np.array([_sides(values, i) for i in middle.tolist()])
    upper, lower = sides.max(axis=1), sides.min(axis=1)
    above, below = values[middle] - upper, lower - values[middle]
    bar = float(np.log(FEW_RISE))
    beside = np.unique(np.clip(middle[above > bar][:, None] + [-1, 0, 1], 0, curve.n - 1))
    bar = max(bar, FEW_SIGMAS * point_noise(np.delete(values, beside)))
    high = _groups(above > bar, above, 0, apart=1)
    heights = curve.raw[middle[high]] - np.exp(upper[high])
    return Spikes(
        curve.steps[middle[high]],
        heights / curve.linear_span,
        np.ones(len(high)),  # the median of what follows is low again
        np.expm1(above[high]),
        int(np.sum(below > bar)),
        len(high) <= FEW_SHARE * curve.n,
    )


def _sides(values: FloatArray, i: int) -> tuple[float, float]:
    """Levels before and after a burst whose highest point is at ``i``."""
    return median(values[max(0, i - SIDE) : i]), median(values[i + 1 : i + 1 + SIDE])


def _jumps(curve: Curve, cost: FloatArray, level: FloatArray, span: float, log: bool) -> Spikes:
    residual = cost - level
    skip = max(2, curve.n // 25)  # the first steep descent is no spike, nor is its first wobble
    batches = curve.role == "train_loss" and not log
    bar = np.maximum(SIGMAS * _sigma(residual, level, skip, batches), HEIGHT * span)
    jumps = _groups(residual > bar / 2, residual, skip)
    excess = residual[jumps] / bar[jumps]
    high = excess > 1
    isolated = not _crowd(int(high.sum()), len(jumps), curve.n)
    if not isolated and (standing := _outstanding(excess)).any():
        high, isolated = standing, True
    peaks = jumps[high]
    dips = _groups(level - cost > bar, -residual, skip)
    if len(dips):  # what lies between two spikes is none
        floor = running_median(cost, max(25, curve.n // 4 | 1))
        dips = dips[floor[dips] - cost[dips] > bar[dips]]
    window = max(3, curve.n // 20)
    recovery = [1 - (np.min(cost[p : p + window + 1]) - level[p]) / residual[p] for p in peaks]
    return Spikes(
        curve.steps[peaks],
        residual[peaks] / span,
        np.clip(np.array(recovery, dtype=np.float64), 0, 1),
        np.expm1(residual[peaks]) if log else _relative(residual[peaks], level[peaks]),
        len(dips),
        isolated,
    )


def _relative(heights: FloatArray, levels: FloatArray) -> FloatArray:
    return np.where(levels > 0, heights / np.where(levels > 0, levels, 1.0), np.nan)


def _crowd(peaks: int, jumps: int, points: int) -> bool:
    """Whether peaks are so common, or have so many lesser jumps beside them, that they are rather noise."""
    return peaks < ISOLATED * jumps or (peaks > MANY and peaks > COMMON * points)


def _outstanding(excess: FloatArray) -> np.ndarray:
    """Which jumps stand out from a crowd: those above the lowest wide gap between heights, of at most 20."""
    ranked = np.sort(excess)[::-1]
    gaps = np.flatnonzero((ranked[:-1] >= GAP * ranked[1:]) & (ranked[:-1] > 1))
    gaps = gaps[gaps < MANY]
    return np.asarray(excess >= ranked[gaps[-1]] if len(gaps) else np.zeros(len(excess), bool))


def _sigma(residual: FloatArray, level: FloatArray, skip: int, batches: bool) -> FloatArray:
    """Noise around each point, at least that of the run.

    That of batches shrinks with the loss: in proportion to a positive one, else as measured around.
    """
    overall = np.full(len(residual), mad_sigma(residual[skip:]))
    if not batches:
        return overall
    if np.min(level) > 0:
        return np.asarray(np.maximum(overall, level * mad_sigma((residual / level)[skip:])))
    around = running_median(np.abs(residual), len(residual) // 5 | 1)
    return np.asarray(np.maximum(overall, MAD_TO_SIGMA * around))


def _groups(mask: np.ndarray, height: FloatArray, skip: int, apart: int = 3) -> np.ndarray:
    """Index of the highest point of each run of True, of those whose highest is at or after ``skip``.

    Runs no more than ``apart`` from each other are one.
    """
    index = np.flatnonzero(mask)
    if not len(index):
        return index
    groups = np.split(index, np.flatnonzero(np.diff(index) > apart) + 1)
    highest = np.array([g[np.argmax(height[g])] for g in groups])
    return np.asarray(highest[highest >= skip])


MARKED = 12  # spikes that are drawn one by one


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
        points=tuple(float(step) for step in spikes.steps[good][np.argsort(-spikes.heights[good])[:MARKED]]),
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
    "spike_rise",
    "ratio",
    "height of the highest spike of the {curve} above its surroundings, relative to their level",
    low=0,
    label="highest spike against the level around it",
)
def spike_rise(curve: Curve) -> Value:
    rises = find_spikes(curve).levels
    if not np.isfinite(rises).any():
        raise Unavailable(f"{curve.role} has no spike above a positive level", (curve.role,))
    return float(np.nanmax(rises))


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
    "spikes_isolated",
    "flag",
    "1 where the {curve}'s jumps are few and stand alone; noise with a heavy tail has many, of every size",
    low=0,
    high=1,
    label="isolated",
)
def spikes_isolated(curve: Curve) -> Value:
    spikes = find_spikes(curve)
    if not len(spikes.steps):
        raise Unavailable(f"{curve.role} has no jumps", (curve.role,))
    return float(spikes.isolated)


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
