"""What has been read of an event file: the points of all tags in columns, and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from analyzer.ingest.event_frames import Frames
from analyzer.ingest.wire import text_of
from analyzer.model import FloatArray, IntArray, Scalar, Series, Text

Key = tuple[bytes, bool]  # tag as written; whether its values are tensors


class Points(NamedTuple):
    """Points of one tag. ``positions`` are offsets in the file, which give their order."""

    positions: IntArray
    steps: FloatArray
    wall_times: FloatArray
    values: FloatArray


class Block:
    """Points of several tags that were written in turn: columns [tags, room], ``filled`` of them so far.

    ``runs`` tell where they lie in the file: start, place of each tag's point in a period, number and
    bytes of the periods.
    """

    def __init__(self, tags: int, room: int):
        self.steps, self.wall_times, self.values = np.empty((3, tags, room))
        self.filled = 0
        self.runs: list[tuple[int, IntArray, int, int]] = []

    def points(self, row: int) -> Points:
        """The points of one tag."""
        places = [start + places[row] + size * np.arange(count) for start, places, count, size in self.runs]
        return Points(np.concatenate(places), *self.columns(row))

    def columns(self, row: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Steps, wall times and values of one tag."""
        some = slice(self.filled)
        return self.steps[row, some], self.wall_times[row, some], self.values[row, some]


class Log:
    def __init__(self) -> None:
        self.numbers: dict[Key, int] = {}
        self.blocks: dict[tuple[int, ...], list[Block]] = {}  # by tags' numbers
        self.reserved = 0  # points that the blocks have room for
        self.known: dict[int, list[Points]] = {}  # points of one tag, by its number
        self.mixed: list[tuple[IntArray, Points]] = []  # points of many tags: their numbers
        self.single: list[tuple[int, int, float, float, float]] = []  # number, then a point
        self.frames: dict[Key, Frames] = {}
        self.plugins: dict[bytes, str] = {}  # by tag; the first event's counts
        self.texts: list[Text] = []
        self.hyperparameters: dict[str, Scalar] = {}
        self.unsupported: dict[bytes, int] = {}  # values left out, by tag
        self.malformed = 0
        self.malformed_offset = 0
        self.skipped = 0  # values of kinds that are not read: images, audio, graphs

    def number(self, key: Key) -> int:
        return self.numbers.setdefault(key, len(self.numbers))


def block(log: Log, numbers: tuple[int, ...], count: int, most: int, limit: int) -> Block:
    """A block of these tags with room for ``count`` points of each.

    A new one has room for ``most``, if that does not raise the room of all beyond ``limit`` points: what
    is not filled is never touched, and what is filled need not be joined.
    """
    blocks = log.blocks.setdefault(numbers, [])
    if not blocks or blocks[-1].values.shape[1] < blocks[-1].filled + count:
        room = most if log.reserved + most * len(numbers) <= limit else count
        log.reserved += room * len(numbers)
        blocks.append(Block(len(numbers), room))
    return blocks[-1]


def series(log: Log, source: str) -> Iterator[Series]:
    """One curve a tag, its points in file order; the tag that was written first comes first."""
    rows: dict[int, list[tuple[Block, int]]] = {}
    for numbers, blocks in log.blocks.items():
        for row, number in enumerate(numbers):
            rows.setdefault(number, []).extend((block, row) for block in blocks)
    single = _by_number(log)
    curves: dict[bytes, tuple[list[tuple[Block, int]], list[Points]]] = {}
    for (tag, is_tensor), number in log.numbers.items():
        if not is_tensor or log.plugins.get(tag, "scalars") == "scalars":
            in_blocks, others = curves.setdefault(tag, ([], []))
            in_blocks += rows.get(number, [])
            others += log.known.get(number, []) + single.get(number, [])
    found = [_curve(text_of(tag), *parts, source) for tag, parts in curves.items()]
    yield from (curve for _, curve in sorted(found, key=lambda item: item[0]))


def _curve(
    tag: str, in_blocks: list[tuple[Block, int]], others: list[Points], source: str
) -> tuple[int, Series]:
    """The curve of one tag, and where in the file it begins."""
    if len(in_blocks) == 1 and not others:
        ((block, row),) = in_blocks
        start, places, _, _ = block.runs[0]
        begin = start + int(places[row])
        steps, wall_times, values = block.columns(row)
    else:
        points = _in_file_order([*(block.points(row) for block, row in in_blocks), *others])
        begin = int(points.positions[0])
        _, steps, wall_times, values = points
    return begin, Series(tag, steps, values, wall_times, source=source)


def _by_number(log: Log) -> dict[int, list[Points]]:
    """The points that are in no block, by the number of their tag, in file order."""
    parts: dict[int, list[Points]] = {}
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
            parts[number] = [_sorted(Points(*part))]
    return parts


def taken(points: Points, some: IntArray | slice) -> Points:
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
    """The points of parts that are each in file order."""
    if len(parts) == 1:
        return parts[0]
    return _sorted(_joined(sorted(parts, key=lambda part: int(part.positions[0]))))


def _sorted(points: Points) -> Points:
    if (points.positions[1:] > points.positions[:-1]).all():
        return points
    return taken(points, np.argsort(points.positions, kind="stable"))
