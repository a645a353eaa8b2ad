"""Progress bars of tqdm and Keras: the last complete state of each pass counts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from analyzer.ingest.printed.entries import Entry

TQDM = re.compile(r"(?<!\d)(\d{1,3})%\|[^|]*\|\s*(\d+)/(\d+)\s*\[[^\],]*(?:,\s*[^\],]*)?")
ULTRALYTICS = re.compile(r"(?<!\d)\d{1,3}% [━╸─]+ (\d+)/(\d+) \S+(?: [\d:.]+s?(?:<[\d:.]+s?)?)?")
KERAS = re.compile(r"^\s*(\d+)/(\d+)\s*(?:\[[=>.\s]+\]|[━╸╺─\s]{3,})(?:\s*-?\s*(?:ETA:\s*)?[\d:.]+(?:s|ms|us)?\b(?:\s*[\d.]+[mu]?s/(?:step|epoch|sample))?)?")  # fmt: skip


def bar_in(line: str) -> re.Match[str] | None:
    """The bar that a line shows; the last two groups are how much is done, and of how much."""
    if "%|" in line and (match := TQDM.search(line)):
        return match
    if ("━" in line or "─" in line) and (match := ULTRALYTICS.search(line)):
        return match
    return KERAS.match(line) if "/" in line and line.lstrip()[:1].isdigit() else None


@dataclass(slots=True)
class Bar:
    """A progress bar on its way: its last complete state and, in its first pass, all states."""

    entry: Entry
    done: float
    passes: int = 1
    states: list[Entry] = field(default_factory=list)


Bars = dict[tuple[str, float], Bar]  # by the words before a bar and its length


def advance(bars: Bars, entries: list[Entry], entry: Entry, done: float, identity: tuple[str, float]) -> None:
    """Move a bar on; a bar that starts over leaves its last complete state as an entry."""
    bar = bars.get(identity)
    if bar is None:
        bar = bars[identity] = Bar(entry, done)
    elif _starts_over(bar, entry, done) or _headed(entries, bar.entry):
        if bar.done == bar.entry.total:
            entries.append(bar.entry)
        bar.passes += 1
        bar.states.clear()
    elif done == bar.done and bar.states:
        bar.states.pop()
    bar.entry, bar.done = entry, done
    if bar.passes == 1:
        entry.inner = done
        bar.states.append(entry)


def _starts_over(bar: Bar, entry: Entry, done: float) -> bool:
    """Whether a state belongs to the next pass: it falls back, or is complete again some lines later."""
    if done != bar.done or entry.epoch != bar.entry.epoch:
        return done < bar.done or entry.epoch != bar.entry.epoch
    return entry.epoch is None and entry.line > bar.entry.line + 2 and entry.values != bar.entry.values


def _headed(entries: list[Entry], state: Entry) -> bool:
    """Whether a line that only names an epoch follows a state of a bar: the next pass begins there."""
    last = entries[-1] if entries else None
    return last is not None and last.line > state.line and last.epoch is not None and not last.plan.slots


def finished(bars: Bars, entries: list[Entry]) -> list[Entry]:
    """All entries in order of lines, with the last passes that were complete.

    A bar with one pass is itself the curve.
    """
    found = list(entries)
    for bar in bars.values():
        if bar.passes == 1 and len(bar.states) >= 10:
            found += bar.states
            for entry in bar.states:
                entry.bar = False
        elif bar.done == bar.entry.total:
            found.append(bar.entry)
    for entry in found:
        if entry.bar:
            entry.inner = None
    return sorted(found, key=lambda entry: entry.line)
