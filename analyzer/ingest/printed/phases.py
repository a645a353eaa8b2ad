"""Several runs printed one after the other: models, folds or seeds under banners, a second phase.

Two witnesses are asked for: the epoch starts over, and a banner above it (or the word for the epoch)
says that something else is trained.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from analyzer.ingest.printed.entries import Entry

MAX_BANNERS = 10_000
BANNER = re.compile(
    r"\W*(?:(?:now|start(?:ing|ed)?|begin(?:ning)?|running)\s+)?"
    r"(train(?:ing)?|model|fold|experiment|run|seed|trial|phase|stage|network|architecture|method)s?\b"
    r"[\s:#=-]+(\w.{0,59}?)[^\w)\]]*$",
    re.IGNORECASE,
)
REPORTS = re.compile(  # what a line tells of a run instead of naming it
    r"(?:time|took|completed?|finish(?:ed)?|done|end(?:ed)?|for|loss|acc(?:uracy)?|data|(?:data)?set|split|sample|image"
    r"|size|stat|log|saved?|param(?:eter)?|progress|config|script|loop|epoch|step|batch|duration|result|summary|total"
    r"|best|has|is|was|will)(?:s|es)?\b",
    re.IGNORECASE,
)


class Banner(NamedTuple):
    """A line that may say what is trained below it: ``Training: small CNN``."""

    line: int
    keyword: str
    name: str


def banner_of(line: str, at: int) -> Banner | None:
    match = BANNER.match(line) if len(line) <= 100 else None
    if match is None or REPORTS.match(match[2]):
        return None
    return Banner(at, match[1].lower().removesuffix("ing"), match[2])


def runs_apart(entries: Sequence[Entry], banners: Sequence[Banner]) -> list[tuple[str, list[Entry]]]:
    """The entries of each run with its name; all of them under "" where nothing tells several apart."""
    named = len({banner.name for banner in banners}) > 1 or any(entry.plan.phase for entry in entries)
    starts = _starts(entries) if named else []
    if len(starts) > 1:
        ends = [*starts[1:], len(entries)]
        names = _names_by_banner(entries, starts, banners) or [
            _phase(entries[start:end]) for start, end in zip(starts, ends, strict=True)
        ]
        found: list[tuple[str, list[Entry]]] = []
        for name, start, end in zip(names, starts, ends, strict=True):
            part = list(entries[start:end])
            if found and (found[-1][0] == name or not any(entry.plan.slots for entry in part)):
                found[-1][1].extend(part)
            else:
                found.append((name, part))
        if len(found) > 1:
            return _numbered(found)
    return [("", list(entries))]


def _starts(entries: Sequence[Entry]) -> list[int]:
    """Where the epoch (the iteration, where no epoch is named) is at its beginning; the first entry is one."""
    by_epoch = any(entry.epoch is not None and entry.plan.slots for entry in entries)
    starts = [0]
    first = last = None
    seen: set[int] = set()
    for i, entry in enumerate(entries):
        place = entry.epoch if by_epoch else entry.inner
        if place is None or (not by_epoch and entry.plan.held_out):
            continue
        again = first == last and entry.template in seen and bool(entry.plan.slots) and entry.inner is None
        if first is not None and last is not None and place <= first and (place < last or again):
            starts.append(i)
            first = None
            seen.clear()
        first, last = place if first is None else first, place
        seen.add(entry.template)
    return starts


def _names_by_banner(
    entries: Sequence[Entry], starts: Sequence[int], banners: Sequence[Banner]
) -> list[str] | None:
    """What the banners of one keyword call each stretch; None where none does so for all, and differently."""
    edges = [0, *(entries[i - 1].line for i in starts[1:]), entries[-1].line]
    for keyword in dict.fromkeys(banner.keyword for banner in banners):
        names = []
        for start, above in zip(starts, edges, strict=False):
            between = [
                banner.name
                for banner in banners
                if banner.keyword == keyword and above < banner.line <= entries[start].line
            ]
            names.append(between[-1] if between else "")
        if all(names) and all(a != b for a, b in pairwise(names)):
            return names
    return None


def _phase(entries: Sequence[Entry]) -> str:
    """The words before most of the epochs: ``Fine-Tune`` of ``Fine-Tune Epoch 1``."""
    counted = Counter(entry.plan.phase for entry in entries if entry.epoch is not None)
    return max(counted, key=counted.__getitem__, default="")


def _numbered(runs: list[tuple[str, list[Entry]]]) -> list[tuple[str, list[Entry]]]:
    """A name that comes again gets a number."""
    count: dict[str, int] = {}
    found = []
    for name, entries in runs:
        count[name] = count.get(name, 0) + 1
        found.append((name if count[name] == 1 else f"{name} ({count[name]})", entries))
    return found
