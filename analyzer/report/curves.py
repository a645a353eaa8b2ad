"""Which of a run's curves to show, and how to thin them without losing an extreme."""

from __future__ import annotations

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
    """The curve to show where there is room for one: of several of one role the longest, as it is judged."""
    curves = main_curves(run)
    return max((s for s in curves if s.role == curves[0].role), key=lambda s: s.points, default=None)


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


def thin(values: FloatArray, most: int) -> IntArray:
    """Indices of about ``most`` points that keep every extreme and every NaN in sight.

    Of each equal share of the curve: the first, the last, the lowest and the highest finite one, and
    the first and last that are not finite.
    """
    if len(values) <= most:
        return np.arange(len(values))
    length = -(-len(values) // max(1, most // 4))
    rows = np.append(values, np.full(-len(values) % length, np.nan)).reshape(-1, length)
    firsts = np.arange(len(rows)) * length
    finite = np.isfinite(rows)
    low = np.where(finite, rows, np.inf).argmin(axis=1)
    high = np.where(finite, rows, -np.inf).argmax(axis=1)
    broken = ~finite
    ends = [broken.argmax(axis=1), length - 1 - broken[:, ::-1].argmax(axis=1)]
    ends = [np.where(broken.any(axis=1), end, 0) for end in ends]
    picked = [firsts, firsts + length - 1, *(firsts + part for part in (low, high, *ends))]
    return np.unique(np.minimum(np.concatenate(picked), len(values) - 1))


def medians(steps: FloatArray, values: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """The middle step and the median value of each of about ``count`` equal shares of the finite points.

    Fewer where a share would hold less than six points.
    """
    finite = np.flatnonzero(np.isfinite(values))
    length = max(6, -(-len(finite) // count))
    whole = len(finite) // length * length
    shares = [finite[:whole].reshape(-1, length), finite[whole:].reshape(1, -1)]
    shares = [share for share in shares if share.size]
    if not shares:
        return finite.astype(np.float64), finite.astype(np.float64)
    middle = np.concatenate([share[:, share.shape[1] // 2] for share in shares])
    return steps[middle], np.concatenate([np.median(values[share], axis=1) for share in shares])


def _split(series: Series) -> int:
    split = series.role.partition("_")[0]
    return _SPLITS.index(split) if split in _SPLITS else len(_SPLITS)
