"""Histogram events together: one cursor for each record, all moved field by field.

Read are events of wall time, step and one summary of one HistogramProto, with fields in order, as
every writer puts them; records of any other form are left to be read one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.ingest import records
from analyzer.ingest.crc32c import Bytes, items
from analyzer.ingest.event_frames import Frames
from analyzer.ingest.event_log import Log

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from analyzer.model import FloatArray, IntArray

SHORTEST = 100  # bytes: shorter records have no buckets worth the trouble
FEWEST = 4  # records: fewer are sooner read one by one
STEP_BYTES = 6


class _Cursors:
    """Places in many records at once; ``fits`` tells which records are of the form so far."""

    def __init__(self, data: Bytes, starts: IntArray, ends: IntArray):
        self.data, self.at, self.ends = data, starts.copy(), ends
        self.fits = np.ones(len(starts), np.bool_)

    def move(self, count: IntArray | int) -> None:
        self.at += count
        self.fits &= self.at <= self.ends
        np.minimum(self.at, self.ends, out=self.at)

    def optional(self, key: int) -> NDArray[np.bool_]:
        """Pass a field's key where it is there."""
        there: NDArray[np.bool_] = (self.data[self.at] == key) & (self.at < self.ends)
        self.move(there.astype(np.int64))
        return there

    def key(self, key: int) -> None:
        self.fits &= self.optional(key)

    def varint(self, there: NDArray[np.bool_]) -> IntArray:
        """The number at the cursor, of up to ``STEP_BYTES`` bytes; 0 where none is ``there``."""
        value = np.zeros(len(self.at), np.int64)
        more = there
        for k in range(STEP_BYTES):
            if not more.any():
                return value
            byte = np.where(more, self.data[self.at], 0).astype(np.int64)
            value |= (byte & 0x7F) << (7 * k)
            self.move(more.astype(np.int64))
            more = more & (byte >= 0x80)
        self.fits &= ~more
        return value

    def double(self, there: NDArray[np.bool_]) -> FloatArray:
        values = items(self.data, 8)[self.at].view(np.float64)
        self.move(8 * there.astype(np.int64))
        return np.where(there, values, 0.0)

    def length(self) -> IntArray:
        return self.varint(self.fits)

    def message(self, key: int) -> None:
        """Enter a message that is the last thing in the record."""
        self.key(key)
        size = self.length()
        self.fits &= self.at + size == self.ends


def take(window: records.Window, starts: IntArray, lengths: IntArray, log: Log) -> tuple[IntArray, IntArray]:
    """Add the histograms among these records to the log; starts and lengths of the others."""
    some_long = np.flatnonzero(lengths >= SHORTEST)
    if len(some_long) < FEWEST:
        return starts, lengths
    cursors = _Cursors(window.data, starts[some_long], (starts + lengths)[some_long])
    cursors.key(0x09)
    walls = cursors.double(cursors.fits)
    steps = cursors.varint(cursors.optional(0x10))
    cursors.message(0x2A)
    cursors.message(0x0A)
    cursors.key(0x0A)
    tag_sizes = cursors.length()
    tags_at = cursors.at.copy()
    cursors.move(tag_sizes)
    cursors.message(0x2A)
    places = cursors.at.copy()
    moments = np.stack([cursors.double(cursors.optional(key)) for key in (0x09, 0x11, 0x19, 0x21, 0x29)])
    cursors.key(0x32)
    sizes = cursors.length()
    limits_at = cursors.at.copy()
    cursors.move(sizes)
    cursors.key(0x3A)
    cursors.fits &= (cursors.length() == sizes) & (sizes % 8 == 0)
    counts_at = cursors.at
    fits = np.flatnonzero(cursors.fits & (counts_at + sizes == cursors.ends))
    if len(fits):
        _add_frames(
            window,
            fits,
            (places, steps, walls, tags_at, tag_sizes, limits_at, counts_at, sizes),
            moments,
            log,
        )
    others = np.delete(np.arange(len(starts)), some_long[fits])
    return starts[others], lengths[others]


def _add_frames(
    window: records.Window,
    fits: IntArray,
    columns: tuple[Any, ...],
    moments: FloatArray,
    log: Log,
) -> None:
    """Add the records numbered ``fits``, together for each tag."""
    places, steps, walls, tags_at, tag_sizes, limits_at, counts_at, sizes = (c[fits] for c in columns)
    data = window.data.data
    names = [
        bytes(data[at : at + size]) for at, size in zip(tags_at.tolist(), tag_sizes.tolist(), strict=True)
    ]
    numbers = {name: k for k, name in enumerate(dict.fromkeys(names))}
    tags = np.array([numbers[name] for name in names])
    order = np.argsort(tags, kind="stable")
    facts = np.stack([places + window.base, steps, walls, *moments[:, fits]])[:, order]
    limits_at, counts_at, sizes = limits_at[order], counts_at[order], sizes[order]
    share = min(1.0, (window.base + int(columns[-2][fits[-1]])) / window.size)
    low = 0
    for name, high in zip(numbers, np.cumsum(np.bincount(tags)).tolist(), strict=True):
        frames = log.frames.setdefault((name, False), Frames())
        now = slice(low, high)
        some = frames.make_room(facts[:, now], sizes[now] // 8, share)
        _copy(data, limits_at[now], sizes[now], frames.buckets[1, some])
        _copy(data, counts_at[now], sizes[now], frames.buckets[2, some])
        low = high


def _copy(data: memoryview, starts: IntArray, sizes: IntArray, into: FloatArray) -> None:
    """Copy the doubles in these stretches of bytes, one after another.

    Without joining them first: a new block of memory for each window is new to the process each time.
    """
    target, at = into.view(np.uint8).data, 0
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        target[at : at + size] = data[start : start + size]
        at += size
