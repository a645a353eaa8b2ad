"""What has been read of an event file: points and histograms of all tags in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.model import FloatArray, Histograms, IntArray, Scalar, Series, Text

Key = tuple[bytes, bool]  # tag as written; whether its values are tensors


class Points(NamedTuple):
    """Points of one tag. ``positions`` are offsets in the file, which give their order."""

    positions: IntArray
    steps: FloatArray
    wall_times: FloatArray
    values: FloatArray


class Frame(NamedTuple):
    """One histogram. Its buckets' edges are ``left`` and ``right``; with ``left`` None, ``right`` holds
    the upper limits of adjoining buckets."""

    position: int
    step: float
    wall_time: float
    moments: Sequence[float]  # as in events.Moments
    left: FloatArray | None
    right: FloatArray
    counts: FloatArray


@dataclass(slots=True)
class Log:
    numbers: dict[Key, int] = field(default_factory=dict)
    points: dict[int, list[Points]] = field(default_factory=dict)  # by the tag's number
    mixed: list[tuple[IntArray, Points]] = field(default_factory=list)  # points of many tags: their numbers
    single: list[tuple[int, int, float, float, float]] = field(default_factory=list)  # number, then a point
    frames: dict[Key, list[Frame]] = field(default_factory=dict)
    plugins: dict[bytes, str] = field(default_factory=dict)  # by tag; the first event's counts
    texts: list[Text] = field(default_factory=list)
    hyperparameters: dict[str, Scalar] = field(default_factory=dict)
    unsupported: dict[bytes, int] = field(default_factory=dict)  # values left out, by tag
    malformed: int = 0
    malformed_offset: int = 0
    skipped: int = 0  # values of kinds that are not read: images, audio, graphs

    def number(self, key: Key) -> int:
        return self.numbers.setdefault(key, len(self.numbers))


def name_of(tag: bytes) -> str:
    """The tag as text; bytes that are not UTF-8 stay distinct."""
    return tag.decode("utf-8", "backslashreplace")


def series(log: Log, source: str) -> Iterator[Series]:
    """One curve a tag, its points in file order; the tag that was written first comes first."""
    parts = _by_number(log)
    curves: dict[bytes, list[Points]] = {}
    for (tag, is_tensor), number in log.numbers.items():
        if number in parts and (not is_tensor or log.plugins.get(tag, "scalars") == "scalars"):
            curves.setdefault(tag, []).extend(parts[number])
    joined = [(tag, _in_file_order(_joined(found))) for tag, found in curves.items()]
    for tag, points in sorted(joined, key=lambda item: int(item[1].positions[0])):
        yield Series(name_of(tag), points.steps, points.values, points.wall_times, source=source)


def _by_number(log: Log) -> dict[int, list[Points]]:
    """All points, those of ``mixed`` and ``single`` sorted out to their tags."""
    mixed = list(log.mixed)
    if log.single:
        numbers, positions, *rest = zip(*log.single, strict=True)
        steps, wall_times, values = (np.array(column, np.float64) for column in rest)
        points = Points(np.array(positions, np.int64), steps, wall_times, values)
        mixed.append((np.array(numbers, np.int64), points))
    parts = {number: list(points) for number, points in log.points.items()}
    if mixed:
        tags = np.concatenate([numbers for numbers, _ in mixed])
        table = _joined([points for _, points in mixed])
        order = np.argsort(tags.astype(np.min_scalar_type(int(tags.max()))), kind="stable")
        starts = np.flatnonzero(np.diff(tags[order], prepend=-1))
        columns = [np.split(column[order], starts[1:]) for column in table]
        for number, *part in zip(tags[order][starts].tolist(), *columns, strict=True):
            parts.setdefault(number, []).append(Points(*part))
    return parts


def taken(points: Points, some: IntArray | NDArray[np.bool_] | int) -> Points:
    """The points numbered, marked, or in the row ``some``."""
    return Points(points.positions[some], points.steps[some], points.wall_times[some], points.values[some])


def _joined(parts: list[Points]) -> Points:
    if len(parts) == 1:
        return parts[0]
    return Points(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.wall_times for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def _in_file_order(points: Points) -> Points:
    if (points.positions[1:] > points.positions[:-1]).all():
        return points
    order = np.argsort(points.positions, kind="stable")
    return taken(points, order)


def histograms(log: Log, source: str) -> Iterator[Histograms]:
    for frames in log.frames.values():
        frames.sort(key=lambda frame: frame.position)
    for tag, is_tensor in sorted(log.frames, key=lambda key: log.frames[key][0].position):
        frames = log.frames.pop((tag, is_tensor))  # freed once it is copied: it may be large
        if is_tensor and log.plugins.get(tag) != "histograms":
            continue
        moments = np.array([frame.moments for frame in frames], np.float64).T.copy()
        offsets = np.cumsum([0, *(len(frame.counts) for frame in frames)], dtype=np.int64)
        left, right = _edges(frames, offsets, moments[0], moments[1])
        yield Histograms(
            name_of(tag),
            np.array([frame.step for frame in frames]),
            np.array([frame.wall_time for frame in frames]),
            moments[0],
            moments[1],
            moments[2],
            moments[3],
            moments[4],
            offsets,
            left,
            right,
            np.concatenate([frame.counts for frame in frames]),
            source=source,
        )


def _edges(
    frames: list[Frame], offsets: IntArray, minimum: FloatArray, maximum: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Edges of all buckets. Where only upper limits were written, the extremes close the outer buckets:
    writers end with a catch-all limit of 1.8e308."""
    right = np.concatenate([frame.right for frame in frames])
    left = np.empty_like(right)
    left[1:] = right[:-1]
    kept = [frame.left for frame in frames]
    if all(edges is not None for edges in kept):
        return np.concatenate([edges for edges in kept if edges is not None]), right
    some = np.flatnonzero(np.diff(offsets) > 0)
    first, last = offsets[some], offsets[some + 1] - 1
    left[first] = np.fmin(minimum[some], right[first])
    right[last] = np.fmax(np.fmin(right[last], maximum[some]), left[last])
    return left, right
