"""Where in training the entries stand: iterations that start over with each epoch are counted on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from analyzer.ingest.printed.entries import Entry
from analyzer.model import Axis


@dataclass(slots=True)
class Pass:
    """A stretch of lines over which the iteration counter rises."""

    entries: list[Entry]
    epoch: float | None = None


def place(entries: list[Entry]) -> Axis:
    """Give every entry its step, and say what the steps count."""
    counted = [entry for entry in entries if entry.inner is not None and not entry.bar]
    train = [entry for entry in counted if entry.plan.slots and not entry.plan.held_out] or counted
    if not train:
        return _place_by_epoch(entries)
    passes = _passes(train)
    _name_epochs(passes, entries)
    length = _epoch_length(passes)
    if length is None:
        _place_by_counter(entries)
    else:
        _place_across_epochs(entries, passes, length)
    return "step"


def _place_by_epoch(entries: list[Entry]) -> Axis:
    """Steps are epochs: the line's own, or that of the last line that named one."""
    named = [entry.epoch for entry in entries if entry.epoch is not None]
    if len(set(named)) < 2:
        return "row"
    above = _stands_above_names(entries)
    backwards = above and (named[0] < 2 or not _stands_below_names(entries))
    current = named[0] - 1 if above and not backwards else named[0]  # the log begins within an epoch
    for entry in reversed(entries) if backwards else entries:
        if entry.epoch is not None:
            current = entry.epoch
        entry.step = current
    return "episode" if all(entry.plan.episodes for entry in entries if entry.epoch is not None) else "epoch"


def _stands_above_names(entries: list[Entry]) -> bool:
    """Whether numbers stand above the first name of an epoch."""
    first_value = next((entry.line for entry in entries if entry.plan.slots), 0)
    return first_value < next(entry.line for entry in entries if entry.epoch is not None)


def _stands_below_names(entries: list[Entry]) -> bool:
    """Whether the kind of line that comes first stands below the last name of an epoch, too."""
    kind = next((entry.template for entry in entries if entry.plan.slots), None)
    last_value = max((entry.line for entry in entries if entry.template == kind), default=0)
    return last_value > max(entry.line for entry in entries if entry.epoch is not None)


def _passes(train: Iterable[Entry]) -> list[Pass]:
    """Split where the counter of training lines falls back, or the epoch they name changes."""
    found: list[Pass] = []
    last: Entry | None = None
    reached: dict[int, float] = {}
    for entry in train:
        assert entry.inner is not None
        back = entry.inner <= reached.get(entry.template, -np.inf) or (
            last is not None and entry.inner < (last.inner or 0)
        )
        other = last is not None and entry.epoch is not None and last.epoch not in (None, entry.epoch)
        if last is None or back or (other and entry.inner <= (last.inner or 0)):
            found.append(Pass([]))
            reached = {}
        found[-1].entries.append(entry)
        reached[entry.template] = entry.inner
        last = entry
    return found


def _name_epochs(passes: list[Pass], entries: list[Entry]) -> None:
    """The epoch of each pass: its own lines', else that of the heading above or the summary below it."""
    markers = [entry for entry in entries if entry.epoch is not None and (entry.inner is None or entry.bar)]
    at = np.array([marker.line for marker in markers], dtype=np.int64)
    above = bool(markers) and bool(passes) and at[0] < passes[0].entries[0].line
    for one in passes:
        own = next((entry.epoch for entry in one.entries if entry.epoch is not None), None)
        if own is None and markers:
            if above:
                place = int(np.searchsorted(at, one.entries[0].line)) - 1
            else:
                place = int(np.searchsorted(at, one.entries[-1].line, side="right"))
            own = markers[place].epoch if 0 <= place < len(markers) else None
        one.epoch = own


def _epoch_length(passes: list[Pass]) -> float | None:
    """Iterations of an epoch if the counter starts over in each, or None where it runs on.

    Where nothing names the epochs, passes of one stated or equal length are epochs; passes of
    other lengths are runs appended to the same file.
    """
    if len(passes) < 2:
        return None
    totals = {entry.total for one in passes for entry in one.entries if entry.total}
    ends = [one.entries[-1].inner or 0.0 for one in passes]
    longest = max([*ends, *(total for total in totals if len(totals) == 1)])
    epochs = [one.epoch for one in passes]
    changes = sum(a != b for a, b in pairwise(epochs) if a is not None and b is not None)
    if changes >= 0.5 * (len(passes) - 1):
        return longest
    if not any(epoch is not None for epoch in epochs) and (
        len(totals) == 1 or len(set(ends[:-1])) == 1 < len(ends) - 1
    ):
        return longest
    return None


def _place_by_counter(entries: list[Entry]) -> None:
    """The counter is the step; lines without one stand where the line before them stood.

    In a printed table the counter is a row of its own: the last one is that of all its rows.
    """
    counted = [entry for entry in entries if entry.inner is not None and not entry.bar]
    rows = Counter((entry.block, entry.template) for entry in counted)
    no_tables = {entry.block for entry in counted if entry.plan.slots}
    no_tables |= {block for (block, _), many in rows.items() if many > 1}
    tables = {entry.block: entry.inner or 0.0 for entry in counted if entry.block not in no_tables}
    current = counted[0].inner or 0.0
    for entry in entries:
        if entry.block in tables:
            current = tables[entry.block]
        elif entry.inner is not None and not entry.bar:
            current = entry.inner
        entry.step = current
    if not tables:
        _place_above_counters(entries, counted)


def _place_above_counters(entries: list[Entry], counted: list[Entry]) -> None:
    """Lines that stand just above a counter, from the first to the last, are of the counter below them."""
    at = np.array([entry.line for entry in counted], dtype=np.int64)
    loose: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.inner is None and entry.epoch is None and entry.plan.slots and not entry.bar:
            loose.setdefault(entry.template, []).append(entry)
    for kind in loose.values():
        lines = np.array([entry.line for entry in kind])
        if lines[0] > at[0] or lines[-1] > at[-1]:
            continue
        below = np.searchsorted(at, lines)
        to_next = at[below] - lines
        from_last = (lines - at[below - 1])[1:]
        if len(set(below)) == len(kind) >= 0.9 * len(at) and np.all(to_next[1:] < from_last):
            for entry, place in zip(kind, below, strict=True):
                entry.step = counted[place].inner or 0.0


def _place_across_epochs(entries: list[Entry], passes: list[Pass], length: float) -> None:
    """Epochs times their length plus the counter; other lines stand at the end of the pass before them."""
    named = [one.epoch for one in passes if one.epoch is not None]
    zero = 1.0 if named and min(named) >= 1 else 0.0
    previous = zero - 1
    for one in passes:
        epoch = previous + 1 if one.epoch is None else np.floor(one.epoch)
        previous = epoch
        for entry in one.entries:
            entry.step = (epoch - zero) * length + (entry.inner or 0.0)
    placed = {id(entry) for one in passes for entry in one.entries}
    current = 0.0
    for entry in entries:
        if id(entry) in placed:
            current = entry.step
        elif entry.epoch is not None and entry.inner is None and entry.plan.slots:
            current = (np.floor(entry.epoch) - zero + 1) * length
            entry.step = current
        else:
            entry.step = current
