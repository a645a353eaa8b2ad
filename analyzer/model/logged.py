"""What was logged: the types that reading speaks in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from analyzer.model.stored import Checkpoint

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]
else:  # what reading does not need is not loaded
    FloatArray = IntArray = np.ndarray
Scalar = str | int | float | bool | None

Direction = Literal["lower", "higher", "unknown"]
Axis = Literal["step", "epoch", "row", "episode"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be read, and what was lost by it.

    Damage: truncated, checksum, damaged, empty, unreadable, missing, too-large, unsafe.
    Nothing to read: pointer (a Git LFS pointer instead of the file), unsupported, no-series (text
    or results without a curve), no-logs (hyperparameters alone), passed-over, unsure.
    Facts about the run: crashed (its output ends in an exception), restarted, continued.
    Our own: rule-error, internal. ``offset`` is in bytes.
    """

    path: str
    kind: str
    message: str
    offset: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One logged curve.

    ``steps`` and ``values`` are float64 of equal length n; ``wall_times`` (seconds since the
    epoch, or since the start where only that was logged) likewise, or None. Ingestors emit the
    points in the order they were written; after assembly ``steps`` never decrease.
    NaN in ``values`` is a NaN that was logged: a missing value is a missing point.
    """

    tag: str
    steps: FloatArray
    values: FloatArray
    wall_times: FloatArray | None = None
    axis: Axis = "step"
    source: str = ""
    role: str = ""  # "" = not mapped
    direction: Direction = "unknown"
    subject: str = ""  # the layer, class, component or metric that a per-part role speaks of
    rewinds: tuple[float, ...] = ()  # steps at which the log went back
    superseded: int = 0  # points overwritten by a later write of the same step
    leading_zeros: int = 0  # placeholder zeros logged before the metric was first computed

    @property
    def points(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Histograms:
    """All histograms logged under one tag, in columns.

    Frame i holds buckets ``offsets[i]:offsets[i + 1]``; bucket j covers
    ``(edges_left[j], edges_right[j]]`` with ``counts[j]`` elements. Per-frame columns have one
    entry a frame; where the writer did not store them (tensor encoding) they are computed from
    the buckets.
    """

    tag: str
    steps: FloatArray
    wall_times: FloatArray
    minimum: FloatArray
    maximum: FloatArray
    count: FloatArray
    total: FloatArray
    total_squares: FloatArray
    offsets: IntArray
    edges_left: FloatArray
    edges_right: FloatArray
    counts: FloatArray
    source: str = ""
    role: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A logged piece of text: never interpreted, always escaped when shown."""

    tag: str
    step: float
    value: str


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one file gave: the common answer of every ingestor."""

    series: tuple[Series, ...] = ()
    histograms: tuple[Histograms, ...] = ()
    texts: tuple[Text, ...] = ()
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One training run: everything that was found of it."""

    name: str
    path: str
    series: tuple[Series, ...] = ()
    histograms: tuple[Histograms, ...] = ()
    texts: tuple[Text, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    files: tuple[str, ...] = ()  # every file that belongs to the run, read or not
    problems: tuple[Problem, ...] = ()

    def by_role(self, role: str) -> tuple[Series, ...]:
        return tuple(s for s in self.series if s.role == role)
