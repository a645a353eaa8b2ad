"""Histograms of an event file: the buckets of each tag in columns that grow as the file is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from analyzer.ingest.wire import text_of
from analyzer.model import FloatArray, Histograms, IntArray

SPARE = 1.05  # room for the buckets still to come, over what the ones so far make likely


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


class Frames:
    """The histograms of one tag: ``filled`` buckets [left, right, count], and what each frame has.

    Where upper limits alone were written, the left edges stay empty until all frames are there.
    """

    def __init__(self) -> None:
        self.buckets: FloatArray = np.empty((3, 0))
        self.filled = 0
        self.sizes: list[IntArray] = []
        self.facts: list[FloatArray] = []  # [position, step, wall time, moments; frames]

    def make_room(self, facts: FloatArray, sizes: IntArray, share: float = 1.0) -> slice:
        """Where the buckets of further frames go, which are ``share`` of all the file is likely to hold."""
        low, high = self.filled, self.filled + int(sizes.sum())
        if high > self.buckets.shape[1]:
            room = max(high, int(SPARE * high / share) if share < 1 else 2 * high)
            old, self.buckets = self.buckets, np.empty((3, room))
            self.buckets[:, :low] = old[:, :low]
        self.filled = high
        self.sizes.append(sizes)
        self.facts.append(facts)
        return slice(low, high)

    def add_one(self, frame: Frame) -> None:
        facts = np.array([frame.position, frame.step, frame.wall_time, *frame.moments], np.float64)
        some = self.make_room(facts[:, None], np.array([len(frame.counts)]))
        if frame.left is not None:
            self.buckets[0, some] = frame.left
        self.buckets[1, some] = frame.right
        self.buckets[2, some] = frame.counts


def histograms(
    found: Mapping[tuple[bytes, bool], Frames], plugins: Mapping[bytes, str], source: str
) -> Iterator[Histograms]:
    """Histograms of all tags, by which is first in the file; tensors only where they are histograms."""
    for tag, is_tensor in sorted(found, key=lambda key: min(facts[0].min() for facts in found[key].facts)):
        if not is_tensor or plugins.get(tag) == "histograms":
            yield _histograms(text_of(tag), found[tag, is_tensor], is_tensor, source)


def _histograms(tag: str, frames: Frames, is_tensor: bool, source: str) -> Histograms:
    facts = np.concatenate(frames.facts, axis=1)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(frames.sizes))])
    buckets = frames.buckets[:, : frames.filled]
    if (np.diff(facts[0]) < 0).any():
        order = np.argsort(facts[0], kind="stable")
        parts = [np.arange(offsets[k], offsets[k + 1]) for k in order.tolist()]
        facts, buckets = facts[:, order], buckets[:, np.concatenate(parts)]
        offsets = np.concatenate([[0], np.cumsum(np.diff(offsets)[order])])
    left, right, counts = buckets
    _, steps, wall_times, minimum, maximum, count, total, squares = facts
    if not is_tensor:
        left[1:] = right[:-1]
        _close(left, right, offsets, minimum, maximum)
    return Histograms(
        tag,
        steps,
        wall_times,
        minimum,
        maximum,
        count,
        total,
        squares,
        offsets,
        left,
        right,
        counts,
        source=source,
    )


def _close(
    left: FloatArray, right: FloatArray, offsets: IntArray, minimum: FloatArray, maximum: FloatArray
) -> None:
    """Let the extremes close the outer buckets, where only upper limits were written: writers end with
    a catch-all limit of 1.8e308."""
    some = np.flatnonzero(np.diff(offsets) > 0)
    first, last = offsets[some], offsets[some + 1] - 1
    left[first] = np.fmin(minimum[some], right[first])
    right[last] = np.fmax(np.fmin(right[last], maximum[some]), left[last])
