"""Which of a run's curves to show, and how to thin them without losing an extreme."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from analyzer.model import FloatArray, IntArray, Run, Series

MOST = 6  # curves in one chart; more cannot be told apart
_SPLITS = ("train", "val", "test")
# What tells a run's story, best first, as the part of a role that comes after the split. The losses
# of reinforcement and adversarial learning say little of progress.
_STORY = (
    "loss", "reward", "loss_part", "accuracy", "metric", "gan_loss", "rl_loss", "class_metric", "",
)  # fmt: skip


def main_curves(run: Run) -> tuple[Series, ...]:
    """At most six curves that tell the run's story, the most telling first; none where none does."""
    families = {family(s.role) for s in run.series if s.points}
    chosen = next((name for name in _STORY if name in families), None)
    return () if chosen is None else of_family(run, chosen)


def family(role: str) -> str:
    """The role without its split: ``loss`` for ``val_loss``."""
    split, _, rest = role.partition("_")
    return rest if split in _SPLITS else role


def of_family(run: Run, name: str) -> tuple[Series, ...]:
    """The curves that share a chart: of one family and axis, and of one measure where it has several."""
    found = sorted((s for s in run.series if s.points and family(s.role) == name), key=_split)
    found = [s for s in found if s.axis == found[0].axis]
    if name == "metric":
        found = [s for s in found if s.subject == found[0].subject]
    return spread_out(tuple(found))


def main_curve(run: Run) -> Series | None:
    return next(iter(main_curves(run)), None)


def spread_out(series: tuple[Series, ...]) -> tuple[Series, ...]:
    """At most six of many alike, from the first to the last: of layers, the early and the late."""
    if len(series) <= MOST:
        return series
    return tuple(series[i] for i in np.linspace(0, len(series) - 1, MOST).astype(int))


def ordered(series: Series) -> tuple[FloatArray, FloatArray]:
    """Steps and values of the points whose step is finite, in the order of the steps."""
    kept = np.isfinite(series.steps)
    steps, values = series.steps[kept], series.values[kept]
    if np.any(np.diff(steps) < 0):
        order = np.argsort(steps, kind="stable")
        return steps[order], values[order]
    return steps, values


def columns(places: FloatArray, count: int) -> IntArray:
    """The column 0…count-1 that each place (0…1, ascending) falls in."""
    return np.clip((places * count).astype(np.int64), 0, count - 1)


def envelope(column: IntArray, values: FloatArray) -> IntArray:
    """Indices that keep every column's first, last, lowest and highest finite value.

    ``column`` ascends. The drawn line covers the same pixels as the whole curve would.
    """
    kept = [_extremes(group, values) for group in _by_column(column, values)]
    return np.concatenate(kept) if kept else np.array([], dtype=np.int64)


def medians(column: IntArray, values: FloatArray) -> tuple[IntArray, FloatArray]:
    """Per column with a finite value: the column, and the (upper) median of its finite values."""
    groups = _by_column(column, values)
    middle = [np.partition(values[g], len(g) // 2)[len(g) // 2] for g in groups]
    return np.array([column[g[0]] for g in groups], dtype=np.int64), np.array(middle, dtype=np.float64)


def _by_column(column: IntArray, values: FloatArray) -> list[IntArray]:
    """The indices of the finite values, one array per column that has any."""
    finite = np.flatnonzero(np.isfinite(values))
    cuts = (np.flatnonzero(np.diff(column[finite])) + 1).tolist()
    bounds = [0, *cuts, len(finite)]
    return [finite[a:b] for a, b in pairwise(bounds) if b > a]


def _extremes(group: IntArray, values: FloatArray) -> IntArray:
    if len(group) <= 4:
        return group
    part = values[group]
    kept = {0, len(group) - 1, int(part.argmin()), int(part.argmax())}
    return group[sorted(kept)]


def _split(series: Series) -> int:
    split = series.role.partition("_")[0]
    return _SPLITS.index(split) if split in _SPLITS else len(_SPLITS)
