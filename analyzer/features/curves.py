"""The curve that stands for a role, prepared for measuring.

Several series may carry one role (per step and per epoch, several losses that add up, several
evaluation sets). One is chosen, or a sum is formed, here and only here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from analyzer.features.histograms import layer_series
from analyzer.features.robust import block_edges, block_medians, median, point_noise, running_median
from analyzer.model import Axis, FloatArray, Measurement, Run, Series

BLOCKS = 200
FINE = 4000  # points up to which a running median is taken of the points, not of blocks
REPEATED = 4  # times in a row that most values occur: they were carried on, not measured
LOG_DECADES = 3.0  # beyond this span a positive curve is measured on a log scale


class Unavailable(Exception):
    """Raised by a feature that cannot be measured on this run."""

    def __init__(self, reason: str, needs: Sequence[str] = ()):
        super().__init__(reason)
        self.reason = reason
        self.needs = tuple(needs)


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve as a cost: lower is better whatever was logged.

    ``steps``, ``raw``: the finite points, as logged. ``all_steps``, ``all_raw``: with NaN and Inf.
    """

    role: str
    tag: str
    axis: Axis
    direction: str
    all_steps: FloatArray
    all_raw: FloatArray
    wall_times: FloatArray | None = None
    measure: str = ""  # what a metric measures, such as accuracy or f1

    @cached_property
    def finite(self) -> np.ndarray:
        return np.isfinite(self.all_raw)

    @cached_property
    def steps(self) -> FloatArray:
        return np.asarray(self.all_steps[self.finite])

    @cached_property
    def raw(self) -> FloatArray:
        return np.asarray(self.all_raw[self.finite])

    @property
    def n(self) -> int:
        return len(self.raw)

    @cached_property
    def log(self) -> bool:
        """Whether the curve is measured on a log scale: all positive and over 3 decades wide."""
        if self.direction == "higher" or self.n < 4 or np.min(self.raw) <= 0:
            return False
        blocks = block_medians(self.raw, BLOCKS)
        return bool(np.log10(blocks.max() / blocks.min()) > LOG_DECADES)

    @cached_property
    def cost(self) -> FloatArray:
        if self.direction == "higher":
            return -self.raw
        return np.log(self.raw) if self.log else self.raw

    @cached_property
    def linear(self) -> FloatArray:
        """The cost without the log scale: as logged, but lower is better."""
        return self.raw if self.log else self.cost

    @cached_property
    def top(self) -> float:
        """Highest possible value of a score: 1, or 100 where it was logged in percent."""
        return 1.0 if np.max(self.raw) <= 1 else 100.0

    @cached_property
    def level(self) -> FloatArray:
        """Cost without its noise and its spikes."""
        return self._level(self.cost)

    @cached_property
    def linear_level(self) -> FloatArray:
        return self._level(self.linear) if self.log else self.level

    def _level(self, values: FloatArray) -> FloatArray:
        """Running median over a window that a spike cannot fill."""
        if self.n <= FINE:
            return running_median(values, max(9, self.n // 25 | 1))
        return np.interp(self.steps, self.block_steps, running_median(block_medians(values, BLOCKS), 5))

    def to_raw(self, cost: float) -> float:
        """A cost as the value that would have been logged."""
        if self.direction == "higher":
            return -cost
        return float(np.exp(cost)) if self.log else cost

    def need(self, points: int) -> None:
        """Raise unless the curve has ``points`` finite points."""
        if self.n < points:
            raise Unavailable(f"{self.role} has {self.n} points; {points} are needed", (self.role,))

    @cached_property
    def block_steps(self) -> FloatArray:
        """Step of the middle of each of at most 200 blocks of equal count."""
        edges = block_edges(self.n, BLOCKS)
        return np.asarray(self.steps[(edges[:-1] + edges[1:] - 1) // 2])

    @cached_property
    def blocks(self) -> FloatArray:
        """Median cost of each block."""
        return block_medians(self.cost, BLOCKS)

    @cached_property
    def block_size(self) -> float:
        return self.n / max(1, len(self.blocks))

    @cached_property
    def width(self) -> int:
        """Smoothing window in blocks: none below 8, then about a twentieth, at least 3."""
        m = len(self.blocks)
        return 1 if m < 8 else max(3, m // 20 | 1)

    @cached_property
    def smooth(self) -> FloatArray:
        return running_median(self.blocks, self.width)

    @cached_property
    def noise(self) -> float:
        """Noise of single points, in units of cost; at least that of rounded values."""
        return max(point_noise(self.cost), self.rounding)

    @cached_property
    def rounding(self) -> float:
        """Standard deviation of the error of rounding to the smallest difference that occurs."""
        differences = np.diff(np.sort(self.cost))
        differences = differences[differences > 0]
        return float(differences.min() / np.sqrt(12)) if len(differences) else 0.0

    def level_noise(self, cost: FloatArray | None = None) -> float:
        """Noise of a smoothed level: point noise over the root of the points averaged.

        The factor 1.25 is a median's standard error over a mean's. Where blocks scatter more
        than their points explain (slow wander), the blocks' own scatter counts.
        """
        points = self.cost if cost is None else cost
        averaged = max(1.0, self.block_size * self.width)
        wander = point_noise(self.blocks) / np.sqrt(self.width)
        return float(max(1.25 * point_noise(points) / np.sqrt(averaged), wander))

    @cached_property
    def start(self) -> float:
        """Cost at the start: median of the first hundredth of the points."""
        return median(self.cost[: max(1, self.n // 100)])

    @cached_property
    def end_count(self) -> int:
        """Points that make the end level: a tenth, at least 3 of 6 and more."""
        return max(3 if self.n >= 6 else 1, self.n // 10)

    @cached_property
    def end(self) -> float:
        return median(self.cost[-self.end_count :])

    @cached_property
    def best_block(self) -> int:
        return int(np.argmin(self.smooth))

    @cached_property
    def best(self) -> float:
        """Lowest smoothed cost."""
        return float(min(self.smooth[self.best_block], self.end, self.start))

    @cached_property
    def best_step(self) -> float:
        """Step of the lowest point within the smoothing window of the lowest level."""
        edges = block_edges(self.n, BLOCKS)
        half = self.width // 2
        a = int(edges[max(0, self.best_block - half)])
        b = int(edges[min(len(edges) - 1, self.best_block + half + 1)])
        return float(self.steps[a + int(np.argmin(self.cost[a:b]))])

    @cached_property
    def drop(self) -> float:
        """From the start to the best level; never negative."""
        return max(0.0, self.start - self.best)

    @cached_property
    def span(self) -> float:
        """The way the curve covered: the descent or, where it rose beyond its start, the rise."""
        return max(self.start, self.end) - self.best

    @cached_property
    def linear_span(self) -> float:
        """The way covered in units of what was logged, log scale or not."""
        if not self.log:
            return self.span
        return float(np.exp(max(self.start, self.end)) - np.exp(self.best))

    @cached_property
    def first_step(self) -> float:
        return float(self.steps[0])

    @cached_property
    def length(self) -> float:
        return float(self.steps[-1] - self.steps[0])

    def position(self, step: float) -> float:
        """Where ``step`` lies in the run, 0 to 1."""
        return (step - self.first_step) / self.length if self.length > 0 else 1.0

    def tail(self, share: float) -> slice:
        """The points of the last ``share`` of the steps."""
        cut = self.steps[-1] - share * self.length
        return slice(int(np.searchsorted(self.steps, cut)), self.n)

    def at(self, step: float, value: float) -> Measurement:
        return Measurement(value, (step, step), self.role)

    def over(self, first: float, last: float, value: float) -> Measurement:
        return Measurement(value, (first, last), self.role)


def curve_of(run: Run, role: str, averaged: bool = False) -> Curve:
    """The curve of ``role``; raises :class:`Unavailable` where the run has none.

    ``averaged`` prefers the series that was logged once an epoch, to compare with validation.

    train_metric and val_metric are the accuracy where there is one, else the metric of known
    direction with most points. Losses logged only in parts are added up.
    """
    series = _candidates(run, role)
    if not series:
        raise Unavailable(f"no {role} was logged", (role,))
    chosen = max(
        series,
        key=lambda s: (averaged and s.subject == "epoch", int(np.isfinite(s.values).sum()), s.points),
    )
    kept: slice | np.ndarray = slice(chosen.leading_zeros, None)
    if chosen.points == chosen.leading_zeros:
        raise Unavailable(f"{role} holds placeholders only", (role,))
    if role.startswith("val_"):
        kept = _evaluated(chosen.values, chosen.leading_zeros)
    wall = chosen.wall_times
    direction = chosen.direction if chosen.direction != "unknown" else "lower"
    return Curve(
        role,
        chosen.tag,
        chosen.axis,
        direction,
        chosen.steps[kept],
        chosen.values[kept],
        None if wall is None else wall[kept],
        _measure(chosen),
    )


def _evaluated(values: FloatArray, first: int) -> slice | np.ndarray:
    """The values from ``first`` on; of those carried on until the next one came, each once."""
    changed = first + np.flatnonzero(np.diff(values[first:], prepend=np.nan) != 0)
    if len(changed) < 4 or median(np.diff(changed)) < REPEATED:
        return slice(first, None)
    return changed


def _measure(series: Series) -> str:
    if series.role.endswith("_metric"):
        return series.subject
    return "accuracy" if series.role.endswith("_accuracy") else ""


def _candidates(run: Run, role: str) -> list[Series]:
    found = [s for s in run.by_role(role) if s.points]
    if role in ("train_loss", "val_loss"):
        return found or _summed(run, role)
    if role == "learning_rate":
        return _middle(found)
    if role == "grad_norm":
        return found or _norm_of_layers(run)
    if role in ("train_metric", "val_metric"):
        accuracy = [s for s in run.by_role(role.replace("metric", "accuracy")) if s.points]
        return accuracy or [s for s in found if s.direction != "unknown"]
    return found


def _middle(groups: list[Series]) -> list[Series]:
    """The median learning rate of several parameter groups: one of them may warm up from above."""
    if len(groups) < 3 or not all(np.array_equal(g.steps, groups[0].steps) for g in groups):
        return groups
    return [replace(groups[0], values=np.median([g.values for g in groups], axis=0), subject="")]


def _norm_of_layers(run: Run) -> list[Series]:
    """The global gradient norm from those of the layers."""
    logged = run.by_role("grad_norm_layer") or layer_series(run, "grad_norm_layer")
    layers = [s for s in logged if s.points and not np.any(s.values < 0)]
    if not layers:
        return []
    first = max(layers, key=lambda s: s.points)
    same = [s.values for s in layers if np.array_equal(s.steps, first.steps)]
    total = np.sqrt(np.sum(np.square(same), axis=0))
    return [replace(first, tag="grad_norm of all layers", values=total, role="grad_norm", leading_zeros=0)]


def parts_of(run: Run, role: str) -> Curve:
    """The sum of what was logged as parts of ``role``; raises :class:`Unavailable` where nothing was."""
    total = _summed(run, role)
    if not total:
        raise Unavailable(f"no parts of {role} were logged", (f"{role}_part",))
    return Curve(role, total[0].tag, total[0].axis, "lower", total[0].steps, total[0].values)


def _summed(run: Run, role: str) -> list[Series]:
    """The sum of a loss's parts where all were logged at the same steps."""
    parts = {s.subject or s.tag: s for s in run.by_role(f"{role}_part") if s.points > s.leading_zeros}
    other = "val_loss" if role == "train_loss" else "train_loss"
    partners = {s.subject or s.tag for s in run.by_role(f"{other}_part") if s.points > s.leading_zeros}
    shared = [parts[k] for k in parts if k in partners] if partners else list(parts.values())
    if not shared:
        return []
    if len(shared) == 1:
        return shared
    first = max(shared, key=lambda s: s.points)
    same = [s for s in shared if np.array_equal(s.steps, first.steps)]
    total = np.sum([s.values for s in same], axis=0)
    tag = " + ".join(s.tag for s in same)
    zeros = max(s.leading_zeros for s in same)
    return [replace(first, tag=tag, values=total, role=role, direction="lower", leading_zeros=zeros)]
