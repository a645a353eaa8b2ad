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
    rows: list[tuple[list[int], Points]] = field(default_factory=list)  # tags' numbers; [tags, points]
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
    joined = [(tag, _in_file_order(found)) for tag, found in curves.items()]
    for tag, points in sorted(joined, key=lambda item: int(item[1].positions[0])):
        yield Series(name_of(tag), points.steps, points.values, points.wall_times, source=source)


def _by_number(log: Log) -> dict[int, list[Points]]:
    """All points, by the number of their tag."""
    parts: dict[int, list[Points]] = {}
    for numbers, rows in log.rows:
        for k, number in enumerate(numbers):
            parts.setdefault(number, []).append(taken(rows, k))
    mixed = list(log.mixed)
    if log.single:
        numbers_of, positions, *rest = zip(*log.single, strict=True)
        steps, wall_times, values = (np.array(column, np.float64) for column in rest)
        points = Points(np.array(positions, np.int64), steps, wall_times, values)
        mixed.append((np.array(numbers_of, np.int64), points))
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


def _in_file_order(parts: list[Points]) -> Points:
    points = _joined(sorted(parts, key=lambda part: int(part.positions[0])))
    if (points.positions[1:] > points.positions[:-1]).all():
        return points
    order = np.argsort(points.positions, kind="stable")
    return taken(points, order)


def histograms(log: Log, source: str) -> Iterator[Histograms]:
    for frames in log.frames.values():
        frames.sort(key=lambda frame: frame.position)
    # One block for all: so it comes in large pages. To touch small ones takes longer than to fill them.
    room = np.empty(3 * sum(len(frame.counts) for frames in log.frames.values() for frame in frames))
    for tag, is_tensor in sorted(log.frames, key=lambda key: log.frames[key][0].position):
        frames = log.frames.pop((tag, is_tensor))  # freed once it is copied: it may be large
        if is_tensor and log.plugins.get(tag) != "histograms":
            continue
        moments = np.array([frame.moments for frame in frames], np.float64).T.copy()
        offsets = np.cumsum([0, *(len(frame.counts) for frame in frames)], dtype=np.int64)
        size = int(offsets[-1])
        (left, right, counts), room = room[: 3 * size].reshape(3, size), room[3 * size :]
        np.concatenate([frame.counts for frame in frames], out=counts)
        np.concatenate([frame.right for frame in frames], out=right)
        _fill_left(left, right, frames, offsets, moments)
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
            counts,
            source=source,
        )


def _fill_left(
    left: FloatArray, right: FloatArray, frames: list[Frame], offsets: IntArray, moments: FloatArray
) -> None:
    """Left edges of all buckets. Where only upper limits were written, the extremes close the outer
    buckets: writers end with a catch-all limit of 1.8e308."""
    kept = [frame.left for frame in frames if frame.left is not None]
    if len(kept) == len(frames):
        np.concatenate(kept, out=left)
        return
    left[1:] = right[:-1]
    some = np.flatnonzero(np.diff(offsets) > 0)
    first, last = offsets[some], offsets[some + 1] - 1
    left[first] = np.fmin(moments[0, some], right[first])
    right[last] = np.fmax(np.fmin(right[last], moments[1, some]), left[last])
